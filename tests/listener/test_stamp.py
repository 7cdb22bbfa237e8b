"""Time stamps of records."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.listener.stamp import Stamper


@pytest.mark.parametrize(
    ("now", "stamp"),
    [
        (1_795_347_540.123456, b"2026-11-22T11:39:00.123456Z"),
        (1_795_347_540.0, b"2026-11-22T11:39:00.000000Z"),
        (1_795_347_540.9999995, b"2026-11-22T11:39:00.999999Z"),
        (0.0, b"1970-01-01T00:00:00.000000Z"),
    ],
)
def test_stamps(now: float, stamp: bytes) -> None:
    assert Stamper()(now) == stamp


@given(st.lists(st.floats(0, 4e9), min_size=1))
def test_a_stamp_is_the_time_to_the_microsecond(times: list[float]) -> None:
    stamp = Stamper()  # one for all: it keeps the second that it wrote last
    for now in times:
        read = datetime.fromisoformat(stamp(now).decode()).timestamp()
        assert abs(read - now) < 2e-6
