"""Listeners of the comparison's own, and a plan carried out on one."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.bench import local
from ingest.bench.plan import Plan
from ingest.bench.report import Report
from ingest.bench.run import measure
from ingest.layout import Layout
from tests.bench.rivals import Sample, count_lines


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        rounds: how often each listener has its turn.
        quick: whether a hundredth of the frames and a tenth of the connections will do, to see
            that all of it works.
    """

    rounds: int
    quick: bool

    def frames(self, count: int) -> int:
        """Return how many frames to send."""
        return max(1000, count // 50) if self.quick else count

    def devices(self, count: int) -> int:
        """Return how many devices to connect."""
        return max(10, count // 20) if self.quick and count > 10 else count

    def seconds(self, count: float) -> float:
        """Return how long to measure."""
        return count / 5 if self.quick else count


def plan_for(devices: int, **changes: object) -> Plan:
    """Plan for devices that authenticate by SCRAM; the address comes later."""
    plan = Plan(host=local.HOST, port=0, devices=local.make_devices(devices))
    return replace(plan, mechanism="SCRAM-SHA-256", **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Site:
    """A running listener, its folder, and the plan with its address."""

    process: local.Process
    layout: Layout
    plan: Plan


@contextmanager
def site(
    plan: Plan, *, layout: Layout | None = None, options: Iterable[str] = ()
) -> Iterator[Site]:
    """Run a listener that knows the devices of a plan while the block lasts.

    Args:
        plan: with `tls`, the listener speaks it too.
        layout: a data folder whose devices are registered; None for a fresh one.
        options: more words of the listener's command line.
    """
    with tempfile.TemporaryDirectory(prefix="ingest-compare-") as folder:
        certificate = Path(folder) / "certificate.pem" if plan.tls else None
        if layout is None:
            layout = Layout(Path(folder) / "data")
            local.register(layout, plan.devices)
        port = local.free_port()
        plan = replace(plan, port=port, trusted=str(certificate) if certificate else None)
        with local.listener(layout, port, tls=certificate, options=options) as process:
            yield Site(process, layout, plan)


def carry_out(plan: Plan, layout: Layout | None = None) -> Report:
    """Carry out a plan on a listener of its own."""
    with site(plan, layout=layout) as ours:
        return measure(ours.plan, ours.process)


def sample_ours(plan: Plan, processes: int = 1) -> Sample:
    """Carry out a plan, with as many processes for the load, and count what is in the log."""
    with site(plan) as ours:
        report = measure(ours.plan, ours.process, processes)
        written = sum(map(count_lines, ours.layout.log_folder.glob("*.log")))
    return Sample(report.frames_per_second, cpu_per_frame(report), report.frames - written)


def cpu_per_frame(report: Report) -> float:
    """Return the listener's seconds of CPU per frame."""
    assert report.listener is not None
    return report.listener.cpu_per_frame or 0.0
