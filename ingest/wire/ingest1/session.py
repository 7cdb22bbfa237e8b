"""One device's conversation from its first byte to its last: bytes in, events out.

The session knows no socket and no disk. Its shell feeds it what arrives, carries out the
events it returns, in order, and tells it how that went.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from ingest.record import record_prefix
from ingest.wire.errors import ErrorCode, PeerError, bad_frame
from ingest.wire.ingest1.messages import Auth, Dialect, Records
from ingest.wire.ingest1.msgpack_dialect import PackedDialect, QuickDecoder
from ingest.wire.ingest1.text_dialect import TextDialect
from ingest.wire.sasl import (
    PLAIN,
    SCRAM_SHA_256,
    Credentials,
    FindKeys,
    ScramExchange,
    auth_failed,
    parse_plain,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `data` to the device."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Find out whether the credentials are good; answer with `token_checked`."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Claim:
    """Get the lease on `device`; answer with `granted`."""

    device: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Read no more. When all records so far are durable, send `farewell` and close.

    Attributes:
        error: what the device did wrong, or what ends the session from our side; None when the
            device has closed its side.
    """

    error: PeerError | None


Event: TypeAlias = Reply | CheckToken | Claim | Ended | Records


class State(Enum):
    """Where a session stands."""

    OPENING = auto()  # no byte yet
    AUTH = auto()  # the first message is arriving
    CHECKING = auto()  # the shell is finding out about the token
    RESPONSE = auto()  # the answer to a challenge is arriving
    CLAIMING = auto()  # the shell is getting the lease
    READY = auto()  # frames are arriving
    ENDED = auto()


WAITING_FOR_PEER = frozenset({State.OPENING, State.AUTH, State.RESPONSE})
"""The states in which the handshake's time is the peer's."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What all sessions of a listener share.

    Attributes:
        max_frame: the most bytes of one frame.
        find_keys: the look-up of a device's SCRAM keys.
        quick: the shared msgpack decoder.
    """

    max_frame: int
    find_keys: FindKeys
    quick: QuickDecoder


class Session:
    """The server's side of `ingest/1` on one connection.

    Attributes:
        state: where it stands.
        device: the name that the device claims, proved from `CLAIMING` on; empty before it claims
            one.
        next: the number that the next frame gets.
    """

    __slots__ = (
        "_dialect",
        "_held",
        "_name",
        "_plaintext",
        "_proof",
        "_refusal",
        "_rules",
        "_scram",
        "_stream_ended",
        "_wants_acks",
        "device",
        "next",
        "state",
    )

    def __init__(self, rules: Rules, *, plaintext: bool, refusal: PeerError | None = None) -> None:
        """Make the session of a connection that was just accepted.

        Args:
            rules: what it shares with all others.
            plaintext: whether a token may cross this connection in clear.
            refusal: what to answer, in the device's dialect, whatever it says.
        """
        self._rules = rules
        self._plaintext = plaintext
        self._refusal = refusal
        self._dialect: Dialect = TextDialect(rules.max_frame)
        self._held = b""
        self._name = b""
        self._proof: bytes | None = None
        self._scram: ScramExchange | None = None
        self._stream_ended = False
        self._wants_acks = True
        self.state = State.OPENING
        self.device = ""
        self.next = 0

    def receive(self, data: bytes, time: bytes) -> Sequence[Event]:
        """Take what one read brought.

        Args:
            data: the bytes, at least one.
            time: when they were read, RFC 3339.
        """
        if self.state is State.READY:
            records = self._dialect.records(data, record_prefix(time, self._name), self.next)
            self.next += records.frames
            return (records,) if records.error is None else (records, self._end(records.error))
        if self.state is State.ENDED:
            return ()
        self._held += data
        return self._advance()

    def end_of_stream(self, time: bytes) -> Sequence[Event]:
        """Take that the device has closed its side, cleanly."""
        if self.state is State.ENDED:
            return ()
        if self.state is State.READY:
            records = self._dialect.last_record(record_prefix(time, self._name), self.next)
            self.next += records.frames
            return records, self._end(records.error)
        self._stream_ended = True  # what it sent ahead still counts, if it is let in
        return (self._end(None),) if self.state in WAITING_FOR_PEER else ()

    def token_checked(self, *, good: bool) -> Sequence[Event]:
        """Take the answer to `CheckToken`."""
        if self.state is not State.CHECKING:
            return ()
        if not good:
            return (self._end(auth_failed()),)
        return (self._claim(),)

    def granted(self, following: int, time: bytes) -> Sequence[Event]:
        """Take the answer to `Claim`.

        Args:
            following: the number that the device's next frame gets.
            time: when the frames that it sent ahead count as read, RFC 3339.
        """
        assert self.state is State.CLAIMING, self.state
        self.state = State.READY
        self._name = self.device.encode()
        self.next = following
        events: list[Event] = [
            Reply(self._dialect.ok(self.device, following, self._rules.max_frame, self._proof))
        ]
        held, self._held, self._proof = self._held, b"", None
        if held:
            events += self.receive(held, time)
        if self._stream_ended:
            events += self.end_of_stream(time)
        return events

    def fail(self, error: PeerError) -> Sequence[Event]:
        """End the session from our side."""
        return () if self.state is State.ENDED else (self._end(error),)

    def abandon(self) -> None:
        """End the session without a word: the connection is lost."""
        self._end(None)

    def acknowledge(self, seq: int) -> bytes:
        """Write that all frames up to `seq` are durable; nothing for a device that asked so."""
        return self._dialect.ack(seq) if self._wants_acks else b""

    def farewell(self, error: PeerError) -> bytes:
        """Write why the connection closes."""
        return self._dialect.err(error)

    def _end(self, error: PeerError | None) -> Ended:
        self.state = State.ENDED
        self._held = b""
        self._scram = None
        return Ended(error)

    def _advance(self) -> Sequence[Event]:
        try:
            if self.state is State.OPENING:
                self._open()
            if self.state is State.AUTH:
                return self._take_auth()
            if self.state is State.RESPONSE:
                return self._take_response()
        except PeerError as error:
            return (self._end(error.bare()),)
        return ()

    def _open(self) -> None:
        first = self._held[0]
        self.state = State.AUTH
        if 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF:
            self._dialect = PackedDialect(self._rules.max_frame, self._rules.quick)
        elif first == 0x16:
            raise bad_frame("this port does not speak TLS")
        elif not 0x20 <= first <= 0x7E:
            raise bad_frame("neither a line of text nor a msgpack map")
        if self._refusal is not None:
            raise self._refusal

    def _take_auth(self) -> Sequence[Event]:
        held, self._held = self._held, b""
        auth = self._dialect.auth(held)
        if auth is None:
            return ()
        self._held = self._dialect.unread()
        self._wants_acks = auth.wants_acks
        return self._begin(auth)

    def _begin(self, auth: Auth) -> Sequence[Event]:
        if auth.mechanism == PLAIN:
            if not self._plaintext:
                raise PeerError(
                    ErrorCode.PLAINTEXT_REFUSED,
                    "PLAIN needs TLS or a loopback connection; use SCRAM-SHA-256",
                )
            credentials = parse_plain(auth.data)
            self.device = credentials.device
            self.state = State.CHECKING
            return (CheckToken(credentials),)
        if auth.mechanism == SCRAM_SHA_256:
            self._scram = ScramExchange(self._rules.find_keys)
            challenge = self._scram.challenge(auth.data)
            self.state = State.RESPONSE
            return (Reply(self._dialect.challenge(challenge)), *self._advance_if_held())
        raise PeerError(
            ErrorCode.MECHANISM_UNSUPPORTED, f"the mechanisms are {PLAIN} and {SCRAM_SHA_256}"
        )

    def _advance_if_held(self) -> Sequence[Event]:
        return self._advance() if self._held else ()

    def _take_response(self) -> Sequence[Event]:
        held, self._held = self._held, b""
        response = self._dialect.response(held)
        if response is None:
            return ()
        assert self._scram is not None
        self._held = self._dialect.unread()
        self._proof = self._scram.verify(response.data)
        self.device = self._scram.device
        self._scram = None
        return (self._claim(),)

    def _claim(self) -> Claim:
        self.state = State.CLAIMING
        return Claim(self.device)
