"""Rows of many devices: at their usual pace, all at once, and silent."""

import time
from dataclasses import replace
from statistics import median

from ingest.bench.crew import Crew
from ingest.bench.plan import Connected, Dialect, Sent
from ingest.bench.report import percentile
from tests.bench.setting import Scale, carry_out, plan_for, site
from tests.bench.table import Finding, Result

_RUNNING = 6.0  # seconds that the running devices send
_BEFORE = 1.0  # seconds of these before the others come


def paced(scale: Scale) -> Result:
    """10,000 devices, one frame a second each."""
    devices = scale.devices(10_000)
    plan = plan_for(devices, pattern="paced", rate=1.0, seconds=scale.seconds(20))
    reports = [carry_out(plan) for _ in range(scale.rounds)]
    p99 = median(report.latency.p99 if report.latency else 9.9 for report in reports)
    cores = median(report.listener.cores if report.listener else 9.9 for report in reports)
    usages = [report.listener for report in reports if report.listener]
    frame = median(usage.cpu_per_frame or 0.0 for usage in usages)
    main = median(usage.main_cores for usage in usages)
    return Result([Finding(
        f"{devices:,} devices, one frame a second each",
        f"p99 ACK latency {1e3 * p99:.1f} ms, {cores:.0%} of a core,"
        f" {1e6 * frame:.0f} µs per frame, {main:.0%} of a core in the main thread; handshakes not"
        " counted",
        "20 ms, 40%", "10 ms, 25%",
        p99 <= 0.020 and cores <= 0.40, p99 <= 0.010 and cores <= 0.25,
    )])  # fmt: skip


def storm(scale: Scale) -> Result:
    """15,000 devices that connect at the same moment, while 100 others send."""
    devices, running = scale.devices(15_000), 100
    taken = [_storm(devices, running) for _ in range(scale.rounds)]
    seconds = median(came.ready - came.begun for came, _ in taken)
    failed = max(devices - came.devices for came, _ in taken)
    p99 = median(percentile(sent.latencies, 0.99) for _, sent in taken)
    reached = not failed and p99 < 0.25
    return Result([Finding(
        f"{devices:,} devices connecting at the same moment, SCRAM",
        f"{seconds:.1f} s, {failed} failed, p99 ACK latency of {running} running devices"
        f" {1e3 * p99:.0f} ms",
        "10 s, none fails, p99 under 250 ms", "5 s",
        reached and seconds <= 10, reached and seconds <= 5,
    )])  # fmt: skip


def _storm(devices: int, running: int) -> tuple[Connected, Sent]:
    everyone = plan_for(devices + running, at_once=devices)
    with site(everyone) as ours:
        few = replace(ours.plan, devices=everyone.devices[:running], pattern="paced", rate=10.0,
                      seconds=_RUNNING)  # fmt: skip
        many = replace(ours.plan, devices=everyone.devices[running:], pattern="idle", seconds=0.0)
        with Crew([few]) as steady, Crew([many]) as storming:
            steady.connect()
            steady.begin()
            time.sleep(_BEFORE)
            came = storming.connect()
            return came, steady.finish()


def idle(scale: Scale) -> Result:
    """Memory of a connection that is authenticated and silent."""
    return Result([_idle(scale, "text"), _idle(scale, "msgpack")])


def _idle(scale: Scale, dialect: Dialect) -> Finding:
    devices = scale.devices(10_000)
    plan = plan_for(devices, dialect=dialect, pattern="idle", seconds=0.0)
    reports = [carry_out(plan) for _ in range(scale.rounds)]
    grown = [report.listener.per_connection for report in reports if report.listener]
    size = median(each for each in grown if each is not None)
    work = f"{devices:,} idle authenticated connections, {dialect}"
    return Finding(work, f"{size / 1000:.1f} kB each", "6 kB", "3 kB", size <= 6000, size <= 3000)
