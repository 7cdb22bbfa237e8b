"""What a load is to do, and what came of it. Both travel between processes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Dialect = Literal["text", "msgpack"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256"]
Pattern = Literal["stream", "single", "paced", "idle"]

LATENCY_UNIT = 1e-5
"""Seconds that one step of a latency stands for."""


class Device(NamedTuple):
    """A device of the load and its token."""

    name: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one process is to do.

    Attributes:
        host, port: where the listener is.
        devices: one connection each.
        dialect: how they speak.
        size: bytes of a frame; in text without its LF.
        mechanism: how they prove their name; None for a peer that wants no handshake and takes
            whatever comes.
        acks: whether they want ACKs.
        pattern: stream, as many frames per write as the socket takes; single, one frame of each
            device in turn, as fast as it goes; paced, `rate` frames a second of each device;
            idle, none.
        rate: frames a second of each device, where `pattern` is paced.
        frames: how many all of them send together; None for no end but `seconds`.
        seconds: how long they send, or hold still; None for no end but `frames`.
        at_once: how many may be connecting at the same moment.
        tls: whether to speak TLS.
        trusted: the file of certificates to trust; None for the system's.
    """

    host: str
    port: int
    devices: Sequence[Device]
    dialect: Dialect = "text"
    size: int = 50
    mechanism: Mechanism | None = "PLAIN"
    acks: bool = True
    pattern: Pattern = "stream"
    rate: float = 0.0
    frames: int | None = None
    seconds: float | None = None
    at_once: int = 1000
    tls: bool = False
    trusted: str | None = None


@dataclass
class Connected:
    """What came of connecting. Times are of `time.monotonic`, which all processes share.

    Attributes:
        begun: when the first connection was begun.
        opened: when the last one was open, TLS included.
        ready: when the last handshake was done.
        devices: how many devices are ready.
        failures: what happened to the others: the code of an ERR, or what the system said.
    """

    begun: float
    opened: float = 0.0
    ready: float = 0.0
    devices: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def added(self, other: "Connected") -> "Connected":
        """Add what another process found."""
        return Connected(
            min(self.begun, other.begun),
            max(self.opened, other.opened),
            max(self.ready, other.ready),
            self.devices + other.devices,
            self.failures + other.failures,
        )


@dataclass
class Sent:
    """What came of sending. Times are of `time.monotonic`.

    Attributes:
        begun: when the first frame was sent.
        ended: when the last one was acknowledged or, without ACKs, the last connection was closed
            by the other side.
        frames: how many were sent.
        acknowledged: how many of them the listener said are on disk.
        latencies: how often it took so many `LATENCY_UNIT` from a send to the ACK of its last
            frame.
        failures: what happened to connections that did not end well.
        cpu: seconds of a core that the load itself took.
    """

    begun: float
    ended: float = 0.0
    frames: int = 0
    acknowledged: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0

    def added(self, other: "Sent") -> "Sent":
        """Add what another process found."""
        return Sent(
            min(self.begun, other.begun),
            max(self.ended, other.ended),
            self.frames + other.frames,
            self.acknowledged + other.acknowledged,
            self.latencies + other.latencies,
            self.failures + other.failures,
            self.cpu + other.cpu,
        )
