"""Places in the log, whatever happens to the files: the promise that every follower builds on."""

import gzip
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.log.files import ACTIVE, LogFile, open_log, rotated_name
from ingest.log.jumps import note_jump
from ingest.log.listing import log_files, snapshot
from ingest.log.log import LinesMissingError, Log
from ingest.log.places import START, Place
from tests.log.logs import WrittenLog, at, line, write


class Follower:
    """Follows a log, keeps its place as JSON, and may be restarted at any time.

    Attributes:
        found: the lines that it was given.
        missed: what it was told of lines that are gone.
    """

    def __init__(self, folder: Path, place: Place = START) -> None:
        self.found: list[bytes] = []
        self.missed: list[LinesMissingError] = []
        self._folder = folder
        self._kept = place.to_json()
        self._log = Log(folder)

    @property
    def place(self) -> Place:
        return Place.from_json(self._kept)

    def read(self) -> bool:
        """Read on once; return whether there was anything."""
        try:
            place, block = self._log.read_from(self.place)
        except LinesMissingError as error:
            self.missed.append(error)
            place, block = error.place, b"."
        else:
            assert block == b"" or block.endswith(b"\n")
            self.found += block.split(b"\n")[:-1]
        self._kept = place.to_json()
        return bool(block)

    def read_all(self) -> None:
        """Read to the end."""
        while self.read():
            pass

    def restart(self) -> None:
        """End and begin again, with nothing but the place."""
        self._log.close()
        self._log = Log(self._folder)

    def close(self) -> None:
        self._log.close()


class History:
    """A log with a follower, and all that may happen to both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = WrittenLog(folder)
        self.follower = Follower(folder)
        self.removed: set[bytes] = set()
        self.removed_unseen: set[bytes] = set()

    def remove_oldest(self) -> None:
        """Remove the oldest closed file, as retention does."""
        files = [file for file in log_files(self.folder) if file.path.name != ACTIVE]
        if files:
            with open_log(files[0]) as stream:
                lines = set(stream.read().split(b"\n")[:-1])
            files[0].path.unlink()
            unseen = lines - set(self.follower.found)
            self.removed |= lines
            # Who has never read a line begins with the oldest that is there: nothing is missing.
            if self.follower.place.head:
                self.removed_unseen |= unseen

    def compress_one(self, suffix: str) -> None:
        """Compress the newest closed file."""
        files = [file for file in log_files(self.folder) if file.path.name != ACTIVE]
        if files and not files[-1].compressed:
            path = files[-1].path
            write(path.with_name(path.name + suffix), *path.read_bytes().splitlines())
            path.unlink()

    def back_up(self) -> None:
        """Copy the active file within the folder."""
        if self.log.active.exists():
            shutil.copy(self.log.active, self.folder / "ingest.log.99999999")

    def check(self) -> None:
        """Check the promise at the end of the history."""
        self.log.finish()
        self.log.write(1000)  # with nothing newer than what is gone, there is nothing to tell yet
        self.follower.read_all()
        self.follower.close()
        found, lines = self.follower.found, self.log.lines
        assert found == [text for text in lines if text in set(found)], "in order, each once"
        assert set(lines) - set(found) <= self.removed
        if self.removed_unseen - set(found):
            assert self.follower.missed


Step = Callable[[History], object]


def _clock(seconds: float) -> Step:
    def step(history: History) -> None:
        history.log.clock = seconds

    return step


def _nothing(_history: History) -> None:
    """Let nothing happen."""


_read: list[Step] = [lambda history: history.follower.read(), lambda h: h.follower.read_all()]
_writes: st.SearchStrategy[Step] = st.integers(1, 150).map(
    lambda size: lambda history: history.log.write(size)
)
_common = (
    _writes
    | st.sampled_from([-3600.0, 0.0, 3600.0, 10 * 366 * 86400.0]).map(_clock)
    | st.sampled_from(_read)
    | st.just(lambda history: history.follower.restart())
)
_by_name: list[Step] = [
    lambda history: history.log.rotate(),
    lambda history: history.log.rotate(create=True),
    lambda history: history.log.rotate(".gz"),
    lambda history: history.log.rotate(".zst", create=True),
    lambda history: history.log.rotate_outside(),
    lambda history: history.log.rotate_outside(create=False),
    lambda history: history.compress_one(".gz"),
    lambda history: history.compress_one(".zst"),
]
_by_copy: list[Step] = [
    lambda history: history.log.copy_and_truncate(),
    lambda history: history.compress_one(".gz"),
]


def play(steps: list[Step], within: Iterable[Step] = ()) -> History:
    """Play a history.

    Args:
        steps: what happens, one step after the other.
        within: what happens while the follower lists the files: before it lists them and after.
    """
    left = iter(within)

    def step_within() -> None:
        if step := next(left, None):
            step(history)

    def listed(folder: Path) -> tuple[list[LogFile], BinaryIO | None]:
        step_within()
        files = snapshot(folder)
        step_within()
        return files

    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        history = History(Path(name))
        patch.setattr("ingest.log.places.snapshot", listed)
        for step in steps:
            step(history)
        history.follower.read_all()
        for step in left:  # what was not reached happens before the end
            step(history)
        history.check()
        return history


def histories(changes: list[Step]) -> st.SearchStrategy[tuple[list[Step], list[Step]]]:
    within = st.just(_nothing) | _writes | st.sampled_from(changes)
    steps = _common | st.sampled_from(changes)
    return st.tuples(st.lists(steps, max_size=30), st.lists(within, max_size=15))


@settings(deadline=None, max_examples=300)
@given(histories(_by_name) | histories(_by_copy))
def test_each_line_is_read_once_and_in_order(played: tuple[list[Step], list[Step]]) -> None:
    history = play(*played)
    assert history.follower.found == history.log.lines
    assert history.follower.missed == []


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        _common | st.sampled_from([*_by_name, lambda history: history.remove_oldest()]),
        max_size=30,
    )
)
def test_what_was_removed_unread_is_said_to_be_missing(steps: list[Step]) -> None:
    history = play(steps)
    if not history.removed:
        assert history.follower.missed == []


@settings(deadline=None, max_examples=100)
@given(st.lists(_common | st.just(lambda history: history.back_up()), max_size=20))
@example([lambda h: h.log.write(150), lambda h: h.back_up(), lambda h: h.follower.read_all()])
def test_a_copy_in_the_folder_is_not_read(steps: list[Step]) -> None:
    assert play(steps).follower.missed == []


def read_all(folder: Path, place: Place = START) -> Follower:
    """Follow the log to its end."""
    follower = Follower(folder, place)
    follower.read_all()
    follower.close()
    return follower


def test_a_place_is_a_small_value() -> None:
    place = Place("ingest-20261122T113900.123Z.log", "6162", 7)
    assert Place.from_json(place.to_json()) == place
    assert Place.from_json(START.to_json().encode()) == START


@pytest.mark.parametrize(
    "bad", ["", "{}", "[]", '["","",-1]', '["","zz",0]', '[1,"",0]', '["","",0,0]', '["","","0"]']
)
def test_what_is_no_place_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        Place.from_json(bad)


def test_the_end_is_behind_the_last_whole_line(tmp_path: Path) -> None:
    def rest(*ends: bytes) -> list[bytes]:
        with Log(tmp_path) as log:
            place = log.end()
        with (tmp_path / ACTIVE).open("ab") as stream:
            stream.writelines(ends)
        follower = read_all(tmp_path, place)
        assert follower.missed == []
        return follower.found

    assert rest(line(1) + b"\n") == [line(1)]
    (tmp_path / ACTIVE).rename(tmp_path / rotated_name(at(2), None))
    (tmp_path / ACTIVE).touch()
    assert rest(line(2) + b"\n", line(3)[:9]) == [line(2)]
    assert rest(line(3)[9:] + b"\n") == [line(3)]
    content = gzip.compress((tmp_path / ACTIVE).read_bytes())
    (tmp_path / "ingest.log.1.gz").write_bytes(content)
    (tmp_path / ACTIVE).write_bytes(b"")
    assert rest(line(4) + b"\n") == [line(4)]


@pytest.mark.parametrize("seconds", [0, 1, 1.5, 4, 5, 6, 7, 8])
def test_the_place_of_a_moment(tmp_path: Path, seconds: float) -> None:
    write(tmp_path / rotated_name(at(2.5), None), line(1), line(2))
    write(tmp_path / (rotated_name(at(4.5), None) + ".zst"), line(3), line(4))
    write(tmp_path / "ingest.log.1", line(5))
    write(tmp_path / ACTIVE, line(6), line(7))
    with Log(tmp_path) as log:
        place = log.place_at(at(seconds))
    assert read_all(tmp_path, place).found == [line(seq) for seq in range(1, 8) if seq >= seconds]


def test_blocks_are_bounded_and_long_lines_whole(tmp_path: Path) -> None:
    made = [line(seq, f'"text":"{"x" * 100_000}"') for seq in range(1, 40)]
    made.append(line(40, f'"text":"{"x" * 3_000_000}"'))
    write(tmp_path / (rotated_name(at(41), None) + ".gz"), *made)
    write(tmp_path / ACTIVE, *[text.replace(b'"a"', b'"b"') for text in made])
    place, sizes, content = START, [], b""
    with Log(tmp_path) as log:
        while True:
            place, block = log.read_from(place)
            if not block:
                break
            sizes.append(len(block))
            content += block
    assert content.count(b"\n") == 80
    assert sum(size > 1_200_000 for size in sizes) == 2


def test_reading_may_go_back(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        folder = tmp_path / f"log{suffix}"
        folder.mkdir()
        write(folder / (rotated_name(at(9), None) + suffix), *map(line, range(1, 20_000)))
        with Log(folder) as log:
            second, first_block = log.read_from(START)
            third, second_block = log.read_from(second)
            assert log.read_from(START) == (second, first_block)
            assert log.read_from(second) == (third, second_block)


def test_a_place_in_a_removed_file_is_missed_once(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), line(2))
    place = read_all(tmp_path).place
    (tmp_path / ACTIVE).unlink()
    again = Follower(tmp_path, place)
    assert not again.read()  # nothing newer is there yet
    write(tmp_path / ACTIVE, line(3), line(4))
    again.read_all()
    again.close()
    assert again.found == [line(3), line(4)]
    assert [str(error) for error in again.missed] == [
        "lines are gone: the file that was to be read on from is missing"
    ]


@pytest.mark.parametrize("forward", [1, -1])  # the clock may have gone backwards all the time
def test_files_older_than_the_one_that_is_gone_are_not_read_again(
    tmp_path: Path, forward: int
) -> None:
    made = [line(number, time=forward * number) for number in (1, 2, 3)]
    for number, text in enumerate(made, 1):
        write(tmp_path / f"ingest.log.{4 - number}", text)
    follower = Follower(tmp_path)
    follower.read()
    follower.read()
    follower.restart()
    (tmp_path / "ingest.log.2").unlink()
    follower.read_all()
    follower.close()
    assert follower.found == made
    assert len(follower.missed) == 1


def test_a_place_behind_a_closed_file_that_is_gone_may_miss_lines(tmp_path: Path) -> None:
    closed = tmp_path / rotated_name(at(1), None)
    write(closed, line(1))
    with Log(tmp_path) as log:
        end = log.end()
    assert end.head == ""
    write(tmp_path / ACTIVE, line(2))
    assert read_all(tmp_path, end).missed == []
    closed.unlink()
    assert len(read_all(tmp_path, end).missed) == 1


def test_after_a_cut_reading_goes_on_at_the_end(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, *map(line, (1, 2, 3)))
    follower = Follower(tmp_path)
    follower.read_all()
    write(tmp_path / ACTIVE, line(1))
    assert not follower.read()
    write(tmp_path / ACTIVE, line(1), line(4))
    follower.read_all()
    follower.close()
    assert (follower.found, follower.missed) == ([line(seq) for seq in (1, 2, 3, 4)], [])


def test_a_jump_that_the_listener_noted_is_no_gap(tmp_path: Path) -> None:
    write(tmp_path / "ingest.log.1", line(1))
    write(tmp_path / ACTIVE, line(101, time=5))
    assert len(read_all(tmp_path).missed) == 1
    note_jump(tmp_path, datetime.now(UTC), {"a": 101})
    follower = read_all(tmp_path)
    assert (follower.missed, len(follower.found)) == ([], 2)


def test_a_damaged_file_is_said_and_passed(tmp_path: Path) -> None:
    path = tmp_path / (rotated_name(at(9), None) + ".gz")
    write(path, *map(line, range(1, 50_000)))
    path.write_bytes(path.read_bytes()[:-3000])
    write(tmp_path / ACTIVE, line(50_000))
    follower = read_all(tmp_path)
    assert follower.found[0] == line(1)
    assert follower.found[-1] == line(50_000)
    assert [str(error).partition(" from byte")[0] for error in follower.missed] == [
        f"{path} is damaged"
    ]


def test_a_file_of_which_nothing_can_be_read_is_said_and_passed(tmp_path: Path) -> None:
    write(tmp_path / rotated_name(at(2), None), line(1, device="b"))
    damaged = tmp_path / (rotated_name(at(3), None) + ".zst")
    damaged.write_bytes(b"neither the one nor the other")
    (tmp_path / (rotated_name(at(4), None) + ".gz")).write_bytes(gzip.compress(b""))
    write(tmp_path / ACTIVE, line(9))
    follower = read_all(tmp_path)
    assert follower.found == [line(1, device="b"), line(9)]
    assert [str(error) for error in follower.missed] == [f"{damaged} is damaged"]
    with Log(tmp_path) as log:
        assert read_all(tmp_path, log.place_at(at(2.5))).found == [line(9)]


def test_a_damaged_oldest_file_is_said_too(tmp_path: Path) -> None:
    damaged = tmp_path / (rotated_name(at(3), None) + ".gz")
    damaged.write_bytes(b"neither the one nor the other")
    write(tmp_path / ACTIVE, line(9))
    follower = read_all(tmp_path)
    assert follower.found == [line(9)]
    assert [str(error) for error in follower.missed] == [f"{damaged} is damaged"]


def test_a_write_that_ends_in_a_renamed_file_comes_before_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / ACTIVE, line(1))
    follower = Follower(tmp_path)
    follower.read_all()
    renamed = (tmp_path / ACTIVE).rename(tmp_path / "ingest.log.1")

    def listed(folder: Path) -> tuple[list[LogFile], BinaryIO | None]:
        write(renamed, line(1), line(2))
        write(tmp_path / ACTIVE, line(3))
        return snapshot(folder)

    monkeypatch.setattr("ingest.log.places.snapshot", listed)
    follower.read_all()
    follower.close()
    assert (follower.found, follower.missed) == ([line(seq) for seq in (1, 2, 3)], [])


def test_damage_at_the_end_of_all_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / (rotated_name(at(9), None) + ".gz")
    write(path, *map(line, range(1, 50_000)))
    path.write_bytes(path.read_bytes()[:-3000])
    follower = Follower(tmp_path)
    follower.read_all()
    assert len(follower.missed) == 1
    write(tmp_path / ACTIVE, line(50_000))
    follower.read_all()
    follower.close()
    assert len(follower.missed) == 1
    assert follower.found[-1] == line(50_000)


def test_what_is_missing_is_said_until_the_reader_goes_on(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1))
    place = read_all(tmp_path).place
    write(tmp_path / ACTIVE, line(2))
    with Log(tmp_path) as log:
        for _ in range(3):
            with pytest.raises(LinesMissingError) as raised:
                log.read_from(place)
        assert log.read_from(raised.value.place)[1] == line(2) + b"\n"


def test_a_quiet_log_is_not_opened_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"ingest.log.{4 - number}.gz", line(number))
    (tmp_path / ACTIVE).touch()
    opened: list[object] = []

    def open_and_tell(file: LogFile) -> BinaryIO:
        opened.append(file)
        return open_log(file)

    follower = Follower(tmp_path)
    follower.read_all()
    monkeypatch.setattr("ingest.log.places.open_log", open_and_tell)
    monkeypatch.setattr("ingest.log.files.open_log", open_and_tell)
    for _ in range(3):
        assert not follower.read()
    assert opened == []
    write(tmp_path / ACTIVE, line(4))
    follower.read_all()
    follower.close()
    assert follower.found == [line(seq) for seq in (1, 2, 3, 4)]
    assert opened


def test_a_file_that_is_removed_while_it_is_looked_for_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / rotated_name(at(2), None), line(1))
    write(tmp_path / ACTIVE, line(2))
    follower = Follower(tmp_path)
    gone = tmp_path / rotated_name(at(2), None)

    def open_too_late(file: LogFile) -> BinaryIO:
        gone.unlink(missing_ok=True)
        return open_log(file)

    monkeypatch.setattr("ingest.log.places.open_log", open_too_late)
    follower.read()
    follower.read_all()
    follower.close()
    assert follower.found == [line(2)]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with Log(tmp_path / "missing") as log, pytest.raises(FileNotFoundError):
        log.read_from(START)
