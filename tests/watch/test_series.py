"""Buckets of numbers, in bounded memory."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.watch.series import SPAN, WIDTHS, Buckets, Curves, round_width

NOW = 1_800_000_000
SMALL = 28 * (SPAN + 1) * 3  # three rows of one second


def put(curves: Curves, *values: tuple[str, str, int, float], now: float = NOW) -> None:
    devices, fields, seconds, numbers = (list(each) for each in zip(*values, strict=True))
    curves.add(devices, fields, seconds, numbers, now)


def read(curves: Curves, device: str, field: str) -> Buckets:
    found = curves.read(device, field)
    assert found is not None
    return found


def test_a_bucket_has_least_greatest_mean_and_count() -> None:
    curves = Curves()
    put(curves, ("a", "x", NOW, 3.0), ("a", "x", NOW, -1.0), ("b", "x", NOW, 7.0))
    put(curves, ("a", "x", NOW, 4.0), ("a", "x", NOW - 1, 5.0))
    found = read(curves, "a", "x")
    assert found.start.tolist() == [NOW - 1, NOW]
    assert found.low.tolist() == [5.0, -1.0]
    assert found.high.tolist() == [5.0, 4.0]
    assert found.mean.tolist() == [5.0, 2.0]
    assert found.count.tolist() == [1, 3]
    assert curves.last("b") == {"x": 7.0}


def test_what_is_no_number_of_the_last_hour_is_left_out() -> None:
    curves = Curves()
    put(curves, ("a", "x", NOW, 1.0), ("a", "x", NOW - SPAN - 2, 2.0), ("a", "x", NOW + 100, 3.0))
    put(curves, ("a", "x", NOW, math.nan), ("a", "x", NOW, math.inf))
    assert read(curves, "a", "x").high.tolist() == [1.0]


def test_huge_values_have_a_mean_between_them() -> None:
    curves = Curves()
    for value in (1.7e308, 1.7e308, -1.7e308, -1.7e308):
        put(curves, *(("a", "x", NOW + second, value) for second in (0, 0, 1)))
    found = read(curves, "a", "x")
    for each in (found, found.coarser(10)):
        assert (min(each.low), max(each.high)) == (-1.7e308, 1.7e308)
        assert np.isfinite(each.mean).all()


def test_an_hour_later_it_is_gone() -> None:
    curves = Curves()
    put(curves, ("a", "x", NOW, 1.0))
    put(curves, ("b", "x", NOW + SPAN + 1, 1.0), now=NOW + SPAN + 1)
    assert len(read(curves, "a", "x")) == 0


@pytest.mark.parametrize("rows", [3, 4, 15, 16, 30, 500])
def test_more_rows_make_wider_buckets_and_no_peak_is_lost(rows: int) -> None:
    curves = Curves(SMALL)
    chance = random.Random(rows)
    written: dict[str, list[tuple[int, float]]] = {}
    for _ in range(20):
        values = [
            (f"d{chance.randrange(rows)}", "x", NOW - chance.randrange(SPAN - 600), chance.random())
            for _ in range(100)
        ]
        put(curves, *values)
        for device, _, second, number in values:
            written.setdefault(device, []).append((second, number))
    assert curves.left_out == 0
    for device, values_of in written.items():
        found = read(curves, device, "x")
        assert found.width == curves.width
        numbers = [number for _, number in values_of]
        assert found.high.max() == max(numbers)
        assert found.low.min() == min(numbers)
        assert found.count.sum() == len(numbers)
        assert found.total.sum() == pytest.approx(sum(numbers))
        assert set(found.start) == {
            float(second // curves.width * curves.width) for second, _ in values_of
        }


def test_when_all_rows_are_taken_the_rest_is_counted() -> None:
    curves = Curves(SMALL)
    many = [(f"d{number}", "x", NOW, 1.0) for number in range(3000)]
    put(curves, *many)
    assert curves.width == WIDTHS[-1]
    assert curves.left_out == 3000 - curves.rows
    assert curves.left_out > 0


def test_rows_that_are_silent_for_an_hour_are_given_to_others() -> None:
    curves = Curves(SMALL)
    put(curves, *[(f"old{number}", "x", NOW, 1.0) for number in range(3000)])
    later = NOW + SPAN + 600
    put(curves, ("new", "x", later, 1.0), now=later)
    put(curves, *[(f"new{number}", "x", later, 2.0) for number in range(500)], now=later)
    assert curves.fields("old1") == []
    assert read(curves, "new499", "x").high.tolist() == [2.0]
    assert read(curves, "new", "x").high.tolist() == [1.0]


def test_ten_thousand_devices_with_five_fields_fit() -> None:
    curves = Curves()
    owners = [(f"d{number // 5}", f"f{number % 5}", NOW, 1.0) for number in range(50_000)]
    put(curves, *owners)
    assert curves.left_out == 0
    assert curves.width == 30
    table = curves._table
    kept = (table.count, table.low, table.high, table.total)
    assert sum(each.nbytes for each in kept) < 180_000_000


def test_one_device_does_not_take_all_rows() -> None:
    curves = Curves()
    put(curves, *[("evil", f"f{number}", NOW, 1.0) for number in range(1000)])
    assert curves.rows == 200
    assert curves.left_out == 800


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.floats(-1e9, 1e9)), min_size=1),
    st.sampled_from([1, 2, 5, 60, 3600]),
)
def test_coarser_buckets_hold_the_same_values(values: list[tuple[int, float]], width: int) -> None:
    times, numbers = (np.array(each, float) for each in zip(*values, strict=True))
    found = Buckets.of(1, times, numbers).coarser(width)
    assert found.start.tolist() == sorted({time // width * width for time, _ in values})
    assert found.low.min() == numbers.min()
    assert found.high.max() == numbers.max()
    assert found.count.sum() == len(numbers)
    assert ((found.low <= found.mean) & (found.mean <= found.high)).all()


def test_widths_are_round() -> None:
    assert [round_width(each) for each in (0.003, 1, 1.1, 28, 61, 4000, 90_000)] == [
        *(0.01, 1, 2, 30, 120, 7200, 172_800)
    ]
