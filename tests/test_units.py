"""Sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.units import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("100B", 100),
        ("64KiB", 65536),
        ("64kib", 65536),
        ("64 KiB ", 65536),
        ("10GB", 10_000_000_000),
        ("1k", 1000),
        ("1.5MiB", 1_572_864),
        ("2TiB", 2 << 40),
        ("0.1k", 100),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10", 10),
        ("250ms", 0.25),
        ("10s", 10),
        ("1.5m", 90),
        ("5min", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("2w", 1_209_600),
        ("1H", 3600),
    ],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


NO_QUANTITIES = [
    "",
    " ",
    "x",
    "-1",
    "+1",
    "1e3",
    "1.",
    ".5",
    "1 2",
    "1,5",
    "٣",
    "inf",
    "nan",
    "9" * 400,
]


@pytest.mark.parametrize("text", [*NO_QUANTITIES, "1s", "1 KiBB", "0x10"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", [*NO_QUANTITIES, "1KiB", "1y", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (4000 << 40, "4000.0 TiB"),
    ],
)
def test_format_size(size: float, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 2**52))
def test_a_formatted_size_is_read_back_to_within_its_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.05)
