"""A protocol in steps: generators that ask for the bytes that they need, one step after the other.

    class Meter(Stepwise):
        def frame(self):
            size = yield 2                                # two bytes,
            return (yield int.from_bytes(size, "big"))    # and as many as they say

A step is how many bytes are wanted, or what stands behind them: `line = yield b"\\r\\n"`. They come
when all of them are there, however the network cuts them.
"""

from collections.abc import Callable, Generator
from typing import Final, TypeAlias, TypeVar

import msgpack
import orjson

from ingest.record import NO_VALUES, Values, printable
from ingest.wire.conversation import Context, Conversation, Converse
from ingest.wire.errors import PeerError, bad_frame, too_long
from ingest.wire.formats import opaque
from ingest.wire.framed import Framed, configured
from ingest.wire.framing import Frames
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.mapping import encode
from ingest.wire.options import Options

Made = TypeVar("Made")
Step: TypeAlias = int | bytes
Steps: TypeAlias = Generator[Step, bytes, Made]

_WAITING: Final = object()
"""What steps have made whose bytes are not there yet."""


class Stepwise:
    """The server's side of a protocol on one connection. A protocol says what is different.

    Both generators may raise `PeerError` or ValueError for what is no login and no frame; that ends
    the connection. What one of them takes has at most as many bytes as a frame may have.
    """

    def login(self) -> Steps[str] | None:
        """Read what a client says first, and return its name; None in a protocol without that."""
        return None

    def welcome(self) -> bytes:
        """Write that the client is let in, where it has logged in."""
        return b""

    def frame(self) -> Steps[object]:
        """Read one frame: at least one byte.

        Returns:
            bytes, which are stored as `raw`; a string, as `text`; anything else that msgpack has,
            such as a number or a dictionary, as `data`. None is not stored.
        """
        raise NotImplementedError

    def stored(self, count: int) -> bytes:  # noqa: ARG002
        """Write the answer when `count` more frames are on disk; empty where there is none."""
        return b""

    def farewell(self, error: PeerError) -> bytes:  # noqa: ARG002
        """Write why the connection closes; empty where the protocol has no word for it."""
        return b""


def stepwise(make: Callable[[], Stepwise], *, shared: bool = True) -> Callable[[Options], Converse]:
    """Make the function `make_converse` of a protocol in steps.

    Args:
        make: makes what a new connection speaks.
        shared: whether several connections may have a name at once; see `Claim`.
    """

    def converse(context: Context, identity: ConfiguredIdentity) -> Conversation:
        framing = StepwiseFraming(make(), context.max_frame)
        login = framing if framing.has_login else None
        return Framed(context, identity, framing, login=login, shared=shared)

    return configured(converse)


class StepwiseFraming:
    """The `Framing` and the `Login` of a protocol in steps.

    Attributes:
        has_login: whether the protocol has one.
    """

    def __init__(self, protocol: Stepwise, limit: int) -> None:
        """Make it for frames of at most `limit` bytes."""
        self._protocol = protocol
        self._limit = limit
        self._rest = bytearray()
        self._at = 0  # where in `_rest` the bytes begin that no step has taken
        self._searched = 0  # bytes behind that in which the end of a step is not
        self._taken = 0  # bytes by the steps that go on
        self._told = 0  # the last frame that was said to be stored
        self._step: Step = 0
        self._steps: Steps[object] | None = protocol.login()
        self.has_login = self._steps is not None
        if self._steps is not None:
            self._begin(self._steps)

    def login(self, data: bytes) -> str | None:
        """See `Login.login`."""
        self._rest += data
        name = self._go_on()
        return None if name is _WAITING else str(name)

    def welcome(self) -> bytes:
        """See `Login.welcome`."""
        return self._protocol.welcome()

    def cut(self, data: bytes) -> Frames:
        """See `Framing.cut`."""
        self._rest += data
        fields: list[bytes] = []
        error = None
        try:
            while self._at < len(self._rest):
                if self._steps is None:
                    self._begin(self._protocol.frame())
                frame = self._go_on()
                if frame is _WAITING:
                    break
                if not self._taken:
                    raise RuntimeError("a frame of no bytes would be there for ever")
                if frame is not None:
                    fields.append(_field(frame))
        except PeerError as wrong:
            error = wrong.without_traceback()
        del self._rest[: self._at]
        self._at = 0
        return Frames(Values(b",", fields, b"}\n") if fields else NO_VALUES, error)

    def finish(self) -> Frames:
        """See `Framing.finish`."""
        error = bad_frame("the stream ended within a frame") if self._steps is not None else None
        return Frames(NO_VALUES, error)

    def ack(self, seq: int) -> bytes:
        """See `Framing.ack`."""
        count, self._told = seq - self._told, seq
        return self._protocol.stored(count)

    def error(self, error: PeerError) -> bytes:
        """See `Framing.error`."""
        return self._protocol.farewell(error)

    def _begin(self, steps: Steps[object]) -> None:
        self._steps, self._taken = steps, 0
        self._step = next(steps, 0)

    def _go_on(self) -> object:
        """Take steps as far as the bytes suffice; return what they make, or `_WAITING`.

        Raises:
            PeerError: the bytes are none of the protocol.
        """
        assert self._steps is not None
        while (taken := self._take(self._step)) is not None:
            try:
                self._step = self._steps.send(taken)
            except StopIteration as done:
                self._steps = None
                return done.value
            except ValueError:  # such as a number that is none, or what is not ASCII
                raise bad_frame("what came is not of this protocol") from None
        return _WAITING

    def _take(self, step: Step) -> bytes | None:
        """Return the bytes of a step; None while they are not all there."""
        end = self._at + step if isinstance(step, int) else self._find(step)
        if end < self._at:
            raise bad_frame("a length below zero")
        if self._taken + end - self._at > self._limit:
            raise too_long(self._limit)
        behind = end if isinstance(step, int) else end + len(step)
        if behind > len(self._rest):
            return None
        data = bytes(self._rest[self._at : end])
        self._taken += behind - self._at
        self._at, self._searched = behind, 0
        return data

    def _find(self, mark: bytes) -> int:
        """Return where a mark stands; where it may stand at the earliest, if it is not there."""
        found = self._rest.find(mark, self._at + self._searched)
        if found >= 0:
            return found
        self._searched = max(0, len(self._rest) - self._at - len(mark) + 1)
        return self._at + self._searched


def _field(frame: object) -> bytes:
    """Write what the record of a frame has behind its number."""
    if isinstance(frame, bytes):
        return opaque.raw_field(frame)
    if isinstance(frame, str):
        return b'"text":' + printable(orjson.dumps(frame))
    return b'"data":' + printable(encode(msgpack.packb(frame)))
