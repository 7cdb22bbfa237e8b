"""Lines that are JSON (RFC 8259), one value each: as many at once as a read brings.

`orjson` reads all lines as one array and writes them again in one call, so a line costs what a
msgpack object does. That spells them as all of our records are: no blanks, of equal keys the last,
nothing that steers a terminal.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from ingest.record import NO_VALUES, Values
from ingest.wire.formats import opaque
from ingest.wire.formats.by_line import kept
from ingest.wire.formats.words import as_object
from ingest.wire.framing import Frames
from ingest.wire.json_values import complete, documents_of, values_of
from ingest.wire.mapping import MAX_DEPTH

_PARTS = 16

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
    values = _plain_values(whole[:-1])
    if values is not None:
        return Frames(values)
    return kept(_fields(opaque.lines_of(whole)))


def _plain_values(block: bytes) -> Values | None:
    """Make the values of lines that an LF joins; None if not all are plain JSON.

    Two calls see that each line is a value: as items of an array and as members of an object. One
    is not enough, since `[1` and `2]` are an array when a comma joins them. No string goes from
    one line into the next, since it can't hold the LF.
    """
    if not block:
        return NO_VALUES
    if _LONG_NUMBER in block.translate(_DIGITS) or _is_deep(block):
        return None
    try:
        objects = orjson.loads(b"[%b]" % block.replace(b"\n", b",\n"))
    except orjson.JSONDecodeError:
        return None
    is_single = len(objects) == 1 and b"\n" not in block
    if not is_single and not _is_json(b'{"":%b}' % block.replace(b"\n", b',\n"":')):
        return None
    dumped = orjson.dumps(objects)
    if b'{"$' in dumped:
        return None  # perhaps an object that looks like one of our wrappers
    return values_of(objects, dumped, are_maps=set(map(type, objects)) == {dict})


def _is_json(document: bytes) -> bool:
    """Tell whether an object is JSON; without making it, which takes most of the time.

    It is read with a comma too many: the parser then stops there, if it comes so far.
    """
    try:
        orjson.loads(document + b" , ")
    except orjson.JSONDecodeError as error:
        return error.pos == len(error.doc) - 2
    return False


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


def _fields(lines: Sequence[bytes]) -> list[bytes]:
    """Write what the records of lines have behind their numbers, where not all lines are plain."""
    looks = list(map(_LOOKS_SO.fullmatch, lines))  # most of what is not JSON does not look so
    found = _by_parts([line for line, look in zip(lines, looks, strict=True) if look])
    return [
        next(found) if look else opaque.field(line) for line, look in zip(lines, looks, strict=True)
    ]


def _by_parts(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Write the fields of lines that look like JSON.

    They are tried in parts, and those parts in parts, down to single lines, so that one line costs
    its neighbours little.
    """
    values = _plain_values(b"\n".join(lines))
    if values is not None:
        yield from [b'"data":' + document for document in complete(values)]
    elif len(lines) == 1:
        yield _field(lines[0])
    else:
        size = -(-len(lines) // _PARTS)
        for first in range(0, len(lines), size):
            yield from _by_parts(lines[first : first + size])


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
