"""Lines that are JSON (RFC 8259), one value each: as many at once as a read brings.

`orjson` reads all lines as one array and writes them again in one call, so a line costs what a
msgpack object does. That spells them as all of our records are: no blanks, of equal keys the last,
nothing that steers a terminal.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson

from ingest.record import NO_VALUES, Values
from ingest.wire.formats import opaque
from ingest.wire.formats.by_line import kept
from ingest.wire.formats.words import as_object
from ingest.wire.framing import Frames
from ingest.wire.json_values import documents_of, values_of
from ingest.wire.mapping import MAX_DEPTH

_PARTS = 16
_PART = 8192
_FAR = _PART // 16
"""Bytes of lines that are read together where one in all is not plain; and of those before it, for
which it pays to read them again."""

_ANY_BYTE = bytes(range(256))
_DIGITS: Final = bytes.maketrans(b"123456789-", b"0" * 10)
_LONG_NUMBER: Final = b"0" * 20
"""20 digits, or 19 and a sign: an integer that may need more than 64 bits."""
_BRACKETS: Final = bytes.maketrans(b"[]", b"{}")
_BUT_OPENING = _ANY_BYTE.translate(None, b"[{\n")
_BUT_BRACKETS = _ANY_BYTE.translate(None, b"[]{}")
_DEEP: Final = b"{" * (MAX_DEPTH + 1)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_LOOKS_SO = re.compile(
    rb'[ \t\r]*(?:\{.*\}|\[.*\]|".*"|[-0-9].*[0-9]|[0-9]|true|false|null|NaN|-?Infinity)[ \t\r]*'
)
_UNUSUAL = re.compile(rb"NaN|Infinity|[0-9]{19}|\$|\\u0024")


def parse(whole: bytes) -> Frames:
    """Make the values of whole lines; one that is not JSON is kept as `opaque` would."""
    block = whole[:-1]
    is_modest = _is_modest(block)
    values = _values(block) if is_modest else None
    if values is not None:
        return Frames(values)
    return kept(_in_parts(whole, _values if is_modest else _modest_values))


def _is_modest(block: bytes) -> bool:
    """Tell whether no integer may need more than 64 bits, and no line nests too deep."""
    return _LONG_NUMBER not in block.translate(_DIGITS) and not _is_deep(block)


def _modest_values(block: bytes) -> Values | None:
    return _values(block) if _is_modest(block) else None


def _values(block: bytes) -> Values | None:
    """Make the values of lines that an LF joins; None if not all are plain JSON.

    Two calls see that each line is a value: as items of an array and as members of an object. One
    is not enough, since `[1` and `2]` are an array when a comma joins them. No string goes from
    one line into the next, since it can't hold the LF.
    """
    if not block:
        return NO_VALUES
    try:
        objects = orjson.loads(b"[%b]" % block.replace(b"\n", b",\n"))
    except orjson.JSONDecodeError:
        return None
    is_single = len(objects) == 1 and b"\n" not in block
    if not is_single and _error_of(_as_members(block)) is not None:
        return None
    dumped = orjson.dumps(objects)
    if b'{"$' in dumped:
        return None  # perhaps an object that looks like one of our wrappers
    return values_of(objects, dumped, are_maps=set(map(type, objects)) == {dict})


def _as_members(block: bytes) -> bytes:
    return b'{"":%b}' % block.replace(b"\n", b',\n"":')


def _error_of(document: bytes) -> orjson.JSONDecodeError | None:
    """Find what keeps an object from being JSON; without making it, which takes most of the time.

    It is read with a comma too many: the parser then stops there, if it comes so far.
    """
    try:
        orjson.loads(document + b" , ")
    except orjson.JSONDecodeError as error:
        return None if error.doc and error.pos == len(error.doc) - 2 else error
    raise AssertionError("a comma behind an object is no JSON")


def _is_deep(block: bytes) -> bool:
    """Tell whether a line nests deeper than `MAX_DEPTH`; of what is not JSON, anything.

    A line that has no more brackets than that can't. In any other, one pair after the other is
    taken away, from the inside, as often as it may nest:  {{}{}}  ->  {}  ->  nothing left
    """
    if _DEEP not in block.translate(_BRACKETS, _BUT_OPENING):
        return False
    nest = _STRING.sub(b"", block).translate(_BRACKETS, _BUT_BRACKETS)
    for _ in range(MAX_DEPTH):
        inner, nest = nest, nest.replace(b"{}", b"")
        if len(inner) == len(nest):
            break
    return bool(nest)


_Read = Callable[[bytes], Values | None]
"""Makes the values of lines that are all plain."""


def _in_parts(whole: bytes, read: _Read) -> list[bytes]:
    """Write what the records of whole lines have behind their numbers, where not all are plain.

    A parser says where it stops. If that is far enough from the begin of a part, the line there is
    cut out, so that it costs its neighbours next to nothing. A part with more such lines is looked
    at line by line.
    """
    fields: list[bytes] = []
    begin = 0
    while begin < len(whole):
        end = _end_of_line(whole, begin + _PART)
        stop = begin + _stops_at(whole[begin:end])
        if begin + _FAR < stop < end:
            fault = whole.rfind(b"\n", begin, stop) + 1 or begin
            end = _end_of_line(whole, stop)
            fields += _fields(whole[begin:fault], read)
            fields += _fields(whole[fault:end], read)
        else:
            fields += _fields(whole[begin:end], read)
        begin = end
    return fields


def _end_of_line(whole: bytes, at: int) -> int:
    return whole.find(b"\n", min(at, len(whole) - 1)) + 1


def _stops_at(block: bytes) -> int:
    """Return at which byte of whole lines a parser stops that reads them as members of an object.

    What it has between them counts to the line before, whose end it shows to be missing:

        [1 LF 2] LF   is read as   {"":[1, LF "":2]   and stops at the second colon: at the first LF

    Returns:
        The length of the block, if it reads all of them.
    """
    error = _error_of(_as_members(block[:-1]))
    if error is None:
        return len(block)
    if not error.doc:
        return _end_of_utf_8(block)
    read = error.doc[: error.pos]
    return min(len(read.encode()) - 4 - 4 * read.count("\n"), len(block) - 1)


def _end_of_utf_8(block: bytes) -> int:
    try:
        return len(block.decode())
    except UnicodeDecodeError as error:
        return error.start


def _fields(block: bytes, read: _Read) -> list[bytes]:
    """Write the fields of whole lines: all at once if they are plain."""
    values = read(block[:-1])
    if values is not None:
        return _written(values)
    lines = opaque.lines_of(block)
    looks = list(map(_LOOKS_SO.fullmatch, lines))  # most of what is not JSON does not look so
    found = _by_parts([line for line, look in zip(lines, looks, strict=True) if look], read)
    return [
        next(found) if look else opaque.field(line) for line, look in zip(lines, looks, strict=True)
    ]


def _by_parts(lines: Sequence[bytes], read: _Read) -> Iterator[bytes]:
    """Write the fields of lines that look like JSON.

    They are tried in parts, and those parts in parts, down to single lines.
    """
    values = read(b"\n".join(lines))
    if values is not None:
        yield from _written(values)
    elif len(lines) == 1:
        yield _field(lines[0])
    else:
        size = -(-len(lines) // _PARTS)
        for first in range(0, len(lines), size):
            yield from _by_parts(lines[first : first + size], read)


def _written(values: Values) -> list[bytes]:
    if values.opening.endswith(b"{"):
        return [b'"data":{%b}' % item for item in values.items]
    return [b'"data":%b' % item for item in values.items]


def _field(line: bytes) -> bytes:
    """Write the field of a line that is not plain."""
    if _UNUSUAL.search(line) is None or _is_deep(line):
        return opaque.field(line)
    try:
        (document,) = documents_of([_decode(line.decode())])
        orjson.loads(document)  # an integer of 400 digits no reader takes
    except (ValueError, TypeError):  # orjson's TypeError: half of a surrogate pair
        return opaque.field(line)
    return b'"data":' + document


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(digits)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return as_object(dict(pairs))


# It keeps what orjson has no word for: integers of any length, and NaN, which Python writes.
_decode = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=orjson.Fragment,
    parse_float=_finite,
    parse_constant=lambda name: {"$number": name},
).decode
