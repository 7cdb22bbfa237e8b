"""What an operator may know of a running listener, as one snapshot."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

TROUBLES: Final = (
    "disk-failing",
    "folder-replaced",
    "writer-failed",
    "positions-failing",
    "registry-failing",
)
"""What may be wrong with a listener, in one word each."""
TAKES_FRAMES: Final = frozenset({"ok", "positions-failing"})
"""With which health frames are taken from all who connect."""
RESTART_HELPS: Final = frozenset({"writer-failed"})
"""With which health nothing else helps."""


def full_in(free: int, written_per_s: float) -> float | None:
    """Return in how many seconds a disk will be full; None if it does not fill.

    Args:
        free: bytes that are left; a disk that is full has none, though nothing fills it any more.
        written_per_s: bytes a second, of late.
    """
    if not free:
        return 0.0
    return free / written_per_s if written_per_s else None


@dataclass(frozen=True)
class Counts:
    """What came and what became of it, of one device or of all, since the listener started."""

    received_frames: int = 0
    received_bytes: int = 0
    written_frames: int = 0
    written_bytes: int = 0
    acknowledged_frames: int = 0
    refused_frames: dict[str, int] = field(default_factory=dict)
    waiting_frames: int = 0
    unparsed_frames: int = 0


@dataclass(frozen=True)
class DeviceCounts(Counts):
    """What came of one device.

    Attributes:
        refusals: how often whoever claimed its name was not let in, by error code.
    """

    refusals: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """One moment of a listener, as far as its cost does not grow with the devices that ever came.

    Attributes:
        health: `ok`, or one of `TROUBLES`.
        reason: what is wrong, for a person; empty if nothing is.
        version: of the program.
        pid: of its process.
        uptime_s: seconds since it started.
        connections: how many there are.
        max_connections: how many there may be.
        connections_accepted: how many there were, since it started.
        devices_connected: how many devices are connected.
        oldest_silence_s: for how many seconds the quietest of them has sent nothing.
        oldest_silence_device: its name; empty if none is connected.
        frames_per_s: frames received a second, over the last minute.
        bytes_per_s: bytes received a second, over the last minute.
        ack_latency_s: seconds from the arrival of frames until they are acknowledged, of late: by
            quantile, `p50`, `p90` and `p99`; None while none were.
        waiting_bytes: bytes that wait for the disk.
        is_paused: whether no device is read from, since the disk is behind.
        paused_s: for how many seconds that was so, since it started.
        rotations: how many log files it has closed.
        holding_until_s: seconds until `ingest hold` ends by itself; 0 while nothing is held.
        disk_free_bytes: what is free where the log is.
        disk_full_in_s: seconds until it is full at the present rate; None where it never will be.
        errors: how often something went wrong with a connection, by name.
        handshakes: how many ended well and how many did not, by `mechanism/result`.
        listening: where connections are accepted, for people.
        dialled: of the devices that only answer how many there are, how many are down, how often
            they were called, and how often that failed.
        settings: the settings in force, as they are written.
        total: the books of all devices.
        protocols: the books by protocol.
    """

    health: str
    reason: str
    version: str
    pid: int
    uptime_s: float
    connections: int
    max_connections: int
    connections_accepted: int
    devices_connected: int
    oldest_silence_s: float
    oldest_silence_device: str
    frames_per_s: float
    bytes_per_s: float
    ack_latency_s: dict[str, float] | None
    waiting_bytes: int
    is_paused: bool
    paused_s: float
    rotations: int
    holding_until_s: float
    disk_free_bytes: int
    disk_full_in_s: float | None
    errors: dict[str, int]
    handshakes: dict[str, int]
    listening: list[str]
    dialled: dict[str, int]
    settings: dict[str, str]
    total: Counts
    protocols: dict[str, Counts]

    def in_words(self) -> str:
        """Return one line for a person."""
        health = f"{self.health}: {self.reason}" if self.reason else self.health
        devices = "1 device" if self.devices_connected == 1 else f"{self.devices_connected} devices"
        return f"{health}; {devices} connected, {self.frames_per_s:.0f} frames/s"


@dataclass(frozen=True)
class Status(Summary):
    """The same, and the books of each device.

    Attributes:
        devices: the books by device: of those that came, and those that were refused.
    """

    devices: dict[str, DeviceCounts]


class Latencies:
    """How long the newest of some durations were."""

    _KEPT = 1000

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=self._KEPT)

    def observe(self, seconds: float) -> None:
        """Note one."""
        self._newest.append(seconds)

    def quantiles(self) -> dict[str, float] | None:
        """Return how many seconds the half of them took at most, and so on; None of none."""
        if not self._newest:
            return None
        rising = sorted(self._newest)
        return {f"p{each}": rising[(len(rising) - 1) * each // 100] for each in (50, 90, 99)}


class Rates:
    """How much came a second, over the last minute."""

    _KEPT = 13  # samples, five seconds apart

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int, int]] = deque(maxlen=self._KEPT)

    def sample(self, now: float, frames: int, size: int, written: int) -> None:
        """Note how much had come and was written by `now`, in seconds; called every 5 s."""
        self._samples.append((now, frames, size, written))

    def per_second(self) -> tuple[float, float, float]:
        """Return frames received, bytes received and bytes written a second."""
        if len(self._samples) < 2:
            return 0.0, 0.0, 0.0
        (begin, *before), (end, *after) = self._samples[0], self._samples[-1]
        frames, size, written = (
            (new - old) / (end - begin) for old, new in zip(before, after, strict=True)
        )
        return frames, size, written
