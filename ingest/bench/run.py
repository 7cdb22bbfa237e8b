"""One run: connect, send, measure."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ingest.bench.crew import Crew
from ingest.bench.local import Cpu, Process
from ingest.bench.plan import Plan
from ingest.bench.report import Footprint, Report, make_report

Watch = Callable[[str, int], object]
"""Takes what is being done, `connecting` or `sending`, and how many devices or frames are."""

_NO_CPU = Cpu(0.0, 0.0)
_SETTLE = 0.5  # seconds, after which a listener has freed what the handshakes took


def _ignore(_: str, __: int) -> None:
    """Ignore progress that nobody looks at."""


def split(plan: Plan, processes: int) -> Sequence[Plan]:
    """Share a plan out among processes, evenly."""
    shares = [plan.devices[index::processes] for index in range(processes)]
    frames = [
        None
        if plan.frames is None
        else plan.frames * (index + 1) // processes - plan.frames * index // processes
        for index in range(processes)
    ]
    return [
        replace(plan, devices=devices, frames=count)
        for devices, count in zip(shares, frames, strict=True)
        if devices
    ]


def measure(
    plan: Plan, listener: Process | None, processes: int = 1, watch: Watch = _ignore
) -> Report:
    """Carry out a plan.

    Args:
        plan: what to do.
        listener: the process to measure, if it is ours.
        processes: how many the load takes.
        watch: hears how it goes.

    Raises:
        LoadError: the load itself failed.
    """
    before = listener.resident() if listener else 0
    idle = listener.cpu() if listener else _NO_CPU
    with Crew(split(plan, processes)) as crew:
        connected = crew.connect(lambda count: watch("connecting", count))
        time.sleep(_SETTLE)
        resident = listener.resident() if listener else 0
        cpu = listener.cpu() if listener else _NO_CPU
        sent = crew.run(lambda count: watch("sending", count))
        footprint = None
        if listener:
            footprint = Footprint(
                listener.start,
                before,
                resident,
                listener.resident(),
                handshakes=cpu.since(idle),
                frames=listener.cpu().since(cpu),
            )
    return make_report(len(plan.devices), plan.size, connected, sent, footprint)
