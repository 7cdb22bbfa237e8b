"""The result of a run, in numbers for a machine and in lines for a person."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ingest.bench.local import Cpu
from ingest.bench.plan import LATENCY_UNIT, Connected, Sent
from ingest.units import format_size


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long it took from the send of a frame to the ACK that covers it, in seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the listener itself took.

    Attributes:
        start: seconds from its start until it answered.
        cpu_per_handshake: seconds of a core; None where no device connected.
        main_cpu_per_handshake: those of its main thread among them; PBKDF2 is not done there.
        cpu: seconds of a core while frames were sent, those of the handshakes not among them.
        main_cpu: those of its main thread among them; the others write the journal.
        cpu_per_frame: seconds of a core; None where no frame was sent.
        main_cpu_per_frame: those of its main thread among them.
        cores: how many cores it kept busy meanwhile.
        main_cores: how much of one its main thread did.
        resident: bytes of memory at the end.
        per_connection: bytes by which memory grew for each device that connected; None where none
            did.
    """

    start: float
    cpu_per_handshake: float | None
    main_cpu_per_handshake: float | None
    cpu: float
    main_cpu: float
    cpu_per_frame: float | None
    main_cpu_per_frame: float | None
    cores: float
    main_cores: float
    resident: int
    per_connection: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured. Durations are in seconds.

    Attributes:
        devices: how many were to connect.
        connected: how many did, with their handshake.
        connections_per_second: opened, TLS included.
        handshakes_per_second: done.
        frames: how many were sent.
        acknowledged: how many of them the listener said are on disk.
        bytes: of the frames.
        seconds: from the first frame to the last ACK.
        latency: None where no ACK came.
        failures: how many connections failed, by reason.
        load_cores: how many cores the load itself kept busy; near 1 for each of its processes, it
            could not send faster.
        listener: None where it is not ours.
    """

    devices: int
    connected: int
    connections_per_second: float
    handshakes_per_second: float
    frames: int
    acknowledged: int
    bytes: int
    seconds: float
    frames_per_second: float
    bytes_per_second: float
    latency: Latency | None
    failures: dict[str, int]
    load_cores: float
    listener: Usage | None = None


@dataclass(frozen=True)
class Footprint:
    """The listener's seconds of CPU and bytes of memory at three moments.

    Attributes:
        start: seconds that its start took.
        before: memory before the first connection.
        connected: memory with all of them.
        after: memory at the end.
        handshakes: seconds of a core between the first two: PBKDF2 takes most of them.
        frames: seconds of a core between the last two.
    """

    start: float
    before: int
    connected: int
    after: int
    handshakes: Cpu
    frames: Cpu


def make_report(
    devices: int, size: int, connected: Connected, sent: Sent, footprint: Footprint | None
) -> Report:
    """Work out the figures.

    Args:
        devices: how many were to connect.
        size: bytes of a frame.
        connected, sent: what all processes together found.
        footprint: of the listener, if it is ours.
    """
    seconds = max(sent.ended - sent.begun, 1e-9)
    return Report(
        devices=devices,
        connected=connected.devices,
        connections_per_second=_per(connected.devices, connected.opened - connected.begun),
        handshakes_per_second=_per(connected.devices, connected.ready - connected.begun),
        frames=sent.frames,
        acknowledged=sent.acknowledged,
        bytes=sent.frames * size,
        seconds=seconds,
        frames_per_second=sent.frames / seconds,
        bytes_per_second=sent.frames * size / seconds,
        latency=_latency(sent.latencies),
        failures=dict(connected.failures + sent.failures),
        load_cores=sent.cpu / seconds,
        listener=None
        if footprint is None
        else _usage(footprint, connected.devices, sent.frames, seconds),
    )


def _per(count: int, seconds: float) -> float:
    return count / seconds if count and seconds > 0 else 0.0


def _each(amount: float, count: int) -> float | None:
    return amount / count if count else None


def _latency(counts: Counter[int]) -> Latency | None:
    if not counts:
        return None
    p50, p99, most = (percentile(counts, share) for share in (0.5, 0.99, 1.0))
    return Latency(p50=p50, p99=p99, max=most)


def percentile(counts: Counter[int], share: float) -> float:
    """Return the latency in seconds that `share` of the sends did not exceed."""
    left = share * counts.total()
    for latency in sorted(counts):
        left -= counts[latency]
        if left <= 0:
            return latency * LATENCY_UNIT
    return 0.0


def _usage(footprint: Footprint, connected: int, frames: int, seconds: float) -> Usage:
    grown = footprint.connected - footprint.before
    return Usage(
        start=footprint.start,
        cpu_per_handshake=_each(footprint.handshakes.all, connected),
        main_cpu_per_handshake=_each(footprint.handshakes.main, connected),
        cpu=footprint.frames.all,
        main_cpu=footprint.frames.main,
        cpu_per_frame=_each(footprint.frames.all, frames),
        main_cpu_per_frame=_each(footprint.frames.main, frames),
        cores=footprint.frames.all / seconds,
        main_cores=footprint.frames.main / seconds,
        resident=footprint.after,
        per_connection=_each(grown, connected),
    )


def as_json(report: Report) -> dict[str, object]:
    """Return a report as JSON holds it: the attributes by name."""
    return asdict(report)


def as_lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what a person reads: the name of a figure, and the figure."""
    yield (
        "connections",
        f"{report.connected:,} of {report.devices:,}, {report.connections_per_second:,.0f}/s,"
        f" handshakes {report.handshakes_per_second:,.0f}/s",
    )
    if report.frames:
        yield "frames", f"{report.frames:,} in {report.seconds:.2f} s, {_acknowledged(report)}"
        yield (
            "throughput",
            f"{report.frames_per_second:,.0f} frames/s, {report.bytes_per_second / 1e6:,.1f} MB/s",
        )
    if report.latency is not None:
        in_ms = (f"{1e3 * value:,.2f}" for value in asdict(report.latency).values())
        yield "ACK latency", "p50 {} ms, p99 {} ms, max {} ms".format(*in_ms)
    for reason, count in sorted(report.failures.items()):
        yield "failed", f"{count:,}: {reason}"
    yield "load", f"{report.load_cores:.0%} of a core"
    if report.listener is not None:
        yield "listener", ", ".join(_usage_words(report.listener))


def _acknowledged(report: Report) -> str:
    return f"{report.acknowledged:,} acknowledged" if report.acknowledged else "no ACKs"


def _usage_words(usage: Usage) -> Iterator[str]:
    if usage.cpu_per_frame is not None:
        yield f"{usage.cores:.0%} of a core, {1e6 * usage.cpu_per_frame:.2f} µs per frame"
    if usage.main_cpu_per_frame is not None:
        yield (
            f"of that {usage.main_cores:.0%} and {1e6 * usage.main_cpu_per_frame:.2f} µs"
            " in its main thread"
        )
    if usage.cpu_per_handshake is not None:
        yield f"{1e6 * usage.cpu_per_handshake:,.0f} µs per handshake"
    yield f"{format_size(usage.resident)} resident"
    if usage.per_connection is not None:
        yield f"{format_size(max(0.0, usage.per_connection))} per connection"
