"""`positions.db` is lost, or is older than the log: no number may be given a second time.

In each history the files that tell of device `a` are gone, by retention or by hand.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingest.journal import keeper
from ingest.journal.archive import ArchivePolicy
from ingest.journal.file import JournalPolicy
from ingest.journal.positions import read_positions
from ingest.journal.recovery import SKIPPED
from ingest.journal.rotation import RetentionPolicy
from ingest.log.files import log_files
from ingest.log.verifying import verify
from tests.log.logs import line, write
from tests.support.journals import DrivenFile

_KEEP_ONE = JournalPolicy(archive=ArchivePolicy(retention=RetentionPolicy(files=1)))
_MADE_ANEW = "was removed, replaced or damaged by another program: it is made anew"
_SKIPS = "every device's numbers go on 10,000,000 higher"


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DrivenFile]:
    """A journal at work; of device `a` only its positions tell.

    `old` beside it is a copy of the positions, from when there were three records of `a`.
    """
    monkeypatch.setattr(keeper, "_PERIOD", 0.01)
    monkeypatch.setattr(keeper, "_LONGEST_PERIOD", 0.01)
    with DrivenFile(tmp_path / "data", _KEEP_ONE) as running:
        running.write("a", 3)
        _wait_for_positions(running, {"a": 3})
        _copy(running.layout.positions, tmp_path / "old")
        running.write("a", 7)
        for last in (2, 4, 6):
            running.rotate()
            running.write("b", 2)
            _wait_for_positions(running, {"a": 10, "b": last})
        while len(log_files(running.layout.log_folder)) > 2:
            running.take()
        yield running


def _wait_for_positions(running: DrivenFile, numbers: dict[str, int]) -> None:
    while read_positions(running.layout.positions) != numbers:
        pass


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")


def _removed(path: Path, old: Path) -> None:
    for each in path.parent.glob("positions.db*"):
        each.unlink()


def _removed_alone(path: Path, old: Path) -> None:
    path.unlink()


def _replaced(path: Path, old: Path) -> None:
    old.rename(path)


def _replaced_whole(path: Path, old: Path) -> None:
    _removed(path, old)
    old.rename(path)


def _overwritten(path: Path, old: Path) -> None:
    shutil.copyfile(old, path)  # as cp does: in place


def _emptied(path: Path, old: Path) -> None:
    os.truncate(path, 0)


def _spoilt(path: Path, old: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def _without_wal(path: Path, old: Path) -> None:
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


_MEDDLING = [
    _removed,
    _removed_alone,
    _replaced,
    _replaced_whole,
    _overwritten,
    _emptied,
    _spoilt,
    _without_wal,
]


@pytest.mark.parametrize("meddle", _MEDDLING)
def test_while_it_runs_they_are_made_anew(
    meddle: Callable[[Path, Path], None], running: DrivenFile, tmp_path: Path
) -> None:
    meddle(running.layout.positions, tmp_path / "old")
    while not any(_MADE_ANEW in said for said in running.said):
        running.take()
    assert read_positions(running.layout.positions) == {"a": 10, "b": 6}
    assert [running.following(name) for name in "abc"] == [11, 7, 1]
    running.write("b", 1)
    _wait_for_positions(running, {"a": 10, "b": 7})
    assert running.journal.health is None
    assert sum(_MADE_ANEW in said for said in running.said) == 1
    shutil.copytree(running.layout.data, tmp_path / "killed")
    running.close()
    for data in (tmp_path / "killed", running.layout.data):
        with DrivenFile(data) as again:
            assert [again.following(name) for name in "abc"] == [11, 8, 1]
            assert again.said == []


def _kill(running: DrivenFile) -> Path:
    """Leave what a kill would."""
    killed = running.layout.data.with_name("killed")
    shutil.copytree(running.layout.data, killed)
    running.close()
    return killed


def _stop(running: DrivenFile) -> Path:
    running.close()
    return running.layout.data


@pytest.mark.parametrize("end", [_kill, _stop])
@pytest.mark.parametrize("meddle", _MEDDLING)
def test_a_start_gives_no_number_twice(
    meddle: Callable[[Path, Path], None],
    end: Callable[[DrivenFile], Path],
    running: DrivenFile,
    tmp_path: Path,
) -> None:
    data = end(running)
    meddle(data / "state" / "positions.db", tmp_path / "old")
    with DrivenFile(data) as again:
        following = [again.following(name) for name in "abc"]
        assert following in ([11, 7, 1], [SKIPPED + 11] * 3), "exact, or above all that there was"
        skips = [said for said in again.said if _SKIPS in said]
        assert len(skips) == (following[0] > SKIPPED)
        again.write("c", 1)
    with DrivenFile(data) as again:  # and that is all
        assert [again.following(name) for name in "ab"] == following[:2]
        assert again.following("c") == following[2] + 1
        assert again.said == []
    positions = read_positions(data / "state" / "positions.db")
    assert verify(data / "log", positions).breaches == []


def test_what_a_lost_jump_left_out_is_noted_beside_the_log(
    running: DrivenFile, tmp_path: Path
) -> None:
    """Also for devices that are named nowhere, or never come again."""
    data = _stop(running)
    for _ in range(2):
        _removed(data / "state" / "positions.db", tmp_path)
        (data / "log" / ".ingest-removed").unlink(missing_ok=True)
        with DrivenFile(data) as again:
            assert [again.following(name) for name in "abc"] == [
                SKIPPED + 7,
                SKIPPED + 7,
                SKIPPED + 7,
            ]


def test_an_old_copy_takes_the_jumps_that_came_after_it(
    running: DrivenFile, tmp_path: Path
) -> None:
    data = _stop(running)
    _copy(data / "state" / "positions.db", tmp_path / "before")
    _removed(data / "state" / "positions.db", tmp_path)
    with DrivenFile(data) as again:
        again.write("b", 1)
    shutil.copy(tmp_path / "before", data / "state" / "positions.db")
    with DrivenFile(data) as again:
        assert [again.following(name) for name in "abc"] == [
            SKIPPED + 11,
            SKIPPED + 12,
            SKIPPED + 11,
        ]


def test_a_number_that_was_removed_may_be_higher_than_any_jump(tmp_path: Path) -> None:
    data = tmp_path / "data"
    log = data / "log"
    log.mkdir(parents=True)
    write(log / "ingest-20261122T110000.000Z.log", *(line(seq) for seq in (1, 3 * SKIPPED)))
    with DrivenFile(data, _KEEP_ONE) as running:
        running.rotate()
        for _ in range(2):
            running.write("b", 1)
            running.rotate()
        while len(log_files(log)) > 2:
            running.take()
    _removed(data / "state" / "positions.db", tmp_path)
    with DrivenFile(data) as running:
        assert running.following("a") == 4 * SKIPPED + 1


# Files that went by other hands, of which no note tells.


def test_the_first_numbers_tell_of_files_that_were_removed_by_hand(tmp_path: Path) -> None:
    with DrivenFile(tmp_path) as running:
        running.write("a", 3)
        running.write("b", 1)
        running.rotate()
        running.write("b", 2)
    (closed,) = (tmp_path / "log").glob("ingest-*")
    closed.unlink()
    with DrivenFile(tmp_path) as running:  # the positions tell
        assert [running.following(name) for name in "ab"] == [4, 4]
        assert running.said == []
    _removed(tmp_path / "state" / "positions.db", tmp_path)
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "ab"] == [SKIPPED + 4, SKIPPED + 4]
        assert [_SKIPS in said for said in running.said] == [False, True]
        assert "positions.db is missing or an older copy" in running.said[1]


@pytest.mark.parametrize("is_known", [False, True], ids=["no positions", "a checkpoint before"])
def test_what_a_damaged_file_told_is_left_out(is_known: bool, tmp_path: Path) -> None:
    with DrivenFile(tmp_path) as running:
        running.write("b", 1)
    _copy(running.layout.positions, tmp_path / "old")
    with DrivenFile(tmp_path) as running:
        running.rotate()
        running.write("a", 3)
        running.rotate()
        running.write("b", 1)
    damaged = max((tmp_path / "log").glob("ingest-*"))
    damaged.with_name(damaged.name + ".zst").write_bytes(b"damaged")
    damaged.unlink()
    _removed(running.layout.positions, tmp_path)
    if is_known:
        (tmp_path / "old").rename(running.layout.positions)
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "ab"] == [SKIPPED + 3, SKIPPED + 3]
        assert "a file of the log that tells newest numbers is damaged" in running.said[-1]
    with DrivenFile(tmp_path) as running:
        assert running.said == []


def test_no_name_is_given_twice_when_all_closed_files_are_removed(
    running: DrivenFile, tmp_path: Path
) -> None:
    """A clock that was set back would else name a file as one that the note tells is removed."""
    data = _stop(running)
    (closed,) = (data / "log").glob("ingest-*")
    note = data / "log" / ".ingest-removed"
    note.write_text('{"newest":"ingest-20361122T113900.123Z.log","highest":10}')
    closed.unlink()
    for _ in range(2):
        with DrivenFile(data) as again:
            again.write("b", 1)
            name = again.rotate()
            assert name is not None
            assert name.name > "ingest-20361122T113900.123Z.log"
            said = [line for line in again.said if "was rotated" not in line]
    assert said == [], "only the first start has found positions older than the note"
