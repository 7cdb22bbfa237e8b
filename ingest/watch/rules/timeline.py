"""What fired, as a picture: a row for each rule and device, a bar for each time that it fired."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.replay import Firing

_MOST_ROWS: Final = 100
_LONGEST_LABEL: Final = 60


def draw(firings: Sequence[Firing], since: int, until: int, path: Path) -> None:
    """Draw a timeline.

    Args:
        firings: what fired.
        since: where the picture begins, in microseconds since 1970.
        until: where it ends.
        path: the picture; its suffix tells its kind: `.svg`, `.png`.

    Raises:
        ValueError: the suffix is of no known kind.
        OSError: the file can't be written.
    """
    rows: dict[str, list[Firing]] = {}
    for firing in firings:
        rows.setdefault(_label(firing), []).append(firing)
    figure = Figure(figsize=(12, 1.6 + 0.3 * min(len(rows), _MOST_ROWS)), layout="constrained")
    axes = figure.add_subplot()
    shown = list(rows.items())[:_MOST_ROWS]
    for row, (_, bars) in enumerate(shown):
        spans = [_span(firing, until) for firing in bars]
        axes.broken_barh(spans, (row - 0.3, 0.6), facecolor="#cf222e", edgecolor="#cf222e")
    axes.set_yticks(range(len(shown)), [label for label, _ in shown], parse_math=False)
    axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    axes.set_xlim(_number(since), _number(until))
    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(_title(len(firings), len(rows) - len(shown)))
    figure.savefig(path)


def _title(count: int, hidden: int) -> str:
    more = f"; {hidden} more rows are not shown" if hidden else ""
    return f"fired {count} times, in UTC{more}"


def _label(firing: Firing) -> str:
    label = " · ".join(filter(None, (firing.event.rule, firing.event.device)))
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _span(firing: Firing, until: int) -> tuple[float, float]:
    begin = _number(firing.event.fired)
    return begin, _number(until if firing.cleared is None else firing.cleared) - begin


def _number(moment: int) -> float:
    return float(date2num(datetime.fromtimestamp(moment / SECOND, UTC)))
