"""Where a msgpack object ends, found without building it and without looking at a byte twice.

A C decoder does the work wherever a read ends with a whole object. This scanner is for the
rest: an object that is still arriving, or one that breaks a rule. It allocates nothing for
what a header merely announces.
"""

from typing import Final

from ingest.wire.errors import bad_frame, too_long
from ingest.wire.mapping import MAX_DEPTH

# Of each first byte (https://github.com/msgpack/msgpack/blob/master/spec.md#formats):
# how many bytes of length follow it, how many bytes of payload it fixes, and how many
# objects each counted item is (0 for a payload, 1 for an array, 2 for a map).
_Format = tuple[int, int, int]
_SCALAR: Final = 0
_ARRAY: Final = 1
_MAP: Final = 2


def _formats() -> list[_Format | None]:
    table: list[_Format | None] = [(0, 0, _SCALAR)] * 256
    for first in range(0x80, 0x90):
        table[first] = (0, first & 0x0F, _MAP)
    for first in range(0x90, 0xA0):
        table[first] = (0, first & 0x0F, _ARRAY)
    for first in range(0xA0, 0xC0):
        table[first] = (0, first & 0x1F, _SCALAR)
    table[0xC1] = None  # never used
    for first, width in zip(range(0xC4, 0xC7), (1, 2, 4), strict=True):
        table[first] = (width, 0, _SCALAR)  # bin
        table[first + 3] = (width, 1, _SCALAR)  # ext, with its type
        table[first + 0x15] = (width, 0, _SCALAR)  # str
    for first, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
        table[first] = (0, size, _SCALAR)  # float, uint, int
    for first, size in zip(range(0xD4, 0xD9), (1, 2, 4, 8, 16), strict=True):
        table[first] = (0, 1 + size, _SCALAR)  # fixext
    for first, width in ((0xDC, 2), (0xDD, 4)):
        table[first] = (width, 0, _ARRAY)
        table[first + 2] = (width, 0, _MAP)
    return table


_FORMATS = _formats()


class Scanner:
    """Finds the ends of the objects in a growing buffer, one after the other."""

    __slots__ = ("_limit", "_position", "_start", "_wanted")

    def __init__(self, limit: int) -> None:
        """Make a scanner for objects of at most `limit` bytes."""
        self._limit = limit
        self._start = 0
        self._position = 0
        self._wanted = [1]  # objects still to come, at each depth

    def end(self, buffer: bytes | bytearray) -> int | None:
        """Return where the next object ends, or None while it is not whole.

        Args:
            buffer: what the last call was given, perhaps with more behind it.

        Raises:
            PeerError: it has a byte that starts nothing, nests deeper than `MAX_DEPTH`, or is or
                will be longer than the limit.
        """
        while self._wanted:
            if not self._step(buffer):
                return None
        self._start = self._position
        self._wanted = [1]
        return self._start

    def _step(self, buffer: bytes | bytearray) -> bool:
        position = self._position
        if position >= len(buffer):
            return False
        format_ = _FORMATS[buffer[position]]
        if format_ is None:
            raise bad_frame("0xc1 starts no msgpack object")
        width, count, items = format_
        body = position + 1 + width
        if len(buffer) < body:
            return False
        if width:
            count += int.from_bytes(buffer[position + 1 : body], "big")
        if items == _SCALAR:
            body += count
        # Each announced item has at least one byte, so no header can promise memory.
        least = body + items * count
        if least - self._start > self._limit:
            raise too_long(self._limit)
        if len(buffer) < body:
            return False
        self._position = body
        self._wanted[-1] -= 1
        if items:
            self._enter(items * count)
        while self._wanted and not self._wanted[-1]:
            self._wanted.pop()
        return True

    def _enter(self, items: int) -> None:
        if len(self._wanted) > MAX_DEPTH:
            raise bad_frame(f"nested more than {MAX_DEPTH} deep")
        self._wanted.append(items)
