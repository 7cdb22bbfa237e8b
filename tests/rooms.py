"""Draws the rooms of the house and the way of a frame: `python -m tests.rooms`.

The boxes and arrows come from the code's imports, the numbers from `WAY`. A test compares the
picture that is checked in with what would be drawn now.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "tests" / "rooms.svg"

GROUND = ("record", "names", "units", "layout", "database")
WAY = (
    ("listener/connection.py", "what one read brought"),
    ("wire/ingest1/session.py", "the conversation"),
    ("wire/ingest1/text_dialect.py", "frames, as finished values"),
    ("journal/file.py", "numbers and order"),
    ("journal/writer.py", "on disk, many at once"),
)
"""The files that a frame passes, from the socket to the disk."""

_WIDTH, _BOX, _HIGH, _GAP = 860, 120, 44, 30


def room_of(path: Path) -> str:
    """Return the room of a module: its folder below `ingest/`, or `ground`, or its own name."""
    parts = path.relative_to(ROOT / "ingest").with_suffix("").parts
    return "ground" if parts[0] in GROUND else parts[0]


def imported(source: str) -> Iterator[str]:
    """Go through the modules of `ingest` that a source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ingest."):
            yield node.module or ""


def rooms() -> dict[str, set[str]]:
    """Return the rooms, and for each those that it imports."""
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "ingest").rglob("*.py")):
        room = room_of(path)
        if room.startswith("__"):
            continue
        known = graph.setdefault(room, set())
        for module in imported(path.read_text()):
            name = module.split(".")[1]
            known.add("ground" if name in GROUND else name)
    return {room: known - {room} for room, known in graph.items()}


def layers(graph: dict[str, set[str]]) -> list[list[str]]:
    """Put each room one layer above the highest of those that it imports."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max(map(height, graph[room]), default=-1)
        return heights[room]

    top = max(map(height, graph))
    return [sorted(r for r in graph if heights[r] == level) for level in range(top, -1, -1)]


def direct(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return the imports between rooms that no longer way already says."""

    def below(room: str) -> set[str]:
        return graph[room].union(*map(below, graph[room])) if graph[room] else set()

    return {
        (room, known)
        for room in graph
        for known in graph[room]
        if not any(known in below(other) for other in graph[room] - {known})
    }


def draw() -> str:
    """Return the picture, as SVG."""
    graph = rooms()
    stacked = layers(graph)
    places: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(stacked):
        step = _WIDTH / len(names)
        for column, name in enumerate(names):
            places[name] = (step * (column + 0.5), 150 + row * (_HIGH + _GAP))
    high = int(150 + len(stacked) * (_HIGH + _GAP))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {high}"'
        ' font-family="sans-serif" font-size="13">',
        "<style>text{fill:#222;text-anchor:middle}rect{fill:#f4f6f8;stroke:#789}"
        "path{stroke:#9ab;fill:none}.way rect{fill:#e3f1e5;stroke:#484}.small{font-size:10px}"
        "@media (prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#223;stroke:#89a}"
        ".way rect{fill:#232;stroke:#7b7}}</style>",
        *_way(),
        *(_arrow(places[above], places[below]) for above, below in sorted(direct(graph))),
        *(_box(name, *places[name]) for name in sorted(places)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _way() -> Iterator[str]:
    step = _WIDTH / len(WAY)
    yield '<g class="way">'
    for number, (file, what) in enumerate(WAY, 1):
        middle = step * (number - 0.5)
        yield f'<rect x="{middle - step / 2 + 6:.0f}" y="20" width="{step - 12:.0f}" height="62"/>'
        yield f'<text x="{middle:.0f}" y="42" class="small">{number}. {escape(what)}</text>'
        yield f'<text x="{middle:.0f}" y="66" class="small">{escape(file)}</text>'
    yield "</g>"


def _box(name: str, x: float, y: float) -> str:
    label = " ".join(GROUND) if name == "ground" else name
    wide = _BOX if name != "ground" else 2 * _BOX + 20
    return (
        f'<rect x="{x - wide / 2:.0f}" y="{y:.0f}" width="{wide}" height="{_HIGH}" rx="6"/>'
        f'<text x="{x:.0f}" y="{y + _HIGH / 2 + 5:.0f}">{escape(label)}</text>'
    )


def _arrow(above: tuple[float, float], below: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = above, below
    begin, end = f"{x1:.0f} {y1 + _HIGH:.0f}", f"{x2:.0f} {y2:.0f}"
    return f'<path d="M{begin}C{x1:.0f} {y1 + 62:.0f} {x2:.0f} {y2 - 20:.0f} {end}"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw())
