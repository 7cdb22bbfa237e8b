"""The msgpack dialect: objects in, records out."""

import math
import sys
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.framing import NO_FRAMES
from ingest.wire.ingest1.messages import MAX_HANDSHAKE, Auth, Response
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.mapping import MAX_DEPTH, from_json
from ingest.wire.msgpack_decoder import make_objects
from tests.wire.streams import (
    Read,
    block_of,
    bytewise,
    check,
    check_refused,
    cut,
    cuts,
    msgpack_dialect,
    read,
)
from tests.wire.values import as_json, pack, plain, values, without_text_that_is_no_text

TRAILING = (b"\xa4la", b"st", b'"data":"last"')
LIMIT = 16
NAN = b"\xcb\x7f\xf8\0\0\0\0\0\0"
CAREFUL = b"\xc4\x01x"
"""A frame that plain JSON can't hold: the whole read takes the careful path."""
CAREFUL_FIELD = b'"data":{"$binary":"eA=="}'


def limited() -> MsgpackDialect:
    return msgpack_dialect(LIMIT)


@pytest.mark.parametrize(
    ("stream", "fields"),
    [
        (b"", []),
        (b"\x81\xa4temp\xcb\x40\x34\x80\0\0\0\0\0", [b'"data":{"temp":20.5}']),
        (b"\x01\x02\x03", [b'"data":1', b'"data":2', b'"data":3']),
        (b"\xc0", []),
        (b"\xc0\xc0\xc0", []),
        (b"\x01\xc0\xc0\x02", [b'"data":1', b'"data":2']),
        (b"\xc0" + CAREFUL + b"\xc0\xc0\x01", [CAREFUL_FIELD, b'"data":1']),
        (b"\x91\xc0", [b'"data":[null]']),
        (b"\x81\xa1a\xc0", [b'"data":{"a":null}']),
        (b"\x80\x90\xa0", [b'"data":{}', b'"data":[]', b'"data":""']),
        (b"\xc2\xc3", [b'"data":false', b'"data":true']),
        (b"\xd3\x80\0\0\0\0\0\0\0", [b'"data":-9223372036854775808']),
        (b"\xcf" + b"\xff" * 8, [b'"data":18446744073709551615']),
        (b"\xcb\x80\0\0\0\0\0\0\0", [b'"data":-0.0']),
        (b"\xca\x41\xa4\0\0", [b'"data":20.5']),
        (NAN, [b'"data":{"$number":"NaN"}']),
        (b"\xcb\xff\xf8\0\0\0\0\0\0", [b'"data":{"$number":"NaN"}']),
        (b"\xcb\x7f\xf0\0\0\0\0\0\x01", [b'"data":{"$number":"NaN"}']),
        (b"\xcb\x7f\xf0\0\0\0\0\0\0", [b'"data":{"$number":"Infinity"}']),
        (b"\xca\x7f\x80\0\0", [b'"data":{"$number":"Infinity"}']),
        (b"\xca\xff\x80\0\0", [b'"data":{"$number":"-Infinity"}']),
        (b"\xca\xff\xc0\0\0", [b'"data":{"$number":"NaN"}']),
        (b"\x92\xc0" + NAN, [b'"data":[null,{"$number":"NaN"}]']),
        (b"\xcb\x7f\xef" + b"\xff" * 6, [b'"data":' + orjson.dumps(sys.float_info.max)]),
        (b"\xc4\x03\xff\0\xfe", [b'"data":{"$binary":"/wD+"}']),
        (b"\xa2\xc3\x28", [b'"data":{"$binary":"wyg="}']),
        (b"\xa5" + "\u2028\0\n".encode(), [b'"data":"\\u2028\\u0000\\n"']),
        (b"\xa2\xc2\x9b\x01", [b'"data":"\\u009b"', b'"data":1']),
        (b"\x81\xa1\x7f\xa1\x7f", [b'"data":{"\\u007f":"\\u007f"}']),
        (b"\xd4\x05\x01", [b'"data":{"$ext":[5,"AQ=="]}']),
        (b"\xd4\xfe\x01", [b'"data":{"$ext":[-2,"AQ=="]}']),
        (b"\xd6\xff\0\0\0\x01", [b'"data":{"$date":"1970-01-01T00:00:01Z"}']),
        (b"\xc7\x0c\xff\0\0\0\x01" + b"\xff" * 8,
         [b'"data":{"$date":"1969-12-31T23:59:59.000000001Z"}']),
        (b"\x81\x01\x02", [b'"data":{"$map":[[1,2]]}']),
        (b"\x81\xc4\x01a\x02", [b'"data":{"$map":[[{"$binary":"YQ=="},2]]}']),
        (b"\x81\x90\x80", [b'"data":{"$map":[[[],{}]]}']),
        (b"\x81\xa2$a\x01", [b'"data":{"$map":[["$a",1]]}']),
        (b"\x91\x81\xa2$a\x01", [b'"data":[{"$map":[["$a",1]]}]']),
        (b"\x82\xa2$a\x01\xa1b\x02", [b'"data":{"$a":1,"b":2}']),
        (b'\xa3{"$', [b'"data":"{\\"$"']),
        (b"\x82\xa1a\x01\xa1a\x02", [b'"data":{"a":2}']),
        (b"\x82\xa1a\x01\xa1a\x02" + CAREFUL, [b'"data":{"a":2}', CAREFUL_FIELD]),
    ],
)  # fmt: skip
def test_records(stream: bytes, fields: list[bytes]) -> None:
    check(msgpack_dialect, stream, fields, trailing=TRAILING)


@pytest.mark.parametrize("before", [b"", b"\x01", b"\x01" + CAREFUL + b"\xc0"])
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\xc1", ErrorCode.BAD_FRAME),
        (b"\x92\x01\xc1", ErrorCode.BAD_FRAME),
        (b"\xd5\xff\0\0", ErrorCode.BAD_FRAME),  # a timestamp of 2 bytes
        (b"\xc7\0\xff", ErrorCode.BAD_FRAME),
        (b"\xd7\xff" + b"\xff" * 8, ErrorCode.BAD_FRAME),  # over 999,999,999 ns
        (b"\x91\xc7\x0c\xff" + b"\xff" * 12, ErrorCode.BAD_FRAME),
        (b"\x91" * (MAX_DEPTH + 1) + b"\x01", ErrorCode.BAD_FRAME),
        (b"\x91" * MAX_DEPTH + b"\x90", ErrorCode.BAD_FRAME),
        (b"\x81\xa1a" * (MAX_DEPTH + 1) + b"\x01", ErrorCode.BAD_FRAME),
        (b"\x81\x80" * (MAX_DEPTH + 1) + b"\x01", ErrorCode.BAD_FRAME),
        (b"\x91" * 10_000, ErrorCode.BAD_FRAME),
        (b"\x91" * 10_000 + b"\x01", ErrorCode.BAD_FRAME),
        (b"\xc6" + b"\xff" * 4, ErrorCode.FRAME_TOO_LONG),
        (b"\xdb" + b"\xff" * 4 + b"x", ErrorCode.FRAME_TOO_LONG),
        (b"\xdd" + b"\xff" * 4, ErrorCode.FRAME_TOO_LONG),
        (b"\xdf\x80\0\0\0", ErrorCode.FRAME_TOO_LONG),
        (b"\x91" * 60 + b"\xdd" + b"\xff" * 4, ErrorCode.FRAME_TOO_LONG),
    ],
)
def test_a_bad_frame_ends_it_and_the_frames_before_are_kept(
    before: bytes, bad: bytes, code: ErrorCode
) -> None:
    kept = [b'"data":1', CAREFUL_FIELD][: min(len(before), 2)]
    check_refused(msgpack_dialect, before + bad, kept, code)


def test_nesting_up_to_the_limit() -> None:
    stream = b"\x91" * (MAX_DEPTH - 1) + b"\x90"
    field = b'"data":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    check(msgpack_dialect, stream, [field], trailing=TRAILING)
    check(msgpack_dialect, stream + CAREFUL, [field, CAREFUL_FIELD], trailing=TRAILING)
    shallow = b"\x92\x90\x90" * 100
    check(msgpack_dialect, shallow, [b'"data":[[],[]]'] * 100, trailing=TRAILING)


@pytest.mark.parametrize("wide", [b"\xdc\x13\x88" + b"\x01" * 5000, b"\x90" * 5000])
def test_many_items_in_one_object_and_many_objects_in_one_read(wide: bytes) -> None:
    fields = [b'"data":' + orjson.dumps([1] * 5000)] if wide[0] == 0xDC else [b'"data":[]'] * 5000
    check(msgpack_dialect, wide, fields, trailing=TRAILING)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xaf" + b"x" * 15,
        b"\xc4\x0e" + b"x" * 14,
        b"\x9f" + b"\x01" * 15,
        b"\x91\xae" + b"x" * 14,
        b"\x97\xcf" + b"\0" * 8 + b"\x01" * 6,  # much shorter as JSON
        b"\xdd\0\0\0\x03\xdd\0\0\0\0" + b"\xdb\0\0\0\0\x90",
    ],
)
def test_the_limit_is_the_size_of_one_frame(frame: bytes) -> None:
    assert len(frame) == LIMIT
    fields = read(msgpack_dialect(), [frame]).block.partition(b'"seq":98,')[2][:-2]
    check(limited, frame * 3, [fields] * 3, trailing=TRAILING)
    check_refused(lambda: msgpack_dialect(LIMIT - 1), b"\x01" + frame, [b'"data":1'],
                  ErrorCode.FRAME_TOO_LONG)  # fmt: skip


def test_the_end_of_the_stream_within_an_object_is_a_bad_frame() -> None:
    assert read(msgpack_dialect(), [b"\x01"], closed=True) == Read(block_of([b'"data":1']), 1)
    records = read(msgpack_dialect(), [b"\x01\x92\x01"], closed=True)
    assert records[:2] == (block_of([b'"data":1']), 1)
    assert records.error is not None
    assert records.error.code is ErrorCode.BAD_FRAME


def field_of(value: Any) -> bytes:
    """Write what the record of one frame has, alone in its read."""
    return read(msgpack_dialect(), [pack(value)]).block.partition(b'"seq":98,')[2][:-2]


def is_frame(value: Any) -> bool:
    return value is not None


_STREAMS = st.lists(values, max_size=6)


@given(_STREAMS, cuts)
def test_any_split_of_any_stream_gives_the_same_records(
    objects: list[Any], places: list[int]
) -> None:
    stream = b"".join(map(pack, objects))
    fields = list(map(field_of, filter(is_frame, objects)))
    assert read(msgpack_dialect(), cut(stream, places)) == Read(block_of(fields), len(fields))


@given(st.binary(max_size=60), cuts)
def test_any_split_of_noise_gives_the_same_records(noise: bytes, places: list[int]) -> None:
    whole = read(msgpack_dialect(40), [noise])
    split = read(msgpack_dialect(40), cut(noise, places))
    assert split[:2] == whole[:2]
    assert (split.error and split.error.code) == (whole.error and whole.error.code)


@given(values.filter(is_frame))
def test_value_to_record_to_value_is_the_identity(value: Any) -> None:
    record = orjson.loads(read(msgpack_dialect(), [pack(value)]).block)
    assert list(record) == ["time", "device", "seq", "data"]
    assert pack(from_json(record["data"])) == pack(without_text_that_is_no_text(value))


@given(st.lists(plain.filter(is_frame), min_size=1, max_size=5))
def test_both_paths_write_plain_values_alike(objects: list[Any]) -> None:
    stream = b"".join(map(pack, objects))
    fields = [b'"data":' + as_json(value) for value in objects]
    assert make_objects(len(objects), stream) == objects
    assert read(msgpack_dialect(), [stream]).block == block_of(fields)
    assert read(msgpack_dialect(), [stream + CAREFUL]).block == block_of([*fields, CAREFUL_FIELD])


def test_one_connection_leaves_nothing_for_the_next() -> None:
    one, other = msgpack_dialect(), msgpack_dialect()
    assert one.cut(b"\x92\x01") == NO_FRAMES
    assert other.cut(b"\x93\x01\x02") == NO_FRAMES
    assert one.cut(b"\xc1").error is not None
    assert read(other, [b"\x03\x04"]).block == block_of([b'"data":[1,2,3]', b'"data":4'])


def read_auth(pieces: list[bytes]) -> Auth | None:
    dialect = msgpack_dialect()
    return [dialect.auth(piece) for piece in pieces][-1]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"auth": "PLAIN", "data": b"\0a\0b"}, Auth("PLAIN", b"\0a\0b")),
        ({"data": "\0a\0b", "auth": "PLAIN"}, Auth("PLAIN", b"\0a\0b")),
        ({"auth": "PLAIN", "data": "\udcff"}, Auth("PLAIN", b"\xff")),
        ({"auth": "PLAIN", "data": b"", "ack": "none"}, Auth("PLAIN", b"", wants_acks=False)),
        ({"auth": "PLAIN", "data": b"", "ack": "durable"}, Auth("PLAIN", b"")),
        ({"auth": "SCRAM-SHA-256"}, Auth("SCRAM-SHA-256", b"")),
    ],
)
def test_auth(message: dict[str, object], expected: Auth) -> None:
    stream = pack(message)
    assert read_auth([stream]) == expected
    assert read_auth(bytewise(stream)) == expected
    dialect = msgpack_dialect()
    assert dialect.auth(stream + b"\x01\x92") == expected
    assert dialect.unread() == b"\x01\x92"
    assert dialect.unread() == b""


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (pack({"temp": 20.5}), ErrorCode.AUTH_REQUIRED),
        (pack({}), ErrorCode.AUTH_REQUIRED),
        (pack([1, 2]), ErrorCode.AUTH_REQUIRED),
        (pack({"auth": 1, "data": b""}), ErrorCode.BAD_FRAME),
        (pack({"auth": "PLAIN", "data": 1}), ErrorCode.BAD_FRAME),
        (pack({"auth": "PLAIN", "data": None}), ErrorCode.BAD_FRAME),
        (pack({"auth": "PLAIN", "data": b"", "ack": "later"}), ErrorCode.BAD_FRAME),
        (pack({"auth": "PLAIN", "data": b"", "ack": []}), ErrorCode.BAD_FRAME),
        (pack({"auth": "PLAIN", "data": b"", "colour": "red"}), ErrorCode.BAD_FRAME),
        (b"\x81\x90\x01", ErrorCode.BAD_FRAME),  # a key that no map of Python can have
        (b"\x81\xa4auth\xc1", ErrorCode.BAD_FRAME),
        (b"\x81\xa4auth\xd5\xff\0\0", ErrorCode.BAD_FRAME),
        (b"\x91" * (MAX_DEPTH + 1), ErrorCode.BAD_FRAME),
        (b"\x81\xdb" + b"\xff" * 4, ErrorCode.FRAME_TOO_LONG),
        (b"\xdf" + b"\xff" * 4, ErrorCode.FRAME_TOO_LONG),
    ],
)
def test_a_bad_first_object(message: bytes, code: ErrorCode) -> None:
    for pieces in ([message], bytewise(message), [message + b"\x01"]):
        with pytest.raises(PeerError) as caught:
            read_auth(pieces)
        assert caught.value.code is code


def test_the_first_object_may_have_as_many_bytes_as_the_limit() -> None:
    message = pack({"auth": "PLAIN", "data": b""})
    fill = MAX_HANDSHAKE - len(message) - 1  # bin 16 has one byte of length more than bin 8
    auth = read_auth([pack({"auth": "PLAIN", "data": b"x" * fill})])
    assert auth is not None
    assert len(auth.data) == fill
    with pytest.raises(PeerError) as caught:
        read_auth([pack({"auth": "PLAIN", "data": b"x" * (fill + 1)})])
    assert caught.value.code is ErrorCode.FRAME_TOO_LONG


def test_response() -> None:
    dialect = msgpack_dialect()
    stream = pack({"data": b"abc"})
    assert dialect.response(stream[:5]) is None
    assert dialect.response(stream[5:] + b"\x01") == Response(b"abc")
    assert dialect.unread() == b"\x01"
    for bad in ({}, {"data": 1}, [b"abc"], 1):
        with pytest.raises(PeerError) as caught:
            msgpack_dialect().response(pack(bad))
        assert caught.value.code is ErrorCode.BAD_FRAME


def test_messages_of_the_server() -> None:
    dialect = msgpack_dialect()
    ok = {"device": "d", "next": 43, "max_frame": 65536, "time": "T"}
    grant = Grant(43, b"T")
    assert msgpack.unpackb(dialect.ok("d", grant, 65536, None)) == {"ok": ok}
    assert msgpack.unpackb(dialect.ok("d", grant, 65536, b"v")) == {"ok": {**ok, "data": b"v"}}
    assert dialect.challenge(b"r=x") == b"\x81\xa9challenge\xc4\x03r=x"
    assert dialect.ack(42) == b"\x81\xa3ack\x2a"
    error = PeerError(ErrorCode.REVOKED, "the device was disabled")
    assert dialect.error(error) == pack({"err": "revoked", "text": "the device was disabled"})


def test_not_a_number_is_nowhere_written_as_null() -> None:
    for value in (math.nan, [math.inf], {"a": -math.inf}):
        assert b"null" not in read(msgpack_dialect(), [pack(value)]).block
