"""The row of a long time: does anything grow that should not?"""

import time
from dataclasses import dataclass, replace

from ingest.bench.crew import Crew
from ingest.bench.local import Process
from ingest.bench.plan import Plan
from tests.bench.setting import plan_for, site
from tests.bench.table import Finding, Result

_STEADY = 80  # devices that stay, half of them in text, half in msgpack
_COMING = 200  # devices that come, send a burst and go, again and again
_BURST = 200_000  # frames of these
_SETTLE = 2.0  # seconds after which the listener has seen them go
_WARM = 120.0  # seconds after which its memory should grow no more
_MINUTE = 60.0


@dataclass(frozen=True)
class _Size:
    resident: int
    files: int


def soak(minutes: float) -> Result:
    """(j) Minutes of mixed load: memory and open files at minute two and at the end."""
    everyone = plan_for(_STEADY + _COMING)
    with site(everyone, options=("--keep-bytes=1GiB", "--rotate-size=64MiB")) as ours:
        seconds = minutes * _MINUTE
        steady = _steady_plans(ours.plan, seconds + _SETTLE)
        coming = replace(ours.plan, devices=everyone.devices[_STEADY:], frames=_BURST)
        with Crew(steady) as crew:
            crew.connect()
            crew.begin()
            begun = time.monotonic()
            warm = _load(coming, ours.process, begun + min(_WARM, seconds / 2))
            end = _load(coming, ours.process, begun + seconds)
            failures = crew.finish().failures
    growth = end.resident / warm.resident - 1
    reached = growth <= 0.05 and end.files <= warm.files and not failures
    return Result([Finding(
        f"{minutes:g} minutes of mixed load",
        f"resident memory {growth:+.1%}, open files {warm.files} and then {end.files},"
        f" {failures.total()} connections failed",
        "within 5%, no more files", "", reached, reached,
    )])  # fmt: skip


def _steady_plans(plan: Plan, seconds: float) -> list[Plan]:
    half = _STEADY // 2
    text = replace(plan, devices=plan.devices[:half], pattern="paced", rate=50.0, seconds=seconds)
    return [text, replace(text, devices=plan.devices[half:_STEADY], dialect="msgpack", size=56)]


def _load(coming: Plan, process: Process, until: float) -> _Size:
    """Let devices come and go until then, in either dialect, and look at the listener after it."""
    plans = (coming, replace(coming, dialect="msgpack", size=56))
    turn = 0
    while time.monotonic() < until:
        with Crew([plans[turn % 2]]) as crew:
            crew.connect()
            crew.run()
        turn += 1
    time.sleep(_SETTLE)
    return _Size(process.resident(), process.open_files())
