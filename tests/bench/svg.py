"""Small line charts, as SVG that reads well on a light and on a dark page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

_WIDTH, _HEIGHT = 300, 170  # of a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 34, 44, 30  # around its plot
_STYLE = """\
  text { font: 11px system-ui, sans-serif; fill: #57606a; text-anchor: middle }
  .title { font-weight: 600; fill: #1f2328; text-anchor: start }
  .axis { stroke: #d0d7de }
  .line { fill: none; stroke: #0969da; stroke-width: 2 }
  .point { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .axis { stroke: #3d444d }
    .line { stroke: #4493f8 } .point { fill: #4493f8 }
  }"""


@dataclass(frozen=True)
class Chart:
    """One line over a few points; both axes are logarithmic.

    Attributes:
        title: what is drawn over what.
        points: label below, value, and label above, of each point from left to right; the values
            are above 0.
    """

    title: str
    points: Sequence[tuple[str, float, str]]


def draw(rows: Sequence[Sequence[Chart]]) -> str:
    """Return an SVG document with charts in rows."""
    width, height = _WIDTH * max(map(len, rows)), _HEIGHT * len(rows)
    body = "\n".join(
        f'<g transform="translate({_WIDTH * column} {_HEIGHT * row})">\n{"".join(_draw(chart))}</g>'
        for row, charts in enumerate(rows)
        for column, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" role="img">\n'
        f"<style>\n{_STYLE}\n</style>\n{body}\n</svg>\n"
    )


def _draw(chart: Chart) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    places = list(zip(_across(len(chart.points)), _up(chart), strict=True))
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    yield f'<text class="title" x="{_LEFT - 22}" y="16">{chart.title}</text>\n'
    yield f'<path class="axis" d="M{_LEFT - 22} {bottom}H{_WIDTH - _RIGHT + 22}"/>\n'
    yield f'<polyline class="line" points="{line}"/>\n'
    for (below, _, above), (x, y) in zip(chart.points, places, strict=True):
        yield f'<circle class="point" cx="{x:.0f}" cy="{y:.0f}" r="3.5"/>\n'
        yield f'<text x="{x:.0f}" y="{y - 9:.0f}">{above}</text>\n'
        yield f'<text x="{x:.0f}" y="{bottom + 16}">{below}</text>\n'


def _across(count: int) -> list[float]:
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, count - 1)
    return [_LEFT + step * index for index in range(count)]


def _up(chart: Chart) -> list[float]:
    """Place values between whole powers of ten, so that small changes look small."""
    logs = [log10(value) for _, value, _ in chart.points]
    low, high = floor(min(logs)), ceil(max(logs))
    scale = (_HEIGHT - _TOP - _BOTTOM) / max(1, high - low)
    return [_HEIGHT - _BOTTOM - scale * (each - low) for each in logs]
