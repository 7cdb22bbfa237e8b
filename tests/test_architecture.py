"""The house: data flows one way, and no room reaches up."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rooms import PICTURE, WAY, draw

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ingest"

_GROUND = {"database", "layout", "names", "record", "units"}
MAY_KNOW = {
    "": set(),
    "database": set(),
    "layout": set(),
    "names": set(),
    "record": {"names"},
    "units": set(),
    "wire": _GROUND,
    "devices": _GROUND,
    "log": _GROUND,
    "journal": {"log", *_GROUND},
    "listener": {"wire", "devices", "journal", *_GROUND},
    "ops": _GROUND,
    "service": {"wire", "devices", "log", "journal", "listener", "ops", *_GROUND},
    "watch": {"log", "devices", "ops", *_GROUND},
    "client": set(),
    "__main__": {"cli"},
    "bench": {"wire", "devices", "client", *_GROUND},
    "cli": {
        *("wire", "devices", "log", "journal", "listener", "ops", "service", "watch", "client"),
        "bench",
        *_GROUND,
    },
}
"""What each room of `ingest` may import besides itself; the empty name is `ingest/__init__.py`."""

PURE = {"wire", "devices", "log", "journal", *_GROUND}
"""Rooms that know no reactor."""


def module_name(path: Path) -> str:
    """Turn `ingest/wire/errors.py` into `ingest.wire.errors`, an `__init__.py` into its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def names_imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Yield the modules that `tree` imports anywhere in it; `from package import module` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


def imports_of(source: str) -> set[str]:
    return set(names_imported(ast.parse(source), set(SOURCES)))


def reaches_up(module: str, source: str) -> list[str]:
    """List the imports of `module` that its room may not know."""
    room = room_of(module)
    assert room in MAY_KNOW, f"{module}: the table of rooms does not know {room!r}"
    return [
        name
        for name in sorted(imports_of(source))
        if name.split(".")[0] == "ingest" and room_of(name) not in MAY_KNOW[room] | {room}
    ]


@pytest.mark.parametrize("module", SOURCES)
def test_no_room_reaches_up(module: str) -> None:
    assert reaches_up(module, SOURCES[module]) == []


@pytest.mark.parametrize("module", [name for name in SOURCES if room_of(name) in PURE])
def test_pure_rooms_know_no_twisted(module: str) -> None:
    packages = {name.split(".")[0] for name in imports_of(SOURCES[module])}
    assert packages & {"twisted", "zope"} == set()


RULES = [name for name in SOURCES if name.startswith("ingest.watch.rules.")]
RULES_WITH_REACTOR = {
    f"ingest.watch.rules.{name}"
    for name in ("actions", "courier", "mailbox", "receiver", "service")
}


@pytest.mark.parametrize("module", [name for name in RULES if name not in RULES_WITH_REACTOR])
def test_rules_are_decided_without_twisted(module: str) -> None:
    packages = {name.split(".")[0] for name in imports_of(SOURCES[module])}
    assert packages & {"twisted", "zope"} == set()


def test_a_device_needs_the_standard_library_only() -> None:
    packages = {name.split(".")[0] for name in imports_of(SOURCES["ingest.client"])}
    assert packages - sys.stdlib_module_names <= {"msgpack"}


def test_the_plugin_imports_nothing_of_its_own() -> None:
    plugin = ROOT / "plugins" / "twisted" / "plugins" / "ingest_plugin.py"
    assert imports_of(plugin.read_text()) == {"twisted.application.service"}


def test_no_modules_import_each_other() -> None:
    graph = {module: imports_of(source) for module, source in SOURCES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_picture_of_the_rooms_is_of_this_code() -> None:
    assert PICTURE.read_text() == draw(), "draw it anew: python -m tests.rooms"
    for file, _ in WAY:
        assert (PACKAGE / file).exists()


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        (
            "ingest.wire.errors",
            "import ingest.listener.fleet",
            ["ingest.listener.fleet"],
        ),
        (
            "ingest.wire.errors",
            "from ingest.journal import file",
            ["ingest.journal.file"],
        ),
        (
            "ingest.wire.errors",
            "def f():\n from ingest.log import g",
            ["ingest.log"],
        ),
        ("ingest.wire.errors", "import json\nfrom ingest.wire import names", []),
        ("ingest.journal.file", "import ingest.layout, ingest.record", []),
        ("ingest.client", "from ingest.names import RULE", ["ingest.names"]),
        ("ingest.units", "import ingest", ["ingest"]),
    ],
)
def test_these_tests_see_what_they_look_for(module: str, source: str, found: list[str]) -> None:
    assert reaches_up(module, source) == found
