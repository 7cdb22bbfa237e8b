"""Rows of what lies on the disk already: a long log, a large registry."""

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from ingest.bench import local
from ingest.bench.plan import Plan
from ingest.bench.run import measure
from ingest.layout import Layout
from ingest.ops.control import ask
from tests.bench.setting import Scale, cpu_per_frame, plan_for, site
from tests.bench.table import Finding, Result

_FILES = 1000
_FILE_SIZE = 50 * (1 << 30) // _FILES
_LINE = b'{"time":"2020-01-01T00:00:00.000000Z","device":"long-ago","seq":%d,"text":"x"}\n'
_FRAMES = 2_000_000


def on_disk(scale: Scale) -> Result:
    """The cost of a frame with 50 GiB of log; start-up with 1,000,000 registered devices."""
    return Result([_long_log(scale), _many_registered(scale)])


def _long_log(scale: Scale) -> Finding:
    plan = plan_for(10, frames=scale.frames(_FRAMES))
    costs: dict[int, list[float]] = {0: [], _FILES: []}
    for _ in range(scale.rounds):
        for files, taken in costs.items():
            with tempfile.TemporaryDirectory(prefix="ingest-compare-") as folder:
                layout = Layout(Path(folder) / "data")
                local.register(layout, plan.devices)
                _age(layout, plan, files)
                with site(plan, layout=layout) as ours:
                    taken.append(cpu_per_frame(measure(ours.plan, ours.process)))
    empty, full = median(costs[0]), median(costs[_FILES])
    share = full / empty - 1
    return Finding(
        f"cost per frame with 50 GiB in {_FILES:,} rotated files, beside an empty log",
        f"{1e6 * full:.2f} and {1e6 * empty:.2f} µs, {share:+.0%}", "within 5%", "",
        share <= 0.05, share <= 0.05,
    )  # fmt: skip


def _age(layout: Layout, plan: Plan, files: int) -> None:
    """Let a listener run for a moment, and put so many old files into its log."""
    with site(replace(plan, frames=100), layout=layout) as ours:
        measure(ours.plan, ours.process)
        ask(layout.control, "rotate")  # so that the listener knows what comes before
    for number in range(files):
        name = f"ingest-20200101T{number // 60:02}{number % 60:02}00.000Z.log"
        with (layout.log_folder / name).open("wb") as file:
            file.write(_LINE % (2 * number + 1))
            last = b"\n" + _LINE % (2 * number + 2)
            file.seek(_FILE_SIZE - len(last))  # what is left out takes no room on the disk
            file.write(last)


def _many_registered(scale: Scale) -> Finding:
    count = 20_000 if scale.quick else 1_000_000
    plan = plan_for(count)
    with tempfile.TemporaryDirectory(prefix="ingest-compare-") as folder:
        layout = Layout(Path(folder) / "data")
        local.register(layout, plan.devices)
        starts, sizes = [], []
        for _ in range(scale.rounds):
            with site(plan, layout=layout) as ours:
                starts.append(ours.process.start)
                sizes.append(ours.process.resident() / 1e6)
    start, size = median(starts), median(sizes)
    reached = start <= 2 and size <= 200
    measured = f"{start:.2f} s, {size:.0f} MB"
    work = f"start-up with {count:,} registered devices"
    return Finding(work, measured, "2 s, 200 MB", "", reached, reached)
