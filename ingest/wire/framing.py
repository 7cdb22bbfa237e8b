"""Framing: where the frames in a stream of bytes end, and how the stream is answered."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from ingest.record import NO_VALUES, Values
from ingest.wire.errors import PeerError


class Frames(NamedTuple):
    """The frames that one read completed.

    Attributes:
        values: what is stored of them.
        error: what came behind them that is no frame; nothing after it was read.
        unparsed: how many of them are not in the format that they should have; they are stored as
            `text` or `raw`.
    """

    values: Values
    error: PeerError | None = None
    unparsed: int = 0


NO_FRAMES = Frames(NO_VALUES)

LineFormat: TypeAlias = Callable[[bytes], Frames]
"""Makes the values of whole lines, each with its LF; an empty line has none."""


class Framing(Protocol):
    """Cuts one connection's stream into frames; keeps the bytes of a frame that is not whole."""

    def cut(self, data: bytes) -> Frames:
        """Return the frames that `data`, the bytes of one read, completes."""

    def finish(self) -> Frames:
        """Return what the end of the stream completes."""

    def ack(self, seq: int) -> bytes:
        """Write that all frames up to number `seq` are on disk; empty where nothing is to be said.

        It is called with rising numbers, and may skip some.
        """

    def error(self, error: PeerError) -> bytes:
        """Write why the connection closes; empty where the protocol has no word for it."""
