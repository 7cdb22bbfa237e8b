"""When a file is closed, and which closed files are kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.journal.rotation import (
    ClosedFile,
    RetentionPolicy,
    RotationPolicy,
    closing_times,
    expired,
)

HOUR, DAY = 3600.0, 86400.0
MIDNIGHT = 1_795_305_600.0  # 2026-11-22T00:00:00Z


@pytest.mark.parametrize(
    ("every", "begun", "deadline"),
    [
        (DAY, MIDNIGHT, MIDNIGHT + DAY),
        (DAY, MIDNIGHT + 1, MIDNIGHT + DAY),
        (DAY, MIDNIGHT + DAY - 0.001, MIDNIGHT + DAY),
        (HOUR, MIDNIGHT + 11 * HOUR + 2340, MIDNIGHT + 12 * HOUR),
        (1.0, MIDNIGHT + 0.5, MIDNIGHT + 1),
    ],
)
def test_a_file_is_closed_at_the_next_multiple(every: float, begun: float, deadline: float) -> None:
    policy = RotationPolicy(every=every)
    assert begun + policy.seconds_left(begun) == pytest.approx(deadline, abs=1e-6)
    assert not policy.is_due(begun, begun)
    assert not policy.is_due(begun, deadline - 0.001)
    assert policy.is_due(begun, deadline)


def test_without_a_time_a_file_is_never_due() -> None:
    assert RotationPolicy().seconds_left(MIDNIGHT) == math.inf
    assert not RotationPolicy().is_due(MIDNIGHT, MIDNIGHT + 1000 * DAY)


def test_a_file_that_was_begun_in_the_future_is_due() -> None:
    policy = RotationPolicy(every=DAY)
    assert policy.is_due(MIDNIGHT + 3650 * DAY, MIDNIGHT)
    assert not policy.is_due(MIDNIGHT + 1, MIDNIGHT), "the clock was set back a little"


YEARS = 3650 * DAY


@pytest.mark.parametrize(
    ("newest_first", "times"),
    [
        ([], []),
        ([(-1, -1), (-2, -2)], [-1, -2]),
        # As copied, or as a backup was restored: the name counts.
        ([(-1, 0), (-2, -50 * 365)], [-1, -2]),
        # Closed while the clock was ahead; the next ones got names a millisecond later each.
        ([(3650, -1), (3650, -2), (3650, 3650), (-4, -4)], [-1, -2, -2, -4]),
        ([(3650, 3650), (-4, -4)], [0, -4]),
        # The clock was never set when the oldest was closed.
        ([(-1, -1), (-20_780, -20_780)], [-1, -1]),
        ([(-1, -1), (-20_780, -2)], [-1, -1]),
        ([(-20_780, -20_780)], [0]),
        # What was changed before the file before it was closed, cannot have been.
        ([(3650, -50 * 365), (-4, -4)], [0, -4]),
        ([(3650, -100), (-4, -4)], [-4, -4]),
    ],
)
def test_closing_times(newest_first: list[tuple[float, float]], times: list[float]) -> None:
    """All in days from now."""
    found = closing_times(
        [(MIDNIGHT + named * DAY, MIDNIGHT + changed * DAY) for named, changed in newest_first],
        MIDNIGHT,
    )
    assert [(time - MIDNIGHT) / DAY for time in found] == times


def test_room() -> None:
    assert RotationPolicy(size=100).room(60) == 40
    assert RotationPolicy(size=100).room(100) == 0
    assert RotationPolicy().room(1 << 60) == math.inf


FILES = [ClosedFile(f"{age}", 10, MIDNIGHT - age * DAY) for age in range(1, 6)]


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (RetentionPolicy(), []),
        (RetentionPolicy(files=3), ["4", "5"]),
        (RetentionPolicy(files=5), []),
        (RetentionPolicy(age=2 * DAY), ["3", "4", "5"]),
        (RetentionPolicy(size=30), ["4", "5"]),
        (RetentionPolicy(size=29), ["3", "4", "5"]),
        (RetentionPolicy(size=9), ["1", "2", "3", "4", "5"]),
        (RetentionPolicy(files=4, age=1 * DAY, size=1000), ["2", "3", "4", "5"]),
    ],
)
def test_which_files_are_let_go(policy: RetentionPolicy, names: list[str]) -> None:
    assert [file.name for file in expired(policy, FILES, MIDNIGHT)] == names


@given(
    st.builds(RetentionPolicy, st.integers(0, 10), st.floats(0, 10, width=16), st.integers(0, 100)),
    st.lists(st.integers(0, 30), max_size=12),
)
def test_what_is_kept_obeys_every_bound(policy: RetentionPolicy, sizes: list[int]) -> None:
    files = [ClosedFile(f"{age}", size, float(-age)) for age, size in enumerate(sizes)]
    gone = {file.name for file in expired(policy, files, 0.0)}
    kept = [file for file in files if file.name not in gone]
    assert kept == files[: len(kept)]  # only the oldest go
    assert not policy.files or len(kept) <= policy.files
    assert not policy.age or all(-file.closed <= policy.age for file in kept)
    assert not policy.size or sum(file.size for file in kept) <= policy.size
