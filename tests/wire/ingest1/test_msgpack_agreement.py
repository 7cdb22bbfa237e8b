"""All ways through the msgpack dialect agree: with one another, and with PROTOCOL.md.

The reference below is written from the format's specification and PROTOCOL.md alone, one byte after
the other. It says what a stream means; the dialect, however the stream is cut, says the same.
"""

import math
import struct
from base64 import b64encode
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.record import printable
from ingest.wire.errors import ErrorCode
from ingest.wire.mapping import encode
from tests.wire.streams import block_of, bytewise, cut, msgpack_dialect, read
from tests.wire.values import as_json, pack, values

DEPTH = 64


class Map(list[tuple[Any, Any]]):
    """The pairs of a map."""


class Ext(NamedTuple):
    """An extension."""

    code: int
    data: bytes


class Partial(Exception):  # noqa: N818
    """The stream ends within the object."""


class Refused(Exception):  # noqa: N818
    """The object breaks a rule."""


class Reference:
    """Reads objects, and writes them as JSON, the plain way."""

    def __init__(self, stream: bytes, limit: int) -> None:
        self.stream = stream
        self.limit = limit
        self.start = self.at = 0

    def fields(self) -> tuple[list[bytes], ErrorCode | None]:
        """Return what the records have, and the error that ends them."""
        fields: list[bytes] = []
        try:
            while self.at < len(self.stream):
                self.start = self.at
                value = self.value(0)
                if value is not None:
                    fields.append(b'"data":' + as_json(self.json(value)))
        except Partial:
            pass
        except Refused as refused:
            return fields, refused.args[0]
        return fields, None

    def take(self, count: int, items: int = 0) -> bytes:
        """Take bytes, behind which so many items are announced."""
        end = self.at + count
        if end + items - self.start > self.limit:
            raise Refused(ErrorCode.FRAME_TOO_LONG)
        if end > len(self.stream):
            raise Partial
        taken, self.at = self.stream[self.at : end], end
        return taken

    def number(self, width: int) -> int:
        """Take a length; while it is not there, nothing is known of it."""
        if self.at + width > len(self.stream):
            raise Partial
        self.at += width
        return int.from_bytes(self.stream[self.at - width : self.at], "big")

    def value(self, depth: int) -> Any:
        if self.at == len(self.stream):
            raise Partial
        first = self.stream[self.at]
        self.at += 1
        if first <= 0x7F or first >= 0xE0:
            self.take(0)
            return first if first <= 0x7F else first - 0x100
        if first <= 0x8F:
            return self.map(first & 0x0F, depth)
        if first <= 0x9F:
            return self.array(first & 0x0F, depth)
        if first <= 0xBF:
            return self.text(first & 0x1F)
        return self.other(first, depth)

    def other(self, first: int, depth: int) -> Any:
        match first:
            case 0xC1:
                raise Refused(ErrorCode.BAD_FRAME)
            case 0xC0 | 0xC2 | 0xC3:
                self.take(0)
                return {0xC0: None, 0xC2: False, 0xC3: True}[first]
            case 0xC4 | 0xC5 | 0xC6:
                return self.take(self.number(1 << first - 0xC4))
            case 0xC7 | 0xC8 | 0xC9:
                return self.ext(self.number(1 << first - 0xC7))
            case 0xD9 | 0xDA | 0xDB:
                return self.text(self.number(1 << first - 0xD9))
            case 0xDC | 0xDD:
                return self.array(self.number(2 << first - 0xDC), depth)
            case 0xDE | 0xDF:
                return self.map(self.number(2 << first - 0xDE), depth)
            case _ if 0xD4 <= first <= 0xD8:
                return self.ext(1 << first - 0xD4)
        form = {0xCA: ">f", 0xCB: ">d"} | dict(
            zip(range(0xCC, 0xD4), (">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True)
        )
        (number,) = struct.unpack(form[first], self.take(struct.calcsize(form[first])))
        return number

    def text(self, size: int) -> str | bytes:
        raw = self.take(size)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    def ext(self, size: int) -> Ext:
        raw = self.take(1 + size)
        return Ext(int.from_bytes(raw[:1], "big", signed=True), raw[1:])

    def array(self, count: int, depth: int) -> list[Any]:
        self.open(count, depth)
        return [self.value(depth + 1) for _ in range(count)]

    def map(self, count: int, depth: int) -> Map:
        self.open(2 * count, depth)
        return Map((self.value(depth + 1), self.value(depth + 1)) for _ in range(count))

    def open(self, items: int, depth: int) -> None:
        self.take(0, items)
        if depth >= DEPTH:
            raise Refused(ErrorCode.BAD_FRAME)

    def json(self, value: Any) -> Any:
        match value:
            case bytes():
                return {"$binary": b64encode(value).decode()}
            case float() if not math.isfinite(value):
                text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
                return {"$number": text}
            case Ext(-1, data):
                return self.date(data)
            case Ext(code, data):
                return {"$ext": [code, b64encode(data).decode()]}
            case Map():
                return self.json_map(value)
            case list():
                return [self.json(item) for item in value]
        return value

    def json_map(self, pairs: Map) -> Any:
        is_object = all(isinstance(key, str) for key, _ in pairs)
        keys = {key for key, _ in pairs} if is_object else set()
        if is_object and not (len(keys) == 1 and keys.pop().startswith("$")):
            # What a later pair replaces is no part of the record, but must be in order.
            return {key: self.json(item) for key, item in pairs}
        return {"$map": [[self.json(key), self.json(item)] for key, item in pairs]}

    def date(self, data: bytes) -> Any:
        nanoseconds, seconds = 0, 0
        match len(data):
            case 4:
                seconds = int.from_bytes(data, "big")
            case 8:
                nanoseconds, seconds = divmod(int.from_bytes(data, "big"), 1 << 34)
            case 12:
                nanoseconds, seconds = struct.unpack(">Iq", data)
        if len(data) not in (4, 8, 12) or nanoseconds > 999_999_999:
            raise Refused(ErrorCode.BAD_FRAME)
        try:
            moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
        except OverflowError:
            return {"$ext": [-1, b64encode(data).decode()]}
        fraction = f".{nanoseconds:09d}" if nanoseconds else ""
        return {"$date": moment.isoformat() + fraction + "Z"}


def agree(stream: bytes, limit: int, places: list[int]) -> None:
    """Check that all ways through the dialect do what the reference does."""
    fields, code = Reference(stream, limit).fields()
    for pieces in ([stream], cut(stream, places), bytewise(stream[:600])):
        if len(b"".join(pieces)) != len(stream) or not stream:
            continue
        records = read(msgpack_dialect(limit), pieces)
        assert (records.error and records.error.code, records.frames) == (code, len(fields))
        assert records.block == block_of(fields)


EQUAL_KEYS = b"\x82\xa1a%b\xa1a\x01"
"""A map whose first value counts for nothing."""
_TOKENS = [
    b"\x01", b"\xc0", b"\xa0", b"\x90", b"\x80", b"\x91", b"\x92", b"\x81", b"\x82", b"\x93",
    b"\x81\xa1k", b"\x81\xa1$", b"\x81\x01", b"\xa1k", b"\xa2$a", b"\xa1\xff", b"\xa2\xc2\x9b",
    b"\xc4\x01x", b"\xc4\0", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xca\xff\x80\0\0", b"\xca\x41\xa4\0\0",
    b"\xd4\x05\x01", b"\xd6\xff\0\0\0\x01", b"\xd5\xff\0\0", b"\xd7\xff" + b"\xff" * 8,
    b"\xdc\0\x05", b"\xdd\0\0\0\x03", b"\xde\0\x02", b"\xdf\0\0\0\x01", b"\xd9\x02ab", b"\xc1",
    b"\xda\x01\0", b"\xdd\xff\xff\xff\xff", b"\xdb\0\x01", b"\xc9\xff\xff\xff\xff",
    b"\xc8\xff\xff", b"\xff\xff", b"\xcf" + b"\xff" * 8, b"},{", b"\x7f",
    b"\xdc\x0b\xb8", b"\xdd\0\0", b"\xc7\0\xff", b"\xa3],[", b"\xa3\",\"",
]  # fmt: skip
_runs = st.tuples(st.sampled_from(_TOKENS), st.sampled_from([1, 1, 1, 1, 1, 1, 2, 30, 64, 65, 300]))
soups = st.lists(_runs, max_size=8).map(lambda runs: b"".join(one * many for one, many in runs))
equal_keys = st.tuples(st.integers(1, 66), st.sampled_from([b"\x91", b"\x81\xa1k"])).map(
    lambda deep: EQUAL_KEYS % (deep[1] * deep[0] + b"\xc0")
)
_structured = st.lists(st.one_of(values.map(pack), equal_keys), max_size=8).map(b"".join)
_repeated = st.tuples(_structured, st.sampled_from([1, 40]), values.map(pack)).map(
    lambda parts: parts[0] * parts[1] + parts[2] + parts[0]
)
mutations = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(-1, 255)), max_size=3)
limits = st.sampled_from([16, 40, 64, 66, 130, 1000, 3000, 65536])
cuts = st.lists(st.integers(0, 100_000), max_size=12)


def mutate(stream: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Replace some bytes; -1 leaves one out."""
    for place, byte in changes:
        if stream:
            at = place % len(stream)
            stream = stream[:at] + (bytes([byte]) if byte >= 0 else b"") + stream[at + 1 :]
    return stream


@given(soups, limits, cuts)
@example(EQUAL_KEYS % (b"\x91" * 64 + b"\xc0"), 65536, [])  # too deep, and then replaced
@example(b"\x01" * 3000 + EQUAL_KEYS % (b"\x91" * 64 + b"\xc0") + b"\x01" * 3000, 65536, [])
@example(EQUAL_KEYS % (b"\xd9\x40" + b"x" * 64), 64, [])  # too long, and then replaced
@example(EQUAL_KEYS % b"\xd5\xff\0\0", 65536, [])  # no timestamp, and then replaced
@example(b"\x81\xa1$" * 64 + b"\xc0", 65536, [])
def test_soups_of_tokens(stream: bytes, limit: int, places: list[int]) -> None:
    agree(stream, limit, places)


@given(_structured, mutations, limits, cuts)
def test_objects_and_what_becomes_of_them(
    stream: bytes, changes: list[tuple[int, int]], limit: int, places: list[int]
) -> None:
    agree(mutate(stream, changes), limit, places)


@given(_repeated, mutations, limits, cuts)
@settings(max_examples=40)
def test_many_objects_and_one_among_them(
    stream: bytes, changes: list[tuple[int, int]], limit: int, places: list[int]
) -> None:
    agree(mutate(stream, changes), limit, places)


@given(st.binary(max_size=200), limits, cuts)
def test_noise(stream: bytes, limit: int, places: list[int]) -> None:
    agree(stream, limit, places)


@given(st.one_of(values.map(pack), equal_keys.filter(lambda packed: len(packed) < 60)))
def test_the_mapping_writes_what_the_reference_writes(packed: bytes) -> None:
    """The way of one object that plain JSON can't hold, for all objects."""
    reference = Reference(packed, 1 << 20)
    assert printable(encode(packed)) == as_json(reference.json(reference.value(0)))


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\x81\xa1$", b"\x81\x01", b"\x92\x90"])
@pytest.mark.parametrize("item", [b"\xc0", b"\xc4\0", b"\xa1\xff"])
@pytest.mark.parametrize("depth", [1, 62, 63, 64, 65])
def test_depth(opening: bytes, item: bytes, depth: int) -> None:
    stream = opening * depth + item
    agree(b"\x01" * 70 + stream + b"\x02" * 70, 65536, [80])
    agree(b"\x82\x01" + stream + stream, 65536, [100])
