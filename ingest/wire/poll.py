"""A conversation with a device that only answers: we connect, ask, and it replies.

begin()              -> Claim("boiler")
granted(...)         -> Send(b"Hello, IoT!"), Wait(5.0, "reply")
receive(b"20.")      -> nothing yet
receive(b"5\\r\\n")    -> Frames(1 value), Ended(None)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.names import FORMATS
from ingest.record import Values
from ingest.wire.conversation import Claim, Context, Ended, Event, Grant, Send, Standing, Wait
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError, too_long
from ingest.wire.formats import line_format, opaque
from ingest.wire.framing import NO_FRAMES, Frames
from ingest.wire.states import STEPS, State, step

REPLY, SILENCE = "reply", "silence"
"""What is awaited: the end of the whole reply, and that of the bytes which are coming."""

MECHANISM = "dial"
"""By what a device is known that we have dialled: its address, which the operator has set."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a reply ends; with none of these, when the device closes the connection.

    Attributes:
        until: these bytes, which are no part of it.
        length: after so many bytes.
        silence: when nothing has come for so many seconds.
    """

    until: bytes = b""
    length: int = 0
    silence: float = 0.0

    def __str__(self) -> str:
        if self.until:
            return f"reply with {self.until!r} behind it"
        if self.length:
            return f"reply of {self.length} bytes"
        return "reply" if self.silence else "reply that ends by closing the connection"


class Replies:
    """Cuts what a device sends into replies; keeps the bytes of the one that is arriving."""

    def __init__(self, ending: Ending, limit: int) -> None:
        """Begin.

        Args:
            ending: how a reply ends.
            limit: the most bytes of one.
        """
        self._ending = ending
        self._limit = limit
        self._rest = bytearray()

    def __len__(self) -> int:
        """Return how many bytes of a reply are there that is not whole."""
        return len(self._rest)

    @property
    def rest(self) -> bytes:
        """The bytes of a reply that is not whole."""
        return bytes(self._rest)

    def take(self, data: bytes) -> list[bytes]:
        """Return the replies that `data` completes.

        Raises:
            PeerError: one is longer than the limit.
        """
        searched = max(0, len(self._rest) - len(self._ending.until) + 1)
        self._rest += data
        replies: list[bytes] = []
        if self._ending.until:
            replies = self._cut_until(searched)
        elif self._ending.length:
            replies = self._cut_length()
        if len(self._rest) > self._limit or any(len(reply) > self._limit for reply in replies):
            raise too_long(self._limit)
        return replies

    def end(self) -> list[bytes]:
        """Return the reply that the end of the stream, or silence, completes; empty if none."""
        if self._ending.length or not self._rest:
            return []
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest]

    def _cut_until(self, searched: int) -> list[bytes]:
        if self._rest.find(self._ending.until, searched) < 0:
            return []
        *replies, self._rest = self._rest.split(self._ending.until)
        return list(map(bytes, replies))

    def _cut_length(self) -> list[bytes]:
        size = self._ending.length
        end = len(self._rest) // size * size
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        return [whole[at : at + size] for at in range(0, end, size)]


@dataclass(frozen=True, slots=True)
class Question:
    """What a device is asked, and how it replies.

    Attributes:
        device: its name.
        send: what is sent to it once it is connected; it may be empty.
        ending: how its replies end.
        timeout: seconds that the connection may take, and then again the whole reply, without the
            silence that ends it. Where the connection stays, it is for the connection, and for a
            reply that ends by silence, from its first byte on.
        stays: whether the connection is kept for further replies, which come when they come.
        line_format: what its replies are where the registry does not say.
    """

    device: str
    send: bytes
    ending: Ending
    timeout: float
    stays: bool = False
    line_format: str = FORMATS[0]


class Poll:
    """A `Conversation` with a device that we have connected to; see there for its methods.

    Attributes:
        device: see `Conversation`.
        mechanism: see `Conversation`.
        state: where it stands.
        replies: how many have come.
    """

    __slots__ = ("_format", "_question", "_replies", "device", "mechanism", "replies", "state")

    def __init__(self, context: Context, question: Question) -> None:
        self._question = question
        self._replies = Replies(question.ending, context.max_frame)
        self._format = question.line_format
        self.device = question.device
        self.mechanism = MECHANISM
        self.replies = 0
        self.state = State.CLAIMING

    def begin(self) -> Sequence[Event]:
        return (Claim(self._question.device, Standing.REGISTERED),)

    def granted(self, grant: Grant) -> Sequence[Event]:
        self._enter(State.OPEN)
        self._format = grant.line_format or self._format
        events: list[Event] = []
        if self._question.send:
            events.append(Send(self._question.send))
        if not self._question.stays:
            events.append(self._until_whole())
        return events

    def receive(self, data: bytes) -> Sequence[Event]:
        if self.state is not State.OPEN:
            raise IllegalStep(f"bytes in {self.state}")
        is_first = not len(self._replies)
        try:
            replies = self._replies.take(data)
        except PeerError as error:
            return (self._end(error.without_traceback()),)
        if replies:
            return self._take(replies)
        if not self._question.ending.silence:
            return ()
        pause = Wait(self._question.ending.silence, SILENCE)
        return (pause, self._until_whole()) if is_first and self._question.stays else (pause,)

    def end_of_stream(self) -> Sequence[Event]:
        if self.state is not State.OPEN:
            raise IllegalStep(f"the stream ended in {self.state}")
        frames = self._frames(self._replies.end())
        return frames, self._end(None)

    def overdue(self, awaited: str) -> Sequence[Event]:
        if awaited == SILENCE:
            return self._take(self._replies.end())
        return (self._end(self._late()),)

    def checked(self, *, good: bool) -> Sequence[Event]:  # noqa: ARG002
        raise IllegalStep("a device that is dialled has no token")

    def fail(self, error: PeerError) -> Sequence[Event]:
        return (self._end(error),)

    def acknowledge(self, seq: int) -> bytes:  # noqa: ARG002 - the device would not understand
        return b""

    def farewell(self, error: PeerError) -> bytes:  # noqa: ARG002
        return b""

    def _until_whole(self) -> Wait:
        return Wait(self._question.timeout + self._question.ending.silence, REPLY)

    def _late(self) -> PeerError:
        seconds = self._question.timeout
        return PeerError(ErrorCode.IDLE_TIMEOUT, f"no {self._question.ending} within {seconds:g} s")

    def _enter(self, state: State) -> None:
        self.state = step(STEPS, self.state, state)

    def _end(self, error: PeerError | None) -> Ended:
        self._enter(State.ENDED)
        return Ended(error, lingers=False)

    def _take(self, replies: list[bytes]) -> Sequence[Event]:
        if self._question.stays:
            return self._frames(replies), Wait(None, REPLY)
        return self._frames(replies[:1]), self._end(None)

    def _frames(self, replies: list[bytes]) -> Frames:
        self.replies += len(replies)
        replies = list(filter(None, map(self._trimmed, replies)))
        if not replies:
            return NO_FRAMES
        if not self._question.ending.length and not any(b"\n" in reply for reply in replies):
            return line_format(self._format)(b"\n".join(replies) + b"\n")
        made = [self._frame(reply) for reply in replies]
        fields = [field for frames in made for field in _fields(frames.values)]
        return Frames(Values(b",", fields, b"}\n"), unparsed=sum(each.unparsed for each in made))

    def _trimmed(self, reply: bytes) -> bytes:
        """Take off the end of the line, which belongs to a reply only where its length counts."""
        return reply if self._question.ending.length else reply.rstrip(b"\r\n")

    def _frame(self, reply: bytes) -> Frames:
        """Make the one frame of a reply that may have several lines."""
        line = reply.rstrip(b"\r\n")
        if self._format == "json":
            line = line.replace(b"\n", b"\t")  # a blank as well, and no less wrong in a string
        if self._format != FORMATS[0] and line and b"\n" not in line:
            frames = line_format(self._format)(line + b"\n")
            if not frames.unparsed:
                return frames
        is_unparsed = self._format != FORMATS[0]
        return Frames(Values(b",", [opaque.field(reply)], b"}\n"), unparsed=int(is_unparsed))


def _fields(values: Values) -> list[bytes]:
    """Return what the records of values have behind the comma."""
    begin, end = values.opening[1:], values.closing.removesuffix(b"}\n")
    return [begin + item + end for item in values.items]
