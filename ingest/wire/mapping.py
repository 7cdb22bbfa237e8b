"""msgpack to JSON and back, losing nothing: the table of PROTOCOL.md, "The record".

What plain JSON can hold `orjson` writes at once, without this module. This is the way of an object
that has anything else: only that is looked at in Python, item by item.
"""

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from types import NoneType
from typing import Any, TypeAlias

import msgpack
import orjson

MAX_DEPTH = 64
"""How deep a frame may nest: JSON readers in the field stop between 100 and 1,000."""

Json: TypeAlias = Any
"""What `orjson` reads and writes: None, bool, int, float, str, list, dict."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TIMESTAMP_EXT = -1
_ESCAPED_BYTE = re.compile("[\ud800-\udfff]")  # of a str that is not UTF-8


class Pairs(list[tuple[Any, Any]]):
    """A msgpack map as it came: its pairs in order, keys of any type, equal keys kept apart."""


def make_ext(code: int, data: bytes) -> msgpack.ExtType:
    """Make an extension of any type from -128 to 127; its class refuses those below 0."""
    return msgpack.ExtType._make((code, data))


def encode(packed: bytes) -> bytes:
    """Write one msgpack object, nested at most `MAX_DEPTH` deep, as JSON.

    Raises:
        ValueError: it has an extension of type -1 that is no timestamp.
    """
    try:
        value, same = _unpack(packed, unicode_errors="strict"), _SAME_IF_UTF8
    except UnicodeDecodeError:
        value, same = _unpack(packed, unicode_errors="surrogateescape"), _SAME
    return orjson.dumps(_to_json(value, same))


def decode(line: bytes | str) -> Any:
    """Read what `encode` wrote: the msgpack value, maps as `dict`, or as `Pairs` for `$map`.

    Raises:
        orjson.JSONDecodeError: `line` is not JSON.
    """
    return from_json(orjson.loads(line))


_Same: TypeAlias = frozenset[type]
"""The types whose values JSON has too."""


def _ext(code: int, data: bytes) -> Json:
    return {"$ext": [code, b64encode(data).decode()]}


# Maps become tuples of pairs, and extensions what stands for them in JSON.
_unpack: Callable[..., Any] = partial(
    msgpack.unpackb, strict_map_key=False, object_pairs_hook=tuple, ext_hook=_ext
)
_SAME: _Same = frozenset({NoneType, bool, int, dict})
_SAME_IF_UTF8: _Same = _SAME | {str}


def _to_json(value: Any, same: _Same) -> Json:
    kind = type(value)
    return value if kind in same else _CONVERT[kind](value, same)


def _text(text: str, _: _Same) -> Json:
    return text if _is_utf8(text) else _wrap_binary(text.encode("utf-8", "surrogateescape"))


def _is_utf8(text: str) -> bool:
    return text.isascii() or _ESCAPED_BYTE.search(text) is None


def _number(value: float, _: _Same) -> Json:
    return value if math.isfinite(value) else {"$number": _number_name(value)}


def _number_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _binary(data: bytes, _: _Same) -> Json:
    return _wrap_binary(data)


def _wrap_binary(data: bytes) -> Json:
    return {"$binary": b64encode(data).decode()}


def _array(items: list[Any], same: _Same) -> Json:
    if not items or same.issuperset(map(type, items)):
        return items
    return [
        item if type(item) in same else _CONVERT[type(item)](item, same)  # no call for most items
        for item in items
    ]


def _map(pairs: tuple[tuple[Any, Any], ...], same: _Same) -> Json:
    if not pairs:
        return {}
    for key, _ in pairs:
        if type(key) is not str or not (str in same or _is_utf8(key)):
            return _wrap_map(pairs, same)
    # Of equal keys the last counts, as in the decoder of plain objects and in JSON readers.
    plain = dict(pairs)
    if len(plain) == 1 and key.startswith("$"):
        return _wrap_map(pairs, same)
    for key, value in plain.items():
        if type(value) not in same:
            plain[key] = _to_json(value, same)
    return plain


def _wrap_map(pairs: tuple[tuple[Any, Any], ...], same: _Same) -> Json:
    return {"$map": [[_to_json(key, same), _to_json(value, same)] for key, value in pairs]}


def _looks_wrapped(plain: dict[str, Json]) -> bool:
    return len(plain) == 1 and next(iter(plain)).startswith("$")


def _date(stamp: msgpack.Timestamp, _: _Same) -> Json:
    try:
        moment = _EPOCH_NAIVE + timedelta(seconds=stamp.seconds)
    except OverflowError:  # outside the years 1 to 9999, which RFC 3339 can't write
        return _ext(_TIMESTAMP_EXT, stamp.to_bytes())
    fraction = f".{stamp.nanoseconds:09d}" if stamp.nanoseconds else ""
    return {"$date": f"{moment.isoformat()}{fraction}Z"}


_CONVERT: dict[type, Callable[[Any, _Same], Json]] = {
    bytes: _binary,
    float: _number,
    list: _array,
    msgpack.Timestamp: _date,
    str: _text,
    tuple: _map,
}


def from_json(value: Json) -> Any:
    """Undo the mapping on what a JSON reader made of a record's `data`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not _looks_wrapped(value):
        return {key: from_json(item) for key, item in value.items()}
    ((kind, held),) = value.items()
    return _UNWRAP[kind](held)


def _parse_date(text: str) -> msgpack.Timestamp:
    moment = datetime.fromisoformat(text[:19] + "+00:00")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return msgpack.Timestamp(seconds, int(text[20:29]) if len(text) > 20 else 0)


def _parse_ext(held: Json) -> msgpack.ExtType | msgpack.Timestamp:
    code, data = held[0], b64decode(held[1])
    if code == _TIMESTAMP_EXT:
        return msgpack.Timestamp.from_bytes(data)
    return make_ext(code, data)


def _parse_map(held: Json) -> Pairs:
    return Pairs((from_json(key), from_json(value)) for key, value in held)


_UNWRAP: dict[str, Callable[[Json], Any]] = {
    "$binary": b64decode,
    "$number": _NUMBERS.__getitem__,
    "$date": _parse_date,
    "$ext": _parse_ext,
    "$map": _parse_map,
}
