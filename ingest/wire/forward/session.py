"""The server's side of Fluent Forward v1, from the HELO to the last acknowledgement.

    begin()                  -> Send(HELO)
    receive(PING)            -> Claim("web-1")
    granted(Grant(1, ...))   -> Send(PONG)
    receive(a message)       -> Frames(100 values)
    acknowledge(100)         =  {"ack": its chunk}

The options of a listener, in PROTOCOLS.md, choose who may be a client and what its device is.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgpack

from ingest.names import RULE, is_device_name
from ingest.record import NO_VALUES, Values
from ingest.wire.chunks import Chunks, Stored
from ingest.wire.conversation import (
    Claim,
    Context,
    Conversation,
    Converse,
    Ended,
    Event,
    Grant,
    Send,
)
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError, bad_frame
from ingest.wire.forward.events import END, Message, read_message
from ingest.wire.forward.handshake import MAX_PING, Handshake, Secrets, read_ping, refusal
from ingest.wire.forward.messages import Messages
from ingest.wire.framing import Frames
from ingest.wire.identity import ConfiguredIdentity, claim_of
from ingest.wire.msgpack_scanner import Scanner
from ingest.wire.options import OptionError, Options
from ingest.wire.states import STEPS, State, step

MAX_CHUNK = "16MiB"
"""Bytes of one message by default: Fluentd's chunks have 8 MiB, those of Fluent Bit about 2."""

_UNREAD = 4096
"""Acknowledgements that may wait for a client that reads none."""
_TOLD = 256
"""Chunks that were acknowledged on this connection, and are remembered as such."""


@dataclass(frozen=True)
class Policy:
    """What the operator has set for a listener.

    Attributes:
        max_chunk: the most bytes of a message, also of its events when they are decompressed.
        secrets: what clients must know; None where they prove nothing.
        identity: who clients are that prove nothing, and the one device of all where there is one.
        by_user: whether the user names the device, and not the client's host.
    """

    max_chunk: int
    secrets: Secrets | None
    identity: ConfiguredIdentity
    by_user: bool

    @classmethod
    def read(cls, options: Options) -> "Policy":
        """Read the options of a listener.

        Raises:
            OptionError: one makes no sense, or they do not go together.
        """
        key, users = options.text("shared-key"), options.passwords("users")
        identity = ConfiguredIdentity.read(options)
        usual = "user" if users else "hostname"
        named_by = options.choice("device-from", usual, "hostname", "user")
        max_chunk = options.size("max-chunk", MAX_CHUNK)
        options.finish()
        if identity.device and "device-from" in options:
            raise OptionError("device names all clients: leave out device-from")
        if named_by == "user" and not users:
            raise OptionError("device-from: user needs users")
        if named_by == "user" and not identity.device:
            _check_names(users)
        if key is None:
            _check_open(options, identity)
            return cls(max_chunk, None, identity, by_user=False)
        if identity.networks:
            raise OptionError("networks is for clients without a handshake: leave out shared-key")
        return cls(max_chunk, Secrets(key.encode(), users), identity, named_by == "user")


def _check_names(users: Iterable[str]) -> None:
    for user in users:
        if not is_device_name(user):
            raise OptionError(
                f"users: {user!r} can name no device, which has {RULE}; or set device, or"
                " device-from to hostname"
            )


def _check_open(options: Options, identity: ConfiguredIdentity) -> None:
    if "users" in options or "device-from" in options:
        raise OptionError("users and device-from need shared-key: without it nobody is asked")
    if identity.device is None:
        raise OptionError(
            "shared-key or shared-key-file is wanted; or, for clients without a handshake, the"
            " device that all of them are"
        )


class ForwardSession:
    """A `Conversation` in Fluent Forward; see there for its methods."""

    __slots__ = (
        "_answers",
        "_chunks",
        "_context",
        "_durable",
        "_handshake",
        "_held",
        "_is_durable",
        "_last",
        "_messages",
        "_ping",
        "_policy",
        "_pong",
        "_told",
        "device",
        "mechanism",
        "state",
    )

    def __init__(self, context: Context, policy: Policy) -> None:
        self._context = context
        self._policy = policy
        self._handshake = Handshake(policy.secrets) if policy.secrets else None
        self._ping = Scanner(MAX_PING)
        self._messages = Messages(policy.max_chunk)
        self._pong = b""
        self._held = b""
        self._chunks = Chunks()
        self._last = 0  # the number of the newest frame
        self._durable = 0  # what was acknowledged so far
        self._answers: deque[tuple[int, str, bytes]] = deque()  # number, chunk, acknowledgement
        self._told: OrderedDict[str, None] = OrderedDict()
        self.state = State.GREETING
        self.device = ""
        self.mechanism = ""

    def begin(self) -> Sequence[Event]:
        if self._context.refusal is not None:
            return (self._end(self._context.refusal),)
        if self._handshake is not None:
            return (Send(self._handshake.helo()),)
        self.mechanism = "configured"
        try:
            claim = self._policy.identity.claim(self._context.peer)
        except PeerError as error:
            return (self._end(error.without_traceback()),)
        return (self._begin_claim(claim),)

    def receive(self, data: bytes) -> Sequence[Event]:
        if self.state is State.OPEN:
            return self._take(data)
        if self.state is State.GREETING:
            return self._greet(data)
        raise IllegalStep(f"bytes in {self.state}")

    def end_of_stream(self) -> Sequence[Event]:
        if self.state not in (State.GREETING, State.OPEN):
            raise IllegalStep(f"the stream ended in {self.state}")
        within = self.state is State.OPEN and self._messages.is_within_one
        return (self._end(bad_frame("the stream ended within a message") if within else None),)

    def checked(self, *, good: bool) -> Sequence[Event]:
        raise IllegalStep(f"a token was checked, {good}: there is none here")

    def granted(self, grant: Grant) -> Sequence[Event]:
        self._enter(State.OPEN)
        self._last = self._durable = grant.following - 1
        self._is_durable = grant.is_durable
        self._chunks = grant.chunks or self._chunks
        pong = (Send(self._pong),) if self._pong else ()
        behind, self._held = self._held, b""
        return (*pong, *self.receive(behind)) if behind else pong

    def fail(self, error: PeerError) -> Sequence[Event]:
        return (self._end(error),)

    def acknowledge(self, seq: int) -> bytes:
        self._durable = seq
        ready: list[bytes] = []
        while self._answers and self._answers[0][0] <= seq:
            _, chunk, answer = self._answers.popleft()
            ready.append(answer)
            self._note_told(chunk)
        return b"".join(ready)

    def farewell(self, error: PeerError) -> bytes:
        # Of a client that was let in, Forward has no word for what it did wrong.
        return b"" if self._handshake is None else refusal(error)

    def _enter(self, state: State) -> None:
        self.state = step(STEPS, self.state, state)

    def _end(self, error: PeerError | None) -> Ended:
        if self.state is State.OPEN:
            self._handshake = None
        self._enter(State.ENDED)
        self._held = b""
        return Ended(error)

    # The handshake.

    def _greet(self, data: bytes) -> Sequence[Event]:
        assert self._handshake is not None
        self._held += data
        try:
            end = self._ping.end(self._held)
            if end is None:
                return ()
            message, self._held = self._held[:end], self._held[end:]
            return (self._begin_claim(self._read_ping(self._handshake, message)),)
        except PeerError as error:
            return (self._end(error.without_traceback()),)

    def _read_ping(self, handshake: Handshake, message: bytes) -> Claim:
        self.mechanism = "shared-key"
        identity, ping = self._policy.identity, read_ping(message)
        claim = claim_of(
            identity.device or (ping.user if self._policy.by_user else ping.host), identity.standing
        )
        self.device = claim.device
        self._context.check_attempt(claim.device)
        self._pong = handshake.check(ping)
        return claim

    def _begin_claim(self, claim: Claim) -> Claim:
        self._enter(State.CLAIMING)
        self.device = claim.device
        return replace(claim, shared=True)

    # Events.

    def _take(self, data: bytes) -> Sequence[Event]:
        messages, error = self._messages.cut(data)
        items: list[bytes] = []
        answers: list[bytes] = []
        try:
            for message in messages:
                self._take_message(message, items, answers)
        except PeerError as wrong:
            error = wrong.without_traceback()
        if not (items or answers or error):
            return ()
        events: list[Event] = [Frames(Values(b",", items, END) if items else NO_VALUES, error)]
        if answers:
            events.append(Send(b"".join(answers)))
        if error is not None:
            events.append(self._end(error))
        return events

    def _take_message(self, packed: bytes, items: list[bytes], answers: list[bytes]) -> None:
        message = read_message(packed, self._policy.max_chunk)
        name = message.name
        if name is None:
            items += message.items(0)
            self._last += message.size
            return
        start = self._find(name, message)
        items += message.items(start)
        self._last += message.size - start
        if start < message.size:
            stored = Stored(message.size, partial(self._is_durable, self._last))
            self._chunks.note(name, stored)
        answer: bytes = msgpack.packb({"ack": message.chunk}, unicode_errors="surrogateescape")
        if self._last <= self._durable:
            answers.append(answer)
            self._note_told(name)
            return
        if len(self._answers) >= _UNREAD:
            raise PeerError(ErrorCode.BUSY, "the acknowledgements of this connection are not read")
        self._answers.append((self._last, name, answer))

    def _find(self, name: str, message: Message) -> int:
        """Return how many events of a chunk are stored already.

        A chunk that was acknowledged on this very connection, and comes again, is another one: the
        ids of Fluent Bit are made of what a chunk holds. Else its acknowledgement was lost. An
        empty id tells no chunk from another.

        Raises:
            PeerError: they are stored by another connection, and are not on disk yet.
        """
        if not name:
            return 0
        if name in self._told:
            del self._told[name]
            return 0
        stored = self._chunks.find(name)
        if stored is None:
            return 0
        if not stored.is_durable() and not any(name == chunk for _, chunk, _ in self._answers):
            raise PeerError(ErrorCode.BUSY, "the chunk is on its way to the disk already")
        return min(stored.records, message.size)

    def _note_told(self, name: str) -> None:
        self._told[name] = None
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)


def make_converse(options: Options) -> Converse:
    """Make what makes sessions.

    Raises:
        OptionError: an option makes no sense, or they do not go together.
    """
    policy = Policy.read(options)

    def converse(context: Context) -> Conversation:
        return ForwardSession(context, policy)

    return converse
