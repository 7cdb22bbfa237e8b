"""msgpack values of every kind, and how they look on the wire."""

import math
from typing import Any

import msgpack
import orjson
from hypothesis import strategies as st

from ingest.wire.mapping import Pairs, make_ext

STEERING = [
    *range(0x7F, 0xA0),
    0x61C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
]
"""Characters that steer a terminal, and that JSON need not escape."""

_ESCAPES = {code: f"\\u{code:04x}" for code in STEERING}
_PACKER = msgpack.Packer(autoreset=True)


def pack(value: Any) -> bytes:
    """Write a value as msgpack; a str with escaped bytes as a str that is not UTF-8."""
    packed: bytes
    if isinstance(value, Pairs | dict):
        pairs = list(value.items() if isinstance(value, dict) else value)
        packed = _PACKER.pack_map_header(len(pairs))
        return packed + b"".join(pack(key) + pack(item) for key, item in pairs)
    if isinstance(value, list):
        packed = _PACKER.pack_array_header(len(value))
        return packed + b"".join(map(pack, value))
    packed = msgpack.packb(value, unicode_errors="surrogateescape")
    return packed


def as_json(value: Any) -> bytes:
    """Write plain JSON as records hold it."""
    return orjson.dumps(value).decode().translate(_ESCAPES).encode()


def without_text_that_is_no_text(value: Any) -> Any:
    """Turn each str that is not UTF-8 into bin: the one thing that the mapping makes equal."""
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        return value if raw.decode("utf-8", "replace") == value else raw
    if isinstance(value, list | Pairs):
        return type(value)(map(without_text_that_is_no_text, value))
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(without_text_that_is_no_text, value))
    if isinstance(value, dict):
        return Pairs(map(without_text_that_is_no_text, value.items()))
    return value


integers = st.integers(-(2**63), 2**64 - 1)
numbers = st.one_of(
    integers, st.sampled_from([-(2**63), 2**63, 2**64 - 1, -1, 0]), st.floats(allow_nan=False),
    st.sampled_from([-0.0, 5e-324, 1e16, 1.7976931348623157e308, math.inf, -math.inf, math.nan]),
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "$", "$map", "\u2028", "\0", "\\", '{"$'])
)
broken_texts = st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
timestamps = st.builds(
    msgpack.Timestamp,
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.integers(-62_135_596_801, 253_402_300_800),  # the years 1 to 9999 and a second around
        st.sampled_from([0, -1, 2**32, 2**34, -62_135_596_800, 253_402_300_799]),
    ),
    st.one_of(st.just(0), st.integers(0, 999_999_999)),
)
exts = st.builds(make_ext, st.integers(-128, 127).filter(lambda code: code != -1), st.binary())
_plain_leaves = st.one_of(
    st.none(), st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False), texts
)
_leaves = st.one_of(_plain_leaves, numbers, st.binary(max_size=40), broken_texts, timestamps, exts)


def _containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(items, items), max_size=4)
    return st.one_of(
        st.lists(items, max_size=5),
        st.dictionaries(st.one_of(texts, broken_texts), items, max_size=4),
        # Equal keys are kept apart where a map has a key that is no str.
        pairs.map(lambda some: Pairs([*some, (1, None), (1, True)])),
    )


plain = st.recursive(
    _plain_leaves,
    lambda items: st.one_of(
        st.lists(items, max_size=5),
        st.dictionaries(texts.filter(lambda key: not key.startswith("$")), items, max_size=4),
    ),
    max_leaves=12,
)
"""What plain JSON can hold."""

values = st.recursive(_leaves, _containers, max_leaves=12)
"""What msgpack can hold."""
