"""Where msgpack objects end, found without building them, and whether they keep the rules.

`msgpack.Unpacker.skip` goes over whole objects in C, at about a nanosecond for each byte. It knows
that 0xc1 starts no object. How deep objects nest it knows only by its stack, so they are given to
it as the items of arrays within one another, which leave `MAX_DEPTH` levels of the stack.

Of an object that is still arriving, or that breaks a rule, Python looks at the arrays and maps that
are open at its end. All that is whole within them is skipped in C. Nothing is allocated for what a
header merely announces.
"""

from bisect import bisect_left
from contextlib import suppress
from typing import Any, Final

import msgpack

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


_ARRAY_OF_ONE: Final = b"\x91"
_ARRAY_32: Final = b"\xdd"
_LARGEST_EXT: Final = b"\xc9\xff\xff\xff\xff"
_LARGE_EXT: Final = b"\xc9\xff\xff\xff\xfe"
"""The C code adds one to the length of an extension, for its type, and has 32 bits for it: the
largest would count as empty. In a payload the change does not matter, nor does it between objects.
"""
_MANY: Final = 0xFFFFFFFF
_OTHER: Final = bytes({*range(0x80), *range(0xA0, 0xDC), *range(0xE0, 0x100)})
"""The bytes that begin neither a map nor an array."""

_SAMPLE = 512  # bytes
_FEW = 2048  # bytes, in which objects are skipped one by one
_LEAP = 64  # bytes, below which Python's own steps are as fast as to begin with C


def _skipper(*pieces: bytes | bytearray) -> Any:
    unpacker: Any = msgpack.Unpacker(max_buffer_size=0)
    for piece in pieces:
        unpacker.feed(piece.replace(_LARGEST_EXT, _LARGE_EXT))
    return unpacker


def _depth_of_stack() -> int:
    unpacker = _skipper(_ARRAY_OF_ONE * (1 << 16))
    with suppress(msgpack.exceptions.StackError):
        unpacker.skip()
    depth: int = unpacker.tell()
    return depth


_OUTER: Final = _ARRAY_OF_ONE * (_depth_of_stack() - 1)


def _skip_items(number: int, data: bytes | bytearray, depth: int) -> int:
    """Return how many bytes the first objects of `data` take, as many as `number`.

    Args:
        depth: how many arrays and maps stand around them.

    Raises:
        msgpack.OutOfData: there are fewer.
        msgpack.exceptions.StackError: one of them nests too deep.
        msgpack.FormatError: one of them has 0xc1.
    """
    outer = _OUTER[MAX_DEPTH - depth :]
    unpacker = _skipper(outer, _ARRAY_32 + number.to_bytes(4, "big"), data)
    unpacker.skip()
    size: int = unpacker.tell() - len(outer) - 5
    return size


def ends_of_objects(data: bytes | bytearray) -> list[int]:
    """Return where the objects that `data` begins with end, up to the first that is not whole."""
    unpacker = _skipper(data)
    ends: list[tuple[None, int]] = []
    with suppress(msgpack.UnpackException):
        ends.extend(zip(iter(unpacker.skip, ...), iter(unpacker.tell, ...), strict=False))
    return [end for _, end in ends]


def is_single_object(data: bytes) -> bool:
    """Tell whether `data` is one whole object, and surely keeps the rules: a quick look."""
    unpacker = _skipper(data)
    try:
        unpacker.skip()
    except msgpack.UnpackException:
        return False
    return unpacker.tell() == len(data) and not _may_nest_too_deep(data)


def whole_objects(data: bytes, limit: int) -> tuple[int, int]:
    """Find the objects that `data` begins with, up to the first that is not whole or is bad.

    No object is longer than the stretch that is looked at in one step.

    Args:
        data: what has arrived.
        limit: the most bytes that an object may have.

    Returns:
        how many they are, and where the last of them ends.
    """
    number = end = 0
    while True:
        last = end + limit >= len(data)
        found, size = _whole_items(data[end : end + limit])
        number += found
        end += size
        if last or not found:
            return number, end


def _whole_items(
    data: bytes | bytearray, *, depth: int = 0, at_most: int = _MANY
) -> tuple[int, int]:
    """Find the objects that `data` begins with, as `whole_objects` does, of any length.

    To skip many objects as the items of one array takes half the time of as many calls. How many
    there are is estimated from the first few. Of 64 KiB of objects of 54 bytes each:

        the first 512 bytes  are 9 objects, 54 bytes each: nine tenths of the rest may be 1,092
        the first 58,968     are those 1,092, skipped in one call
        the next 5,886       are 109, in the same two steps
        the last 682         are 12, skipped one by one

    Args:
        depth: how many arrays and maps stand around them.
        at_most: how many objects to find.

    Returns:
        how many they are, and where the last of them ends.
    """
    number = end = 0
    with suppress(msgpack.UnpackException):
        while number < at_most and len(data) - end > _FEW:
            ends = ends_of_objects(data[end : end + _SAMPLE])
            if not ends:
                break
            estimate = 9 * (len(data) - end) * len(ends) // (10 * ends[-1])
            many = min(estimate, at_most - number)
            end += _skip_items(many, data[end:], depth)
            number += many
    if number == at_most:
        return number, end
    ends = _shallow(data[end:] if end else data, depth)[: at_most - number]
    return number + len(ends), end + (ends[-1] if ends else 0)


def _shallow(data: bytes | bytearray, depth: int) -> list[int]:
    """Return where the whole objects of `data` end, up to the first that nests too deep."""
    ends = ends_of_objects(data)
    if not ends:
        return ends
    whole = data[: ends[-1]]
    if (len(whole) > _FEW or _may_nest_too_deep(whole, depth)) and _nests_too_deep(whole, depth):
        first = bisect_left(
            range(len(ends)), True, key=lambda index: _nests_too_deep(data[: ends[index]], depth)
        )
        del ends[first:]
    return ends


def _may_nest_too_deep(data: bytes | bytearray, depth: int = 0) -> bool:
    """Tell whether there are so many maps and arrays, or bytes that look like their beginnings."""
    allowed = MAX_DEPTH - depth
    return len(data) > allowed and len(data.translate(None, _OTHER)) > allowed


def _nests_too_deep(data: bytes | bytearray, depth: int) -> bool:
    try:
        _skip_items(_MANY, data, depth)
    except msgpack.exceptions.StackError:
        return True
    except msgpack.OutOfData:
        pass
    return False


class Scanner:
    """Finds the ends of the objects in a growing buffer, one after the other."""

    __slots__ = ("_awaited", "_limit", "_position", "_start", "_wanted")

    def __init__(self, limit: int) -> None:
        """Make a scanner for objects of at most `limit` bytes."""
        self._limit = limit
        self._awaited = 0  # how long the buffer must be before there is anything to find
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
        if len(buffer) < self._awaited:
            return None
        while self._wanted:
            if not (self._leap(buffer) or self._step(buffer)):
                return None
        self._start = self._position
        self._wanted = [1]
        return self._start

    def _leap(self, buffer: bytes | bytearray) -> bool:
        """Go over what is whole of the innermost open array or map, in C.

        The worked example: of `93 01 92 02 03 92 04`, an array of three items, the outermost
        object is not whole, so `_step` opens it. Then `01` and `92 02 03` are whole, and one leap.
        Of the last item `_step` opens `92`, and `04` is a leap again; one more item is wanted.
        """
        if len(self._wanted) == 1 or len(buffer) - self._position < _LEAP:
            return False  # the outermost object is seldom whole: who calls has looked
        number, size = _whole_items(
            buffer[self._position :], depth=len(self._wanted) - 1, at_most=self._wanted[-1]
        )
        self._position += size
        if self._position - self._start > self._limit:
            raise too_long(self._limit)
        self._wanted[-1] -= number
        self._close_what_is_whole()
        return number > 0

    def _step(self, buffer: bytes | bytearray) -> bool:
        """Go over one header and its payload, and open the array or map that it begins."""
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
            self._awaited = body  # a long payload is not gone over again for each piece of it
            return False
        self._position = body
        self._wanted[-1] -= 1
        if items:
            self._enter(items * count)
        self._close_what_is_whole()
        return True

    def _close_what_is_whole(self) -> None:
        while self._wanted and not self._wanted[-1]:
            self._wanted.pop()

    def _enter(self, items: int) -> None:
        if len(self._wanted) > MAX_DEPTH:
            raise bad_frame(f"nested more than {MAX_DEPTH} deep")
        self._wanted.append(items)
