"""A ready-made conversation: the listener's options say who the client is, a framing does the rest.

    def converse(context, identity):
        return Framed(context, identity, LinesOfText(context.max_frame))

    make_converse = configured(converse)

The client is let in as it connects, or, where there is a `Login`, by the name that this finds in
the first bytes. Frames are numbered from 1 on for each connection.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ingest.wire.conversation import Context, Conversation, Converse, Ended, Event, Grant, Send
from ingest.wire.errors import IllegalStep, PeerError
from ingest.wire.framing import Framing
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.options import Options
from ingest.wire.states import STEPS, State, step


class Login(Protocol):
    """What a client first says in some protocols: who it is. A framing may do this as well."""

    def login(self, data: bytes) -> str | None:
        """Take more bytes; return the name once it is whole.

        The framing has to know what came behind it: its `cut` is called once more, with nothing
        new.

        Raises:
            PeerError: that is no login.
        """

    def welcome(self) -> bytes:
        """Write that the client is let in; empty where nothing is to be said."""


class Framed:
    """A `Conversation` of clients that prove nothing; see there for its methods."""

    __slots__ = (
        "_base",
        "_context",
        "_framing",
        "_identity",
        "_login",
        "_shared",
        "device",
        "mechanism",
        "state",
    )

    def __init__(
        self,
        context: Context,
        identity: ConfiguredIdentity,
        framing: Framing,
        *,
        login: Login | None = None,
        shared: bool = True,
    ) -> None:
        """Make the conversation of a connection that was just accepted.

        Args:
            context: what it may know.
            identity: who clients are.
            framing: cuts the stream of this connection.
            login: finds the name of the client; None where the client says none.
            shared: whether several connections may have the name at once; see `Claim`.
        """
        self._context = context
        self._identity = identity
        self._framing = framing
        self._login = login
        self._shared = shared
        self._base = 0  # the number of the device's last frame before this connection
        self.state = State.GREETING
        self.device = ""
        self.mechanism = "configured"

    def begin(self) -> Sequence[Event]:
        if self._context.refusal is not None:
            return (self._end(self._context.refusal),)
        return self._claim(None) if self._login is None else ()

    def receive(self, data: bytes) -> Sequence[Event]:
        if self.state is State.OPEN:
            return self._take(data)
        if self.state is not State.GREETING:
            raise IllegalStep(f"bytes in {self.state}")
        assert self._login is not None
        try:
            said = self._login.login(data)
        except PeerError as error:
            return (self._end(error.without_traceback()),)
        return () if said is None else self._claim(said)

    def end_of_stream(self) -> Sequence[Event]:
        if self.state is State.OPEN:
            frames = self._framing.finish()
            return frames, self._end(frames.error)
        if self.state is not State.GREETING:
            raise IllegalStep(f"the stream ended in {self.state}")
        return (self._end(None),)

    def checked(self, *, good: bool) -> Sequence[Event]:
        raise IllegalStep(f"a token was checked, {good}: there is none here")

    def granted(self, grant: Grant) -> Sequence[Event]:
        self._enter(State.OPEN)
        self._base = grant.following - 1
        if self._login is None:
            return ()
        welcome = self._login.welcome()
        behind = self._take(b"")
        return (Send(welcome), *behind) if welcome else behind

    def fail(self, error: PeerError) -> Sequence[Event]:
        return (self._end(error),)

    def acknowledge(self, seq: int) -> bytes:
        return self._framing.ack(seq - self._base)

    def farewell(self, error: PeerError) -> bytes:
        return self._framing.error(error)

    def _claim(self, said: str | None) -> Sequence[Event]:
        try:
            claim = self._identity.claim(self._context.peer, said)
        except PeerError as error:
            return (self._end(error.without_traceback()),)
        self._enter(State.CLAIMING)
        self.device = claim.device
        return (replace(claim, shared=self._shared),)

    def _take(self, data: bytes) -> Sequence[Event]:
        frames = self._framing.cut(data)
        return (frames,) if frames.error is None else (frames, self._end(frames.error))

    def _enter(self, state: State) -> None:
        self.state = step(STEPS, self.state, state)

    def _end(self, error: PeerError | None) -> Ended:
        self._enter(State.ENDED)
        return Ended(error)


def configured(
    make: Callable[[Context, ConfiguredIdentity], Conversation],
) -> Callable[[Options], Converse]:
    """Make the function `make_converse` of a protocol whose clients prove nothing.

    Args:
        make: makes the conversation of a new connection, whose client is what the options say.
    """

    def make_converse(options: Options) -> Converse:
        identity = ConfiguredIdentity.read(options)
        options.finish()

        def converse(context: Context) -> Conversation:
            return make(context, identity)

        return converse

    return make_converse
