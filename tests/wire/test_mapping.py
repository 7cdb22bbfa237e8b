"""msgpack to JSON and back, losing nothing."""

import math
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given

from ingest.wire.mapping import MAX_DEPTH, Pairs, decode, encode, from_json, make_ext
from tests.wire.values import pack, plain, values, without_text_that_is_no_text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"null"),
        (True, b"true"),
        (-(2**63), b"-9223372036854775808"),
        (2**64 - 1, b"18446744073709551615"),
        (20.5, b"20.5"),
        (-0.0, b"-0.0"),
        ("20 °C\n", '"20 °C\\n"'.encode()),
        ([1, [2]], b"[1,[2]]"),
        (Pairs([("a", 1), ("b", Pairs())]), b'{"a":1,"b":{}}'),
        (b"\xff\x00\xfe", b'{"$binary":"/wD+"}'),
        (b"", b'{"$binary":""}'),
        ("\udcff", b'{"$binary":"/w=="}'),
        (math.nan, b'{"$number":"NaN"}'),
        (math.inf, b'{"$number":"Infinity"}'),
        (-math.inf, b'{"$number":"-Infinity"}'),
        (msgpack.Timestamp(1_795_347_540), b'{"$date":"2026-11-22T11:39:00Z"}'),
        (msgpack.Timestamp(0, 1), b'{"$date":"1970-01-01T00:00:00.000000001Z"}'),
        (msgpack.Timestamp(-1, 500_000_000), b'{"$date":"1969-12-31T23:59:59.500000000Z"}'),
        (msgpack.Timestamp(-62_135_596_800), b'{"$date":"0001-01-01T00:00:00Z"}'),
        (msgpack.Timestamp(253_402_300_799), b'{"$date":"9999-12-31T23:59:59Z"}'),
        (msgpack.Timestamp(253_402_300_800), b'{"$ext":[-1,"AAAAAAAAADr/9EGA"]}'),
        (make_ext(5, b"\x01"), b'{"$ext":[5,"AQ=="]}'),
        (make_ext(-128, b""), b'{"$ext":[-128,""]}'),
        (Pairs([(1, "a")]), b'{"$map":[[1,"a"]]}'),
        (Pairs([("a", 1), (None, 2), ("a", 3)]), b'{"$map":[["a",1],[null,2],["a",3]]}'),
        (Pairs([([1], b"")]), b'{"$map":[[[1],{"$binary":""}]]}'),
        (Pairs([("\udcff", 1)]), b'{"$map":[[{"$binary":"/w=="},1]]}'),
        (Pairs([("$date", "x")]), b'{"$map":[["$date","x"]]}'),
        (Pairs([("$", 1)]), b'{"$map":[["$",1]]}'),
        (Pairs([("$a", 1), ("$a", 2)]), b'{"$map":[["$a",1],["$a",2]]}'),
        (Pairs([("$a", 1), ("b", 2)]), b'{"$a":1,"b":2}'),
        (Pairs([("a", 1), ("b", 2), ("a", 3)]), b'{"a":3,"b":2}'),  # as JSON readers have it
    ],
)
def test_table(value: object, written: bytes) -> None:
    assert encode(pack(value)) == written


@given(values)
def test_there_and_back_is_the_same_value(value: Any) -> None:
    written = encode(pack(value))
    assert b"\n" not in written
    assert pack(decode(written)) == pack(without_text_that_is_no_text(value))


@given(plain)
def test_a_plain_value_is_its_own_json(value: Any) -> None:
    assert encode(pack(value)) == orjson.dumps(value)
    assert decode(orjson.dumps(value)) == value


def test_maps_come_back_as_dicts_where_json_can_hold_them() -> None:
    assert decode(b'{"a":{"b":[{"$binary":"AA=="}]}}') == {"a": {"b": [b"\0"]}}
    assert decode('{"$map":[[1,{"a":2}],[1,3]]}') == Pairs([(1, {"a": 2}), (1, 3)])


def test_the_data_of_a_parsed_record_is_mapped_back() -> None:
    record = orjson.loads(b'{"seq":1,"data":[{"$date":"1970-01-01T00:00:01Z"}]}')
    assert from_json(record["data"]) == [msgpack.Timestamp(1)]


def test_the_deepest_frame_of_the_widest_form() -> None:
    """`$map` takes three levels of JSON for one of msgpack; a writer's limit is 254."""
    value: Any = make_ext(1, b"x")
    for _ in range(MAX_DEPTH):
        value = Pairs([(0, value)])
    assert pack(decode(encode(pack(value)))) == pack(value)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        decode(b"{")
