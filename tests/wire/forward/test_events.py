"""The events of Fluent Forward, in all modes."""

import gzip
import math
from typing import Any

import msgpack
import orjson
import pytest
import zstandard

from ingest.record import KEYS, Values, parse, record_block
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.forward.compression import MAX_STREAMS
from ingest.wire.forward.events import END, EVENT_SIZE, MAX_TAG, read_message

LIMIT = 1 << 16
STAMP = msgpack.ExtType(0, (1_795_347_540).to_bytes(4, "big") + (123_456).to_bytes(4, "big"))
AT = "2026-11-22T11:39:00.000123456Z"
RECORDS: list[Any] = [{"log": "x", "n": 1}, {"log": "y", "n": {"a": [1, {}]}}, {}]


def pack(value: object, **options: Any) -> bytes:
    packed: bytes = msgpack.packb(value, **options)
    return packed


def packed(*records: Any, stamp: object = STAMP) -> bytes:
    return b"".join(pack([stamp, record]) for record in records)


def as_str(data: bytes) -> bytes:
    """Write bytes as a msgpack str, as Fluentd does."""
    return b"\xdb" + len(data).to_bytes(4, "big") + data


def records(message: bytes, start: int = 0) -> list[dict[str, Any]]:
    """Return the records of a message as a JSON reader has them."""
    items = list(read_message(message, LIMIT).items(start))
    if not items:
        return []
    block = record_block(b"2026-11-22T11:39:00.123456Z", b"d", 1, Values(b",", items, END))
    for line in block.splitlines():
        assert tuple(orjson.loads(line)) in KEYS
        parse(line)
    made: list[dict[str, Any]] = list(map(orjson.loads, block.splitlines()))
    return made


MODES = {
    "Message": lambda option: [
        pack(["a.b", STAMP, record, *option]) for record in RECORDS
    ],
    "Forward": lambda option: [pack(["a.b", [[STAMP, record] for record in RECORDS], *option])],
    "PackedForward": lambda option: [pack(["a.b", packed(*RECORDS), *option])],
    "PackedForward as str": lambda option: [
        bytes([0x92 + len(option)]) + pack("a.b") + as_str(packed(*RECORDS))
        + b"".join(map(pack, option))
    ],
    "gzip": lambda option: [
        pack(["a.b", gzip.compress(packed(*RECORDS)), {**dict(*option), "compressed": "gzip"}])
    ],
    "gzip, in two members": lambda option: [
        pack(["a.b", gzip.compress(packed(*RECORDS[:1])) + gzip.compress(packed(*RECORDS[1:])),
              {**dict(*option), "compressed": "gzip"}])
    ],
    "zstd": lambda option: [
        pack(["a.b", zstandard.compress(packed(*RECORDS)), {**dict(*option), "compressed": "zstd"}])
    ],
    "text": lambda option: [
        pack(["a.b", packed(*RECORDS), {**dict(*option), "compressed": "text"}])
    ],
}  # fmt: skip


@pytest.mark.parametrize("option", [[], [{"size": 3}], [{"size": 2}], [{"size": 4}], [{"x": 1}]])
@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str, option: list[Any]) -> None:
    found = [record for message in MODES[mode](option) for record in records(message)]
    assert [record["data"] for record in found] == RECORDS
    assert {record["event_time"] for record in found} == {AT}
    assert {record["tag"] for record in found} == {"a.b"}
    assert "chunk" not in found[0]


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_option_that_says_nothing(nothing: object) -> None:
    assert len(records(pack(["t", packed(*RECORDS), nothing]))) == 3


@pytest.mark.parametrize(
    ("chunk", "name"),
    [("p8n9gmxTQVC8/nh2wlKKeQ==", "p8n9gmxTQVC8/nh2wlKKeQ=="), (b"\xff\x00", "ff00"), ('"', '"'),
     ("", "")],
)  # fmt: skip
def test_the_place_in_a_chunk(chunk: object, name: str) -> None:
    message = pack(["t", packed(*RECORDS), {"chunk": chunk}])
    assert read_message(message, LIMIT).chunk == chunk
    assert [record["chunk"] for record in records(message)] == [f"{name}/{i}" for i in range(3)]
    assert [record["chunk"] for record in records(message, 2)] == [f"{name}/2"]


def test_a_chunk_of_many_events() -> None:
    events = b"".join(pack([5, {"n": number}]) for number in range(10_002))
    items = list(read_message(pack(["t", events, {"chunk": "c"}]), 1 << 20).items(9_999))
    assert [item.partition(b'"chunk":')[2].split(b",")[0] for item in items] == [
        b'"c/9999"', b'"c/10000"', b'"c/10001"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stamp", "time"),
    [
        (1_795_347_540, "2026-11-22T11:39:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (1.5, "1970-01-01T00:00:01.500000000Z"),
        (STAMP, AT),
        (msgpack.ExtType(0, bytes(8)), "1970-01-01T00:00:00.000000000Z"),
        ([STAMP, {}], AT),
        (msgpack.Timestamp(1_795_347_540, 5), "2026-11-22T11:39:00.000000005Z"),
        (1 << 32, "2106-02-07T06:28:16Z"),
        ([msgpack.ExtType(0, b"\xff\xff\xff\xff" + bytes(4)), {}], None),  # a mark of Fluent Bit
        ([msgpack.ExtType(0, b"\xff\xff\xff\xfe" + bytes(4)), {}], None),
        (1 << 60, None),
        (math.nan, None),
        (None, None),
        ("now", None),
        (True, None),
        (msgpack.ExtType(0, b"short"), None),
        (msgpack.ExtType(0, bytes(4) + b"\xff" * 4), None),
        (msgpack.ExtType(1, bytes(8)), None),
    ],
)
@pytest.mark.parametrize("others", [[], [{"x": b"\xff"}]], ids=["plain", "careful"])
def test_times(stamp: object, time: str | None, others: list[Any]) -> None:
    found = records(pack(["t", packed({"a": 1}, *others, stamp=stamp)]))
    assert {record.get("event_time") for record in found} == {time}
    assert found[0]["data"] == {"a": 1}


@pytest.mark.parametrize("metadata", [{"m": 1}, {"m": b"\xff"}, {1: 2}, {"$m": 1}])
def test_metadata_are_kept(metadata: dict[Any, Any]) -> None:
    (record,) = records(pack(["t", [[[STAMP, metadata], {"a": 1}]]]))
    (alone,) = records(pack(["t", packed(metadata)]))
    assert record["data"] == {"$record": {"a": 1}, "$metadata": alone["data"]}


@pytest.mark.parametrize("odd", [None, 0, 31, 32, 99])
def test_plain_events_beside_others(odd: int | None) -> None:
    """They are written as they are alone, with metadata or without."""
    kinds: list[Any] = [{}, {"m": 1}]
    events = [[[STAMP, kinds[number % 3 == 1]], {"n": number}] for number in range(100)]
    if odd is not None:
        events[odd] = [msgpack.ExtType(0, b"\xff" * 4 + bytes(4)), {"x": b"\xff"}]
    alone = [record for event in events for record in records(pack(["t", [event]]))]
    together = records(pack(["t", events]))
    keys = ("event_time", "data")
    assert [[record.get(key) for key in keys] for record in together] == [
        [record.get(key) for key in keys] for record in alone
    ]


@pytest.mark.parametrize(
    ("record", "data"),
    [
        ({"x": b"\xff"}, {"x": {"$binary": "/w=="}}),
        ({"x": math.inf}, {"x": {"$number": "Infinity"}}),
        ({"x": STAMP}, {"x": {"$ext": [0, "awLUVAAB4kA="]}}),
        ({"$binary": "x"}, {"$map": [["$binary", "x"]]}),
        ({1: 2}, {"$map": [[1, 2]]}),
        ("text", "text"),
        (None, None),
    ],
)
def test_what_plain_json_can_not_hold(record: object, data: object) -> None:
    found = records(pack(["t", packed({"a": 1}, record, {"b": 2})]))
    assert [record["data"] for record in found] == [{"a": 1}, data, {"b": 2}]


def test_metrics_and_traces_are_objects() -> None:
    (record,) = records(pack(["t", pack({"meta": 1}), {"fluent_signal": 1}]))
    assert "event_time" not in record and record["data"] == {"meta": 1}


def test_a_tag_that_steers_a_terminal_or_is_no_text() -> None:
    assert b'"tag":"\\u009b%"' in next(iter(read_message(pack(["\x9b%", 5, {}]), LIMIT).items(0)))
    assert records(pack([b"\xff", 5, {}]))[0]["tag"] == "ff"


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x01"


BAD = {
    "no array": pack({"a": 1}),
    "an empty array": pack([]),
    "one item": pack(["t"]),
    "five items": pack(["t", 1, {}, {}, {}]),
    "a tag that is none": pack([1, 1, {}]),
    "a time without a record": pack(["t", 1]),
    "an option that is none": pack(["t", 1, {}, 5]),
    "an entry that is none": pack(["t", [5]]),
    "an entry of three": pack(["t", [[1, {}, {}]]]),
    "an event that is none": pack(["t", pack(5)]),
    "events that end within one": pack(["t", packed({"a": 1})[:-1]]),
    "events with 0xc1": pack(["t", b"\xc1"]),
    "a record that nests too deep": pack(["t", b"\x92\x05" + nested(70)]),
    "one that nests deeper still": pack(["t", b"\x92\x05" + nested(2000)]),
    "a chunk that is none": pack(["t", packed({}), {"chunk": 5}]),
    "a chunk that is too long": pack(["t", packed({}), {"chunk": "x" * 257}]),
    "unknown compression": pack(["t", b"", {"compressed": "lz4"}]),
    "no gzip": pack(["t", b"xyz", {"compressed": "gzip"}]),
    "half a gzip": pack(["t", gzip.compress(bytes(100))[:-4], {"compressed": "gzip"}]),
    "no zstd": pack(["t", b"xyz", {"compressed": "zstd"}]),
    "a timestamp that is none": pack(["t", 5, {"x": msgpack.ExtType(5, b"")}]).replace(
        b"\xc7\x00\x05", b"\xc7\x00\xff"
    ),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_bad_messages(message: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        read_message(message, LIMIT)
    assert caught.value.code is ErrorCode.BAD_FRAME


@pytest.mark.parametrize("compressed", ["gzip", "zstd"])
def test_a_bomb(compressed: str) -> None:
    zeros = bytes(100 * LIMIT)
    bomb = gzip.compress(zeros) if compressed == "gzip" else zstandard.compress(zeros)
    with pytest.raises(PeerError) as caught:
        read_message(pack(["t", bomb, {"compressed": compressed}]), LIMIT)
    assert caught.value.code is ErrorCode.FRAME_TOO_LONG


@pytest.mark.parametrize("compressed", ["gzip", "zstd"])
@pytest.mark.parametrize("extra", [0, 1])
def test_how_many_streams_there_may_be(compressed: str, extra: int) -> None:
    """Each costs a microsecond, though it may hold nothing."""
    nothing = gzip.compress(b"") if compressed == "gzip" else zstandard.compress(b"")
    streams = nothing * (MAX_STREAMS + extra)
    message = pack(["t", streams, {"compressed": compressed}])
    if not extra:
        assert read_message(message, LIMIT).size == 0
        return
    with pytest.raises(PeerError, match="65536 compressed streams") as caught:
        read_message(message, LIMIT)
    assert caught.value.code is ErrorCode.FRAME_TOO_LONG


@pytest.mark.parametrize("option", [{}, {"size": 2048}, {"size": 2049}, {"size": 5}])
@pytest.mark.parametrize("event", [b"\x92\x05\x80", b"\x92\x05\x81\x01\x02", b"\xc0"])
@pytest.mark.parametrize("extra", [0, 1])
def test_how_many_events_there_may_be(option: dict[str, Any], event: bytes, extra: int) -> None:
    """Of three bytes, each event becomes a record of a hundred."""
    events = event * (LIMIT // EVENT_SIZE + extra)
    for message in (
        pack(["t", gzip.compress(events), option | {"compressed": "gzip"}]),
        pack(["t", events, option]),
        b"\x92\xa1t\xdd" + (LIMIT // EVENT_SIZE + extra).to_bytes(4, "big") + events,
    ):
        if event == b"\xc0" or extra:
            with pytest.raises(PeerError) as caught:
                read_message(message, LIMIT)
            code = ErrorCode.FRAME_TOO_LONG if extra else ErrorCode.BAD_FRAME
            assert caught.value.code is code
        else:
            assert read_message(message, LIMIT).size == LIMIT // EVENT_SIZE


def test_a_tag_that_is_too_long() -> None:
    assert records(pack(["t" * MAX_TAG, 5, {}]))[0]["tag"] == "t" * MAX_TAG
    with pytest.raises(PeerError) as caught:
        read_message(pack(["t" * (MAX_TAG + 1), 5, {}]), LIMIT)
    assert caught.value.code is ErrorCode.BAD_FRAME


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_many_streams_one_behind_the_other(compress: Any) -> None:
    """Fluentd writes one for each append; what they take rises with them, and not faster."""
    kind = "gzip" if compress is gzip.compress else "zstd"
    packed_events = compress(packed({"a": 1})) * 2000
    message = pack(["t", packed_events, {"compressed": kind}])
    assert read_message(message, LIMIT).size == 2000


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_stream_that_ends_too_early(compress: Any, cut: int) -> None:
    """Also where what is there happens to end with an event."""
    kind = "gzip" if compress is gzip.compress else "zstd"
    whole = compress(packed(*RECORDS))
    for data in (whole[:-cut], whole + whole[:-cut]):
        with pytest.raises(PeerError) as caught:
            read_message(pack(["t", data, {"compressed": kind}]), LIMIT)
        assert caught.value.code is ErrorCode.BAD_FRAME


def test_a_zstd_window_that_is_too_large() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(packed({"a": 1})) + compressor.flush()
    with pytest.raises(PeerError) as caught:
        read_message(pack(["t", data, {"compressed": "zstd"}]), LIMIT)
    assert caught.value.code is ErrorCode.BAD_FRAME


def test_of_equal_keys_the_last_counts() -> None:
    twice = b"\x92\x05\x82\xa1a\x01\xa1a\x02"
    assert records(pack(["t", twice]))[0]["data"] == {"a": 2}
