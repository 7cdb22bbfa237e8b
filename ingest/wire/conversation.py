"""A conversation: any protocol's side of one connection. Bytes in, events out.

It is pure: it knows no socket, no clock and no disk. Its shell, `ingest.listener.connection`, feeds
it what arrives, carries out the events that it returns, in order, and tells it how that went. Of
each connection the shell keeps the time, the limits, the books and the lease, so that a protocol
has to care for none of them.

A device that logs in and sends two frames:

    receive(b"AUTH ...\\n")    -> CheckToken(credentials)
    checked(good=True)        -> Claim("sensor-1")
    granted(Grant(1, time))   -> Send(b"OK device=sensor-1 next=1 ...\\n")
    receive(b"a\\nb\\n")        -> Frames(2 values)
    acknowledge(2)            =  b"ACK 2\\n"
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeAlias

from ingest.wire.chunks import Chunks
from ingest.wire.errors import PeerError
from ingest.wire.framing import Frames
from ingest.wire.sasl import Credentials, FindKeys


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data` to the device, behind all that was sent before."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Find out whether the credentials are good; answer with `checked`."""

    credentials: Credentials


class Standing(Enum):
    """What the registry must say of a name that is claimed."""

    PROVED = auto()  # its keys were used to prove the name; they are not revoked since
    REGISTERED = auto()  # a device of this name is there and enabled
    UNREGISTERED = auto()  # no device of this name is disabled there


@dataclass(frozen=True, slots=True)
class Claim:
    """Get the lease on `device`, whose name is proved now; answer with `granted`.

    Attributes:
        device: its name; a name that no device can have ends the conversation.
        standing: what the registry must say of it.
        shared: whether several connections may have the name at once. Then each has numbers of its
            own, from 1 on: for protocols whose clients do not count along. Else a newer connection
            takes over from an older one.
    """

    device: str
    standing: Standing = Standing.PROVED
    shared: bool = False


class Grant(NamedTuple):
    """What the shell says when the device is let in.

    Attributes:
        following: the number of the next frame.
        time: now: UTC, RFC 3339, microseconds.
        line_format: what its lines of text are, one of `ingest.names.FORMATS`; empty where the
            registry leaves that to the listener.
        is_durable: tells whether the frames up to a number are on disk.
        chunks: the chunks that the device has sent lately; None unless its name is shared.
    """

    following: int
    time: bytes
    line_format: str = ""
    is_durable: Callable[[int], bool] = lambda seq: False  # noqa: ARG005
    chunks: Chunks | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """Bring nothing more. When all frames so far are durable, send `farewell` and close.

    Attributes:
        error: what the device did wrong, or what ends the conversation from our side; None when
            nothing is wrong, such as when the device has closed its side.
        lingers: whether the device is given time to read what was sent last and to close its side.
    """

    error: PeerError | None
    lingers: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    """Call `Timed.overdue` when so many seconds are over; None: not at all.

    It counts from now. Bytes that come in between don't put it off; only another `Wait` for the
    same thing does.

    Attributes:
        seconds: how many.
        awaited: for what; each thing has a time of its own.
    """

    seconds: float | None
    awaited: str = ""


Event: TypeAlias = Send | CheckToken | Claim | Frames | Ended | Wait


class Peer(NamedTuple):
    """The other end of a connection; where a proxy stands between, the end behind the proxy.

    Attributes:
        host: its address, or `local` for a Unix socket.
        port: its port; None for a Unix socket, and where a proxy does not tell.
        encrypted: whether the connection is TLS.
        local: whether nobody but this host can read the connection.
    """

    host: str
    port: int | None
    encrypted: bool
    local: bool

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether nobody else can read what crosses the connection."""
        return self.encrypted or self.local


def host_of(peer: str) -> str:
    """Return the host of a peer as `str(Peer)` writes it, with a port or without."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0] if peer.count(":") == 1 else peer


@dataclass(frozen=True, slots=True)
class Context:
    """What a conversation may know of its connection and of its listener.

    Attributes:
        peer: the other end.
        max_frame: the most bytes of one frame.
        allow_plaintext: whether a token may cross a connection in clear that others can read.
        find_keys: the look-up of a device's SCRAM keys.
        refusal: why the device is not let in, whatever it says; None if it may be.
        check_attempt: raises PeerError where too many have failed to prove this name, or from this
            host, lately. It is to be called before a secret is compared, unless `CheckToken` or
            `find_keys` are used: they do so themselves.
    """

    peer: Peer
    max_frame: int
    allow_plaintext: bool
    find_keys: FindKeys
    refusal: PeerError | None = None
    check_attempt: Callable[[str], None] = lambda name: None  # noqa: ARG005


class Conversation(Protocol):
    """The server's side of a protocol on one connection.

    Its shell calls a method only when that can happen: after `CheckToken` nothing but `checked`,
    after `Claim` nothing but `granted`, or `fail` in place of either; after `Ended` nothing but
    `acknowledge` and `farewell`. What the device sends meanwhile is the shell's to keep. Any other
    call is a fault of the shell, and raises `IllegalStep`.

    Attributes:
        device: the name that is claimed, proved from `Claim` on; empty before one is.
        mechanism: by what the device proves its name, such as a SASL mechanism (RFC 4422); empty
            before it says so.
    """

    device: str
    mechanism: str

    def begin(self) -> Sequence[Event]:
        """Begin; a protocol in which the server speaks first says something."""

    def receive(self, data: bytes) -> Sequence[Event]:
        """Go on with `data`, what came since the last call: at least one byte.

        What it has behind a login is kept until `granted`.
        """

    def end_of_stream(self) -> Sequence[Event]:
        """Go on after the device has closed its side, cleanly."""

    def checked(self, *, good: bool) -> Sequence[Event]:
        """Go on after `CheckToken`."""

    def granted(self, grant: Grant) -> Sequence[Event]:
        """Go on after `Claim`."""

    def fail(self, error: PeerError) -> Sequence[Event]:
        """End the conversation from our side."""

    def acknowledge(self, seq: int) -> bytes:
        """Write that all frames up to `seq` are durable; empty if the device is not to be told.

        It is called when there is room to send, with rising numbers, and may skip some.
        """

    def farewell(self, error: PeerError) -> bytes:
        """Write why the connection closes."""


class Timed(Conversation, Protocol):
    """A conversation with deadlines of its own: one that brings `Wait`."""

    def overdue(self, awaited: str) -> Sequence[Event]:
        """Go on after the time of the last `Wait` for this is over."""


Converse: TypeAlias = Callable[[Context], Conversation]
"""Makes the conversation of a new connection: what a protocol is to a listener."""
