"""The server's side of `ingest/1`, from a device's first byte to its last."""

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial

from ingest.names import FORMATS
from ingest.wire.conversation import (
    CheckToken,
    Claim,
    Context,
    Converse,
    Ended,
    Event,
    Grant,
    Send,
)
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError, bad_frame
from ingest.wire.formats import line_format
from ingest.wire.framing import Frames
from ingest.wire.ingest1.messages import Auth, Dialect
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.ingest1.text_dialect import TextDialect
from ingest.wire.options import Options
from ingest.wire.sasl import SCRAM_SHA_256, ScramExchange, auth_failed, parse_plain
from ingest.wire.states import step


class State(Enum):
    """Where a session stands."""

    OPENING = auto()  # no byte yet
    AUTH = auto()  # the first message is arriving
    CHECKING = auto()  # the shell is finding out about the token
    RESPONSE = auto()  # the answer to a challenge is arriving
    CLAIMING = auto()  # the shell is getting the lease
    OPEN = auto()  # frames are arriving
    ENDED = auto()


_STEPS = {
    State.OPENING: {State.AUTH, State.ENDED},
    State.AUTH: {State.CHECKING, State.RESPONSE, State.ENDED},
    State.CHECKING: {State.CLAIMING, State.ENDED},
    State.RESPONSE: {State.CLAIMING, State.ENDED},
    State.CLAIMING: {State.OPEN, State.ENDED},
    State.OPEN: {State.ENDED},
    State.ENDED: set[State](),
}
"""From each state, those that may follow."""

_ARRIVING = frozenset({State.OPENING, State.AUTH, State.RESPONSE})


class Session:
    """A `Conversation` in `ingest/1`; see there for its methods.

    Attributes:
        state: where it stands.
        device: the name that the device claims, proved from `CLAIMING` on; empty before it claims
            one.
        mechanism: the SASL mechanism (RFC 4422) that it has chosen; empty before.
    """

    __slots__ = (
        "_context",
        "_dialect",
        "_format",
        "_held",
        "_proof",
        "_scram",
        "_wants_acks",
        "device",
        "mechanism",
        "state",
    )

    def __init__(self, context: Context, format_by_default: str = FORMATS[0]) -> None:
        """Make the session of a connection that was just accepted.

        Args:
            context: what it knows.
            format_by_default: what lines of text are where the registry leaves that to us.
        """
        self._context = context
        self._format = format_by_default
        self._dialect: Dialect = TextDialect(context.max_frame)
        self._held = b""
        self._proof: bytes | None = None
        self._scram: ScramExchange | None = None
        self._wants_acks = True
        self.state = State.OPENING
        self.device = ""
        self.mechanism = ""

    def begin(self) -> Sequence[Event]:
        return ()  # the device speaks first

    def receive(self, data: bytes) -> Sequence[Event]:
        if self.state is State.OPEN:
            return self._frames(self._dialect.cut(data))
        if self.state not in _ARRIVING:
            raise IllegalStep(f"bytes in {self.state}")
        self._held += data
        return self._advance()

    def end_of_stream(self) -> Sequence[Event]:
        if self.state is State.OPEN:
            frames = self._dialect.finish()
            return frames, self._end(frames.error)
        if self.state not in _ARRIVING:
            raise IllegalStep(f"the stream ended in {self.state}")
        return (self._end(None),)

    def checked(self, *, good: bool) -> Sequence[Event]:
        if self.state is not State.CHECKING:
            raise IllegalStep(f"a token was checked in {self.state}")
        return (self._claim(),) if good else (self._end(auth_failed()),)

    def granted(self, grant: Grant) -> Sequence[Event]:
        self._enter(State.OPEN)
        self._dialect.parse_by(line_format(grant.line_format or self._format))
        ok = self._dialect.ok(self.device, grant, self._context.max_frame, self._proof)
        del self._context  # the handshake was all it was for, and it is as large as all the rest
        behind, self._held, self._proof = self._held, b"", None
        return (Send(ok), *self.receive(behind)) if behind else (Send(ok),)

    def fail(self, error: PeerError) -> Sequence[Event]:
        return (self._end(error),)

    def acknowledge(self, seq: int) -> bytes:
        return self._dialect.ack(seq) if self._wants_acks else b""

    def farewell(self, error: PeerError) -> bytes:
        return self._dialect.error(error)

    def _enter(self, state: State) -> None:
        self.state = step(_STEPS, self.state, state)

    def _end(self, error: PeerError | None) -> Ended:
        self._enter(State.ENDED)
        self._held = b""
        self._scram = None
        return Ended(error)

    def _claim(self) -> Claim:
        self._enter(State.CLAIMING)
        return Claim(self.device)

    def _frames(self, frames: Frames) -> Sequence[Event]:
        return (frames,) if frames.error is None else (frames, self._end(frames.error))

    def _advance(self) -> Sequence[Event]:
        try:
            if self.state is State.OPENING:
                self._open()
            if self.state is State.AUTH:
                return self._take_auth()
            return self._take_response()
        except PeerError as error:
            return (self._end(error.without_traceback()),)

    def _open(self) -> None:
        first = self._held[0]
        self._enter(State.AUTH)
        if 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF:
            self._dialect = MsgpackDialect(self._context.max_frame)
        elif not 0x20 <= first <= 0x7E:
            raise bad_frame(_what_begins_with(self._held))
        if self._context.refusal is not None:
            raise self._context.refusal

    def _take_auth(self) -> Sequence[Event]:
        held, self._held = self._held, b""
        auth = self._dialect.auth(held)
        if auth is None:
            return ()
        self._held = self._dialect.unread()
        self._wants_acks = auth.wants_acks
        self.mechanism = auth.mechanism
        if not auth.data:
            raise bad_frame(f"{auth.mechanism} needs its initial response in the first message")
        return self._begin_mechanism(auth)

    def _begin_mechanism(self, auth: Auth) -> Sequence[Event]:
        if auth.mechanism == SCRAM_SHA_256:
            return self._begin_scram(auth.data)
        return self._begin_plain(auth.data)

    def _begin_plain(self, initial: bytes) -> Sequence[Event]:
        if not (self._context.allow_plaintext or self._context.peer.is_private):
            with suppress(PeerError):
                self.device = parse_plain(initial).device
            raise PeerError(
                ErrorCode.PLAINTEXT_REFUSED,
                "PLAIN needs TLS or a loopback connection; use SCRAM-SHA-256",
            )
        credentials = parse_plain(initial)
        self.device = credentials.device
        self._enter(State.CHECKING)
        return (CheckToken(credentials),)

    def _begin_scram(self, initial: bytes) -> Sequence[Event]:
        self._scram = ScramExchange(self._context.find_keys)
        try:
            challenge = Send(self._dialect.challenge(self._scram.challenge(initial)))
        finally:
            self.device = self._scram.device
        self._enter(State.RESPONSE)
        return (challenge, *(self._advance() if self._held else ()))

    def _take_response(self) -> Sequence[Event]:
        held, self._held = self._held, b""
        response = self._dialect.response(held)
        if response is None:
            return ()
        assert self._scram is not None
        self._held = self._dialect.unread()
        self._proof = self._scram.verify(response.data)
        self._scram = None
        return (self._claim(),)


_FIRST_BYTES = (
    (b"\x16", "this port does not speak TLS"),
    (b"\r\n\r\n\0\r\nQUIT\n", "this port takes no PROXY header; a haproxy: port does"),
    (b"\xff\xfe", "this is UTF-16; send UTF-8"),
    (b"\xfe\xff", "this is UTF-16; send UTF-8"),
    (b"\xff", "this is telnet's negotiation; connect without it, such as by nc"),
    (b"\xef", "this begins with a byte order mark; send UTF-8 without it"),
)
"""What else devices begin with, and what they are told."""


def _what_begins_with(data: bytes) -> str:
    for first, text in _FIRST_BYTES:
        if data.startswith(first):
            return text
    return "neither a line of text nor a msgpack map"


def make_converse(options: Options) -> Converse:
    """Return what makes sessions; its option `format` says what lines of text are.

    Raises:
        OptionError: there is another option, or no such format.
    """
    format_by_default = options.choice("format", *FORMATS)
    options.finish()
    return partial(Session, format_by_default=format_by_default)
