from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.log.files import ACTIVE
from ingest.log.following import follow
from ingest.log.log import LinesMissingError
from ingest.log.reading import Filter
from tests.log.logs import WrittenLog, at, line

Step = Callable[[WrittenLog], object]

_RENAMES: list[Step] = [
    WrittenLog.rotate,
    lambda log: log.rotate(create=True),
    lambda log: log.rotate(".gz"),
    lambda log: log.rotate(".zst", create=True),
    WrittenLog.rotate_outside,
    lambda log: log.rotate_outside(create=False),
]


class _DoneError(Exception):
    pass


def played(log: WrittenLog, turns: Iterable[Iterable[Step]]) -> Callable[[], None]:
    """A `wait` that plays one turn each time it is called, then lets all be read, then ends."""
    left: Iterator[Iterable[Step]] = iter([*turns, [WrittenLog.finish], [], [], []])

    def wait() -> None:
        turn = next(left, None)
        if turn is None:
            raise _DoneError
        for step in turn:
            step(log)

    return wait


def unexpected(error: LinesMissingError) -> None:
    """Nothing is missing."""
    raise error


def followed(
    folder: Path,
    log: WrittenLog,
    *turns: Iterable[Step],
    first: int | None = 0,
    missing: Callable[[LinesMissingError], object] = unexpected,
) -> list[bytes]:
    """All that is read while the turns are played, one between two polls."""
    found: list[bytes] = []
    with pytest.raises(_DoneError):
        for item in follow(folder, first=first, wait=played(log, turns), missing=missing):
            found.append(item)  # noqa: PERF402 - kept when the loop ends in an exception
    return found


def put(count: int) -> Step:
    def step(log: WrittenLog) -> None:
        for _ in range(count):
            log.write(1000)

    return step


def set_clock(seconds: float) -> Step:
    def step(log: WrittenLog) -> None:
        log.clock = seconds

    return step


_TEN_YEARS = 10 * 366 * 86400.0
_clocks = st.sampled_from([-3600.0, 0.0, 3600.0, _TEN_YEARS]).map(set_clock)
_writes = st.integers(1, 150).map(lambda size: lambda log: log.write(size))
_steps = _writes | _clocks | st.sampled_from(_RENAMES)
# One log is rotated by renaming or by copying, not by both.
_copied = _writes | _clocks | st.just(WrittenLog.copy_and_truncate)
_turns = st.lists(st.lists(_steps, max_size=6), max_size=12) | st.lists(
    st.lists(_copied, max_size=6), max_size=12
)


@settings(deadline=None, max_examples=200)
@given(before=st.lists(_steps, max_size=6), turns=_turns)
def test_each_line_comes_once_whatever_happens_between_two_polls(
    before: list[Step], turns: list[list[Step]]
) -> None:
    with TemporaryDirectory() as name:
        log = WrittenLog(Path(name))
        for step in before:
            step(log)
        assert followed(Path(name), log, *turns, first=None) == log.lines


@settings(deadline=None, max_examples=100)
@given(before=st.integers(0, 5), first=st.integers(0, 7), turns=_turns)
def test_following_begins_with_the_last_lines(
    before: int, first: int, turns: list[list[Step]]
) -> None:
    with TemporaryDirectory() as name:
        log = WrittenLog(Path(name))
        put(before)(log)
        shown = max(0, before - first)
        assert followed(Path(name), log, *turns, first=first) == log.lines[shown:]


def test_nothing_is_said_twice_when_the_held_file_was_removed(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    put(2)(log)
    log.rotate()
    put(2)(log)
    found = followed(tmp_path, log, [put(1)], [lambda log: log.active.unlink(), put(3)])
    assert found == log.lines[4:]


def test_files_that_retention_removed_are_said_to_be_missing(tmp_path: Path) -> None:
    def remove_closed(log: WrittenLog) -> None:
        for path in tmp_path.glob("ingest-*"):
            path.unlink()

    log = WrittenLog(tmp_path)
    put(1)(log)
    turn = [WrittenLog.rotate, put(2), WrittenLog.rotate, remove_closed, put(2)]
    said: list[str] = []
    found = followed(tmp_path, log, turn, missing=lambda error: said.append(str(error)))
    assert found == log.lines[3:]
    assert said == ["lines are gone: a has number 4 after 1"]


def test_a_torn_line_that_is_cut_off_is_never_said(tmp_path: Path) -> None:
    def cut(log: WrittenLog) -> None:
        content = log.active.read_bytes()
        log.active.write_bytes(content[: content.rfind(b"\n") + 1])

    def tear(log: WrittenLog) -> None:
        with log.active.open("ab") as stream:
            stream.write(b'{"time":"20')

    log = WrittenLog(tmp_path)
    found = followed(tmp_path, log, [put(2), tear], [cut], [put(1)], [WrittenLog.rotate, put(1)])
    assert found == log.lines


def test_a_file_that_was_emptied_without_a_copy_is_read_from_its_start(tmp_path: Path) -> None:
    def empty(log: WrittenLog) -> None:
        log.active.write_bytes(b"")

    log = WrittenLog(tmp_path)
    said: list[object] = []
    assert followed(tmp_path, log, [put(3)], [empty, put(5)], missing=said.append) == log.lines
    assert len(said) == 1  # nobody knows whether all was read


def test_only_wanted_lines_are_followed(tmp_path: Path) -> None:
    (tmp_path / ACTIVE).write_bytes(line(1, device="b") + b"\n")
    log = WrittenLog(tmp_path)
    put(2)(log)
    lines = follow(tmp_path, Filter("a", since=at(2)), first=9, wait=played(log, [[put(1)]]))
    assert [next(lines), next(lines)] == log.lines[1:]
    lines.close()  # type: ignore[attr-defined]


def test_what_comes_is_new_although_the_clock_was_set_back(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path)
    log.clock = 3600.0 - _TEN_YEARS
    put(1)(log)
    back: list[Step] = [set_clock(-_TEN_YEARS), put(2)]
    lines = follow(tmp_path, Filter(since=at(log.clock)), first=None, wait=played(log, [back]))
    assert [next(lines) for _ in range(3)] == log.lines
    lines.close()  # type: ignore[attr-defined]


def test_the_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(follow(tmp_path / "missing"))
