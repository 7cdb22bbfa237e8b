"""The lines of the log."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.names import is_device_name
from ingest.record import (
    KINDS,
    TIME_SPAN,
    Record,
    Values,
    first_since,
    first_time,
    line_finder,
    numbers_in,
    parse,
    record_block,
    record_time,
)

TIME = b"2026-11-22T11:39:00.123456Z"


def block(first: int, opening: bytes, items: list[bytes], closing: bytes) -> bytes:
    return record_block(TIME, b"sensor-1", first, Values(opening, items, closing))


def test_the_example_of_the_specification() -> None:
    assert block(42, b',"text":', [b'"temp=20.5"'], b"}\n") == (
        b'{"time":"2026-11-22T11:39:00.123456Z","device":"sensor-1","seq":42,"text":"temp=20.5"}\n'
    )


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 25_000])
@pytest.mark.parametrize("first", [1, 9, 99, 9_999, 10_000, 19_995, 99_999, 2**53, 2**63 - 25_000])
def test_each_line_is_whole_and_numbered(first: int, count: int) -> None:
    values = [b"%d" % i for i in range(count)]
    lines = block(first, b',"data":', values, b"}\n").split(b"\n")
    assert lines.pop() == b""
    assert [orjson.loads(line) for line in lines] == [
        {"time": "2026-11-22T11:39:00.123456Z", "device": "sensor-1", "seq": first + i, "data": i}
        for i in range(count)
    ]


def test_what_key_and_end_hold_already_is_not_in_the_values() -> None:
    whole = block(1, b',"text":', [b'"a"', b'"b"'], b"}\n")
    assert block(1, b',"text":"', [b"a", b"b"], b'"}\n') == whole
    assert block(1, b",", [b'"text":"a"', b'"text":"b"'], b"}\n") == whole


# Reading.

_BEGIN = '{"time":"2026-11-22T11:39:00.123456Z","device":"sensor-1","seq":42,'
_OPTIONAL = {
    "event_time": "2026-11-22T11:38:59.123456789Z",
    "tag": 'app."x" é',
    "chunk": "cZqvqOo6Q8+1Nf0Ef1nD0A==",
}


def test_a_record_is_read() -> None:
    line = f'{_BEGIN}"data":{{"$binary":"AA=="}}}}'.encode()
    expected = Record(
        "2026-11-22T11:39:00.123456Z", "sensor-1", 42, "data", {"$binary": "AA=="}, line
    )
    assert parse(line) == expected
    assert (expected.event_time, expected.tag, expected.chunk) == (None, None, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", range(4))
def test_optional_keys_are_read(kind: str, count: int) -> None:
    for names in combinations(_OPTIONAL, count):
        members = {name: _OPTIONAL[name] for name in names}
        text = "".join(f'"{name}":{orjson.dumps(members[name]).decode()},' for name in names)
        record = parse(f'{_BEGIN}{text}"{kind}":"x"}}'.encode())
        assert (record.kind, record.value) == (kind, "x")
        for name in _OPTIONAL:
            assert getattr(record, name) == members.get(name)


@pytest.mark.parametrize(
    "rest",
    [
        '"tag":"x","event_time":"2026-11-22T11:39:00Z","text":"x"}',
        '"chunk":"x","tag":"y","text":"x"}',
        '"text":"x","tag":"y"}',
        '"tag":"y"}',
        '"other":"y","text":"x"}',
        '"text":"x","data":1}',
        '"text":"x"',
    ],
)
def test_what_is_no_record_is_refused(rest: str) -> None:
    with pytest.raises(ValueError):
        parse((_BEGIN + rest).encode())


def test_times_are_written_as_records_have_them() -> None:
    moment = datetime(2026, 11, 22, 12, 39, tzinfo=timezone(timedelta(hours=1)))
    assert record_time(moment) == b"2026-11-22T11:39:00.000000Z"
    line = record_block(record_time(moment), b"a", 1, Values(b',"text":', [b'"x"'], b"}\n"))
    assert line[TIME_SPAN] == record_time(moment)
    assert first_time(line) == moment


@pytest.mark.parametrize(
    "block",
    [b"", b"junk\n", b'x{"time":"2026-11-22T11:39:00.123456Z"', b'{"time":"2026-19-22T11:39:00.'],
)
def test_what_does_not_begin_as_a_record_has_no_time(block: bytes) -> None:
    assert first_time(block) is None
    assert first_time(b'{"time":"2026-19-22T11:39:00.123456Z"') is None


def test_the_first_record_with_a_time_counts() -> None:
    begin = _BEGIN.encode() + b'"text":"x"}\n'
    block = (
        b"junk\n" + begin + begin.replace(b"11:39", b"11:38") + begin.replace(b"11:39", b"12:00")
    )
    assert first_time(block) == datetime(2026, 11, 22, 11, 39, 0, 123456, UTC)
    for since, place in ((b"2026-11-22T11:38", 5), (b"2026-11-22T11:40", 5 + 2 * len(begin))):
        assert first_since(block, since) == place
    assert first_since(block, b"2027") is None


def test_numbers_are_those_of_the_lines_and_of_nothing_in_them() -> None:
    begin = _BEGIN.encode()
    block = begin + b'"data":' + begin + b'"text":"x"}}\n' + b"junk" + begin + b"\n" + begin
    assert numbers_in(block) == [(b"sensor-1", b"42")] * 2
    assert numbers_in(begin.replace(b":42,", b":042,")) == []
    assert numbers_in(begin.replace(b"sensor-1", b"sensor 1")) == []


@given(st.text(min_size=1, max_size=5))
def test_a_device_is_found_by_its_name(name: str) -> None:
    if not is_device_name(name):
        assert numbers_in(_BEGIN.replace("sensor-1", name).encode()) == []
        return
    line = _BEGIN.replace("sensor-1", name).encode() + b'"text":"x"}'
    assert numbers_in(line) == [(name.encode(), b"42")]
    assert line_finder(name).findall(b"\n" + line + b"\n") == [line]
