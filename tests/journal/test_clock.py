"""What the wall clock's word is worth."""

import pytest

from ingest.journal.clock import Calendar, recent_leap
from tests.journal.disks import NOW, Clocks

HOUR, DAY = 3600.0, 86400.0
YEAR = 365 * DAY


def _pass(calendar: Calendar, clocks: Clocks, seconds: float) -> None:
    """Let time pass, with a look at the calendar each minute."""
    for _ in range(int(seconds // 60)):
        clocks.advance(60)
        calendar.now()


def test_while_nobody_sets_it_the_clock_is_believed() -> None:
    clocks = Clocks()
    calendar = Calendar(clocks.clock, [NOW - 40 * DAY, NOW - 5])
    for seconds in (0, 60, DAY, 300 * DAY):
        clocks.advance(seconds)
        assert calendar.now() == clocks.wall
        assert calendar.leap == 0


@pytest.mark.parametrize("years", [0.1, 1, 10, 100])
def test_a_leap_ahead_is_not_believed_at_once(years: float) -> None:
    clocks = Clocks()
    calendar = Calendar(clocks.clock, [NOW])
    clocks.set(years * YEAR)
    clocks.advance(60)
    assert calendar.now() == pytest.approx(NOW + 60)
    assert calendar.leap == pytest.approx(years * YEAR)
    _pass(calendar, clocks, 2 * HOUR)
    clocks.set(-years * YEAR)
    assert calendar.now() == pytest.approx(clocks.wall)
    assert calendar.leap == 0


def test_a_leap_that_lasts_for_a_day_is_believed() -> None:
    clocks = Clocks(0.0)  # it was never set before
    calendar = Calendar(clocks.clock, [])
    clocks.set(NOW)
    _pass(calendar, clocks, DAY - 60)
    assert calendar.now() < 2 * DAY
    _pass(calendar, clocks, 180)
    assert calendar.now() == clocks.wall
    assert calendar.leap == 0


def test_a_step_back_is_believed() -> None:
    clocks = Clocks(NOW + 10 * YEAR)
    calendar = Calendar(clocks.clock, [])
    clocks.set(-10 * YEAR)
    assert calendar.now() == NOW


def test_a_small_step_is_believed_both_ways() -> None:
    clocks = Clocks()
    calendar = Calendar(clocks.clock, [])
    for step in (HOUR, -HOUR, 61, -61):
        clocks.set(step)
        assert calendar.now() == clocks.wall


def test_two_leaps_are_undone_one_by_one() -> None:
    clocks = Clocks()
    calendar = Calendar(clocks.clock, [])
    for step in (YEAR, YEAR, -YEAR, -YEAR):
        clocks.set(step)
        assert calendar.now() == pytest.approx(NOW)
    assert calendar.leap == 0


@pytest.mark.parametrize(
    ("days", "leap"),
    [
        ([], 0),
        ([0, 1, 2, 40, 400], 0),
        ([0, 0.5, 400], 399.5),
        ([400], 400),
        ([0.5, 1.5, 400], 0),  # it has lasted
        ([-3650, 0.1, 1], 0),  # written by a clock that was ahead, and is not any more
        ([-3650, 3650], 3650),
    ],
)
def test_a_leap_before_the_start(days: list[float], leap: float) -> None:
    """The files tell of it; all in days before now."""
    assert recent_leap((NOW - day * DAY for day in days), NOW) == pytest.approx(leap * DAY)


def test_a_start_while_the_clock_is_ahead() -> None:
    clocks = Clocks(NOW + 10 * YEAR)
    calendar = Calendar(clocks.clock, [NOW - 30 * DAY, NOW])
    assert calendar.now() == pytest.approx(NOW)
    clocks.advance(60)
    clocks.set(-10 * YEAR)
    assert calendar.now() == pytest.approx(NOW + 60)
