"""Whole msgpack objects as the values of records: those of a read at once, in C.

`ormsgpack` makes objects in half the time that `msgpack` takes, but of no stream: as the items of
an array. `orjson` writes all of them in one call, and the lines are cut out of what it wrote.
"""

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, Final

import orjson
import ormsgpack

from ingest.record import NO_VALUES, Values, printable
from ingest.wire.errors import PeerError, bad_frame
from ingest.wire.framing import Frames
from ingest.wire.json_values import complete, values_of
from ingest.wire.mapping import encode
from ingest.wire.msgpack_scanner import ends_of_objects, is_single_object

_ARRAY_32: Final = b"\xdd"
_PARTS = 16

# NaN and the infinities. Each begins with a single byte, which `re` finds as fast as memory reads.
_NOT_FINITE = re.compile(rb"\x7f(?<=[\xca\xcb]\x7f)")
_NEGATIVE_NOT_FINITE = re.compile(rb"\xff(?<=[\xca\xcb]\xff)")


def decode(number: int, data: bytes) -> Frames:
    """Make the values of whole objects; `nil` alone, a keep-alive, has none.

    Args:
        number: how many objects `data` holds, as `whole_objects` has found.
        data: nothing but these objects.

    Returns:
        the values up to the first object that is bad, and what is wrong with that.
    """
    values = _plain_values(number, data)
    if values is not None:
        return Frames(values)
    items: list[bytes] = []
    error: PeerError | None = None
    try:
        items.extend(_by_parts(data, 0, ends_of_objects(data)))
    except PeerError as fault:
        error = fault.without_traceback()
    return Frames(Values(b',"data":', items, b"}\n") if items else NO_VALUES, error)


def decode_single(data: bytes) -> Values | None:
    """Make the value of a single plain object: what most devices send at a time.

    Returns:
        None if `data` is anything else, or may be.
    """
    return _plain_values(1, data) if is_single_object(data) else None


def make_objects(number: int, data: bytes) -> list[Any]:
    """Make whole objects; what stands behind them counts for nothing.

    Raises:
        ValueError: one of them has what `ormsgpack` can't make by itself: an extension, a key that
            is no str, a str that is not UTF-8.
    """
    if number == 1:
        return [ormsgpack.unpackb(data)]
    objects: list[Any] = ormsgpack.unpackb(b"".join((_ARRAY_32, number.to_bytes(4, "big"), data)))
    return objects


def _plain_values(number: int, data: bytes) -> Values | None:
    """Make the values of objects that plain JSON can hold; None if it can't hold one of them."""
    try:
        return plain_values(make_objects(number, data), data)
    except ValueError:
        return None


def plain_values(objects: list[Any], data: bytes) -> Values | None:
    """Make the values of objects, as `_plain_values` does; `data` is what they were made of."""
    try:
        types = set(map(type, objects))
        if NoneType in types:
            types.remove(NoneType)
            objects = [value for value in objects if value is not None]
        dumped = orjson.dumps(objects)
    except TypeError:
        return None
    if b"$" in dumped and b'{"$' in dumped:
        return None  # perhaps a map that looks like one of our wrappers
    if b"null" in dumped and (_NOT_FINITE.search(data) or _NEGATIVE_NOT_FINITE.search(data)):
        return None  # perhaps a number that is not finite, which orjson writes as null
    return values_of(objects, dumped, are_maps=types == {dict})


def _by_parts(data: bytes, begin: int, ends: list[int]) -> Iterator[bytes]:
    """Write the values of objects of which at least one is not plain.

    They are tried in parts, and those parts in parts, down to single objects, so that one object
    costs its neighbours little. Of 2,000 objects, one with a bin in it:

        16 parts of 125   15 are plain
        16 parts of 8     15 are plain
        8 objects         7 are plain, and the one is written by `encode`

    Args:
        data: what holds the objects.
        begin: where the first begins.
        ends: where each ends.

    Raises:
        PeerError: one of them is bad.
    """
    if len(ends) == 1:
        yield printable(_encode(data[begin : ends[0]]))
        return
    size = -(-len(ends) // _PARTS)
    for first in range(0, len(ends), size):
        part = ends[first : first + size]
        values = _plain_values(len(part), data[begin : part[-1]])
        yield from _by_parts(data, begin, part) if values is None else complete(values)
        begin = part[-1]


def _encode(packed: bytes) -> bytes:
    try:
        return encode(packed)
    except ValueError as error:
        raise bad_frame("not a msgpack object") from error
