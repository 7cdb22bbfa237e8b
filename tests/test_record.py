"""The lines of the log."""

import orjson
import pytest

from ingest.record import Values, record_block

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
