"""Where the messages of Fluent Forward end: each is one msgpack object."""

from itertools import pairwise

from ingest.wire.errors import PeerError, too_long
from ingest.wire.msgpack_scanner import Scanner, ends_of_objects

_NIL = b"\xc0"


class Messages:
    """Cuts one connection's stream into messages; keeps the bytes of one that is not whole."""

    __slots__ = ("_limit", "_rest", "_scanner")

    def __init__(self, limit: int) -> None:
        """Make it for messages of at most `limit` bytes."""
        self._limit = limit
        self._rest = bytearray()
        self._scanner: Scanner | None = None

    @property
    def is_within_one(self) -> bool:
        """Whether a message has begun, and is not whole."""
        return bool(self._rest)

    def unread(self) -> bytes:
        """Give up the bytes behind the last message."""
        rest, self._rest, self._scanner = bytes(self._rest), bytearray(), None
        return rest

    def cut(self, data: bytes) -> tuple[list[bytes], PeerError | None]:
        """Return the messages that `data` completes, without heartbeats (nil).

        Returns:
            They, and what came behind them that is no message.
        """
        messages: list[bytes] = []
        try:
            if self._rest:
                end = self._extend(data)
                if end is None:
                    return messages, None
                data = self.unread()
                messages.append(data[:end])
                data = data[end:]
            ends = [0, *ends_of_objects(data)]
            messages += [data[begin:end] for begin, end in pairwise(ends)]
            if max(map(len, messages), default=0) > self._limit:
                raise too_long(self._limit)
            if data[ends[-1] :]:
                self._extend(data[ends[-1] :])
        except PeerError as error:
            self._rest = bytearray()
            return self._short(messages), error.without_traceback()
        return self._short(messages), None

    def _extend(self, data: bytes) -> int | None:
        """Take more bytes of the message that is arriving; return where it ends."""
        if self._scanner is None:
            self._scanner = Scanner(self._limit)
        self._rest += data
        return self._scanner.end(self._rest)

    def _short(self, messages: list[bytes]) -> list[bytes]:
        """Leave out heartbeats, and all from the first message on that is too long."""
        kept = []
        for message in messages:
            if len(message) > self._limit:
                break
            if message != _NIL:
                kept.append(message)
        return kept
