"""How throughput and cost change with connections, with frame size and with registered devices."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ingest.bench.plan import Plan
from ingest.bench.run import measure
from tests.bench.setting import Scale, cpu_per_frame, plan_for, site
from tests.bench.svg import Chart, draw

PICTURE = Path(__file__).with_name("growth.svg")

_CONNECTIONS = (10, 100, 1000, 10_000)
_SIZES = (20, 100, 1 << 10, 1 << 12, 1 << 14, 1 << 16)
_REGISTERED = (1, 1000, 100_000, 1_000_000)
_FRAMES = 2_000_000
_BYTES = 400 << 20  # that the frames of one size make together, at most


class _Point(NamedTuple):
    x: int
    rate: float
    cpu: float


def measure_growth(scale: Scale) -> list[str]:
    """Measure, draw `PICTURE` unless it was quick, and return the lines of a table of the same."""
    registered = _REGISTERED[:2] if scale.quick else _REGISTERED
    series = {
        "connections": [_at(scale, count, _connections) for count in _CONNECTIONS],
        "frame size": [_at(scale, size, _size) for size in _SIZES],
        "registered devices": [_at(scale, count, _registered) for count in registered],
    }
    rates = [Chart(f"frames/s over {name}", _rates(points)) for name, points in series.items()]
    costs = [Chart(f"CPU per frame over {name}", _cpus(points)) for name, points in series.items()]
    if not scale.quick:
        PICTURE.write_text(draw((rates, costs)))
    lines = ["| over | at | frames/s | CPU per frame |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {point.x:,} | {point.rate:,.0f} | {1e6 * point.cpu:.2f} µs |"
        for name, points in series.items()
        for point in points
    ]
    return [*lines, ""]


def _at(scale: Scale, x: int, make_plan: Callable[[Scale, int], tuple[Plan, int]]) -> _Point:
    plan, connecting = make_plan(scale, x)
    rates, costs = [], []
    for _ in range(scale.rounds):
        with site(plan) as ours:
            devices = ours.plan.devices[:connecting]
            report = measure(replace(ours.plan, devices=devices), ours.process)
        rates.append(report.frames_per_second)
        costs.append(cpu_per_frame(report))
    return _Point(x, median(rates), median(costs))


def _connections(scale: Scale, count: int) -> tuple[Plan, int]:
    return plan_for(count, frames=scale.frames(_FRAMES)), count


def _size(scale: Scale, size: int) -> tuple[Plan, int]:
    frames = min(scale.frames(_FRAMES), _BYTES // size)
    return plan_for(10, size=size, frames=frames), 10


def _registered(scale: Scale, count: int) -> tuple[Plan, int]:
    return plan_for(count, frames=scale.frames(_FRAMES)), min(count, 10)


def _rates(points: list[_Point]) -> list[tuple[str, float, str]]:
    return [(_short(point.x), point.rate, _short(round(point.rate, -3))) for point in points]


def _cpus(points: list[_Point]) -> list[tuple[str, float, str]]:
    return [
        (_short(point.x), max(1e-9, point.cpu), f"{1e6 * point.cpu:.3g} µs") for point in points
    ]


def _short(number: float) -> str:
    if number >= 1024 and number % 1024 == 0 and number % 1000:
        return f"{number / 1024:g}Ki"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"
