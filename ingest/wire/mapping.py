"""msgpack to JSON and back, losing nothing: the table of PROTOCOL.md, "The record".

The fast path never comes here: what plain JSON can hold, `orjson` writes at once. This is
the way of everything else, one value at a time.
"""

import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgpack
import orjson

MAX_DEPTH = 64
"""How deep a frame may nest: JSON readers in the field stop between 100 and 1,000."""

Json: TypeAlias = Any
"""What `orjson` reads and writes: None, bool, int, float, str, list, dict."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TIMESTAMP_EXT = -1


class Pairs(list[tuple[Any, Any]]):
    """A msgpack map as it came: its pairs in order, keys of any type, equal keys kept apart."""


def make_ext(code: int, data: bytes) -> msgpack.ExtType:
    """Make an extension of any type from -128 to 127; its class refuses those below 0."""
    return msgpack.ExtType._make((code, data))


def encode(value: object) -> bytes:
    """Write one msgpack value, maps as `Pairs`, as JSON.

    Args:
        value: what `msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", timestamp=0,
            object_pairs_hook=Pairs, ext_hook=make_ext)` makes, nested at most `MAX_DEPTH` deep.
    """
    return orjson.dumps(_to_json(value))


def decode(line: bytes | str) -> Any:
    """Read what `encode` wrote: the msgpack value, maps as `dict`, or as `Pairs` for `$map`.

    Raises:
        orjson.JSONDecodeError: `line` is not JSON.
    """
    return from_json(orjson.loads(line))


def _to_json(value: object) -> Json:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value if _is_utf8(value) else _binary(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$number": _number_name(value)}
    if isinstance(value, bytes):
        return _binary(value)
    if isinstance(value, Pairs):
        return _map(value)
    if isinstance(value, msgpack.Timestamp):
        return _date(value)
    if isinstance(value, msgpack.ExtType):
        return _ext(value.code, value.data)
    assert isinstance(value, list), type(value)
    return [_to_json(item) for item in value]


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _binary(data: bytes) -> Json:
    return {"$binary": b64encode(data).decode()}


def _number_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _ext(code: int, data: bytes) -> Json:
    return {"$ext": [code, b64encode(data).decode()]}


def _map(pairs: Pairs) -> Json:
    if all(isinstance(key, str) and _is_utf8(key) for key, _ in pairs):
        # Of equal keys the last counts, as in the decoder of the fast path and in JSON readers.
        plain = {key: _to_json(value) for key, value in pairs}
        if not _looks_wrapped(plain):
            return plain
    return {"$map": [[_to_json(key), _to_json(value)] for key, value in pairs]}


def _looks_wrapped(plain: dict[str, Json]) -> bool:
    return len(plain) == 1 and next(iter(plain)).startswith("$")


def _date(stamp: msgpack.Timestamp) -> Json:
    try:
        moment = _EPOCH + timedelta(seconds=stamp.seconds)
    except OverflowError:  # outside the years 1 to 9999, which RFC 3339 can't write
        return _ext(_TIMESTAMP_EXT, stamp.to_bytes())
    fraction = f".{stamp.nanoseconds:09d}" if stamp.nanoseconds else ""
    return {"$date": f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + fraction + "Z"}


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
