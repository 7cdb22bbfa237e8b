"""Rows of full speed: beside the rivals, beside the ceiling of msgpack, and with TLS."""

import tempfile
from pathlib import Path
from statistics import median

from ingest.bench.plan import Plan
from tests.bench.ceiling import objects_per_second
from tests.bench.rivals import Sample, measure_rival, middle, rivals
from tests.bench.setting import Scale, carry_out, cpu_per_frame, plan_for, sample_ours
from tests.bench.table import OURS, Contest, Finding, Result

_TEXT, _PACKED = 50, 56  # bytes of a frame
_SINGLE = 2
"""Processes of a load that sends one frame at a time: to send them costs as much as to take them,
so that one process is the slower side."""
_MORE_ROUNDS = 3
"""With 5,000 connections one run of rsyslog may be four times as fast as the next: the median is
taken of more runs, and shorter ones."""


def _contend(work: str, plan: Plan, rounds: int, processes: int = 1) -> Contest:
    """Let all have their turns, A B C A B C: what the machine does meanwhile meets all alike."""
    samples: dict[str, list[Sample]] = {}
    for _ in range(rounds):
        samples.setdefault(OURS, []).append(sample_ours(plan, processes))
        for name, command in rivals().items():
            with tempfile.TemporaryDirectory(prefix="ingest-compare-") as folder:
                sample = measure_rival(command, plan, Path(folder), processes)
            samples.setdefault(name, []).append(sample)
    return Contest(work, {name: middle(taken) for name, taken in samples.items()})


def text_stream(scale: Scale) -> Result:
    """Text, 10 connections, full speed."""
    work = "text, 10 connections, full speed, 50 bytes"
    plan = plan_for(10, size=_TEXT, frames=scale.frames(6_000_000))
    contest = _contend(work, plan, scale.rounds)
    ratio, must = contest.ratio("rsyslog"), "2.0 × rsyslog, 0.5 × its CPU per frame"
    if ratio is None:
        return Result([Finding(work, "rsyslog is missing", must, "3 ×", None)], [contest])
    cpu = contest.samples[OURS].cpu / contest.samples["rsyslog"].cpu
    reached = ratio >= 2 and cpu <= 0.5
    measured = f"{ratio:.2f} × rsyslog, {cpu:.2f} × its CPU"
    return Result(
        [Finding(work, measured, must, "3 ×", reached, reached and ratio >= 3)], [contest]
    )


def packed_stream(scale: Scale) -> Result:
    """msgpack, 10 connections, full speed, beside what memory alone allows."""
    frames = scale.frames(4_000_000)
    plan = plan_for(10, size=_PACKED, dialect="msgpack", frames=frames)
    ours, ceiling = [], []
    for _ in range(scale.rounds):
        ours.append(carry_out(plan))
        ceiling.append(objects_per_second(_PACKED, frames))
    rate, most = median(report.frames_per_second for report in ours), median(ceiling)
    cpu = median(map(cpu_per_frame, ours))
    share = rate / most
    measured = (
        f"{share:.2f} of {most:,.0f}/s: {rate:,.0f} frames/s, {1e6 * cpu:.2f} µs CPU per frame"
    )
    work = "msgpack, 10 connections, full speed, maps of 56 bytes"
    must = "0.6 of the ceiling in memory"
    return Result([Finding(work, measured, must, "0.8", share >= 0.6, share >= 0.8)])


def text_single(scale: Scale) -> Result:
    """5,000 connections, one text frame at a time."""
    frames = scale.frames(1_200_000 // _MORE_ROUNDS)
    plan = _single_plan(scale, dialect="text", size=_TEXT, frames=frames)
    work = f"text, {len(plan.devices):,} connections, one frame at a time"
    contest = _contend(work, plan, _MORE_ROUNDS * scale.rounds, _SINGLE)
    ratio, must = contest.ratio("rsyslog"), "1.0 × rsyslog, which acknowledges nothing"
    if ratio is None:
        return Result([Finding(work, "rsyslog is missing", must, "1.5 ×", None)], [contest])
    finding = Finding(work, f"{ratio:.2f} × rsyslog", must, "1.5 ×", ratio >= 1, ratio >= 1.5)
    return Result([finding], [contest])


def packed_single(scale: Scale) -> Result:
    """The same in msgpack, beside text."""
    text: list[Sample] = []
    packed: list[Sample] = []
    frames = scale.frames(1_200_000)
    for _ in range(scale.rounds):
        for taken, dialect, size in ((text, "text", _TEXT), (packed, "msgpack", _PACKED)):
            plan = _single_plan(scale, dialect=dialect, size=size, frames=frames)
            taken.append(sample_ours(plan, _SINGLE))
    ratio = middle(packed).rate / middle(text).rate
    work = f"msgpack, {scale.devices(5000):,} connections, one frame at a time"
    measured = f"{ratio:.2f} × text: {middle(packed).rate:,.0f} frames/s"
    must = "0.8 × the figure of text"
    return Result([Finding(work, measured, must, "1.0 ×", ratio >= 0.8, ratio >= 1)])


def _single_plan(scale: Scale, **changes: object) -> Plan:
    return plan_for(scale.devices(5000), pattern="single", **changes)


def tls_stream(scale: Scale) -> Result:
    """TLS, 10 connections, full speed, beside clear text."""
    plain: list[Sample] = []
    secret: list[Sample] = []
    for _ in range(scale.rounds):
        for taken, tls in ((plain, False), (secret, True)):
            frames = scale.frames(3_000_000)
            taken.append(sample_ours(plan_for(10, size=_TEXT, frames=frames, tls=tls)))
    ratio = middle(secret).rate / middle(plain).rate
    measured = f"{ratio:.2f} × clear text: {middle(secret).rate:,.0f} frames/s"
    work, must = "TLS, 10 connections, full speed, text", "0.4 × the figure of clear text"
    return Result([Finding(work, measured, must, "0.6 ×", ratio >= 0.4, ratio >= 0.6)])
