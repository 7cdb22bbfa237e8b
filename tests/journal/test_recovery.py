"""What a start finds: after a clean stop, after a kill, and after an operator was there."""

import gzip
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.intent import IntentFile
from ingest.journal.positions import Positions, read_positions
from ingest.journal.recovery import SKIPPED, recover
from ingest.layout import Layout
from ingest.log.files import ACTIVE, LogFile, log_files, open_log
from ingest.log.log import Log
from ingest.log.verifying import verify
from ingest.record import parse
from tests.log.logs import line, write
from tests.support.journals import DrivenFile, crash

_GIB = 1 << 30


def _stop(data: Path, *steps: str) -> None:
    """Do as `crash` does, but stop in good order."""
    with DrivenFile(data) as running:
        for step in steps:
            if step == "rotate":
                running.rotate()
            elif step != "checkpoint":
                device, count = step.split("=")
                running.write(device, int(count))


def _lines(data: Path) -> list[bytes]:
    return [line for lines in _lines_by_file(data) for line in lines]


def _lines_by_file(data: Path) -> list[list[bytes]]:
    return [_read_lines(file) for file in log_files(data / "log")]


def _read_lines(file: LogFile) -> list[bytes]:
    with open_log(file) as stream:
        return stream.read().splitlines()


@pytest.mark.parametrize("end", [_stop, crash])
def test_numbers_go_on(end: Callable[..., None], tmp_path: Path) -> None:
    end(tmp_path, "a=3", "rotate", "a=2", "b=1")
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "abc"] == [6, 2, 1]
        running.write("a", 1)
        assert running.said == []
    assert len(_lines(tmp_path)) == 7


def test_a_start_reads_only_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    crash(tmp_path, "a=10", "rotate", "b=10", "checkpoint", "a=10", "rotate", "b=10")
    for hour in range(10):  # older than those, and full of holes: as good as 10 GiB to a reader
        path = tmp_path / "log" / f"ingest-20200101T{hour:02}0000.000Z.log"
        with path.open("wb") as stream:
            stream.write(line(1, device="old") + b"\n")
            stream.truncate(_GIB)
    before = _bytes_read()
    with DrivenFile(tmp_path) as running:
        assert _bytes_read() - before < 1 << 20
        assert [running.following(name) for name in "ab"] == [21, 21]


def test_the_mark_is_a_place_that_the_log_is_read_on_from(tmp_path: Path) -> None:
    crash(tmp_path, "a=3", "rotate", "a=2", "checkpoint", "a=1", "rotate", "a=2")
    with closing(Positions(tmp_path / "state" / "positions.db")) as positions:
        checkpoint = positions.checkpoint()
    assert checkpoint is not None
    place, found = checkpoint.mark, b""
    with Log(tmp_path / "log") as log:
        while True:
            place, block = log.read_from(place)
            if not block:
                break
            found += block
    # The last one may have been taken just before the kill.
    assert [parse(line).seq for line in found.splitlines()] in ([6, 7, 8], [7, 8], [8], [])


def _bytes_read() -> int:
    (count,) = (
        text.split()[1]
        for text in Path("/proc/self/io").read_text().splitlines()
        if text.startswith("rchar")
    )
    return int(count)


# The positions.


def _missing(path: Path) -> None:
    path.unlink()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _random(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(16384))


def _damaged_page(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096:] = random.Random(1).randbytes(len(content) - 4096)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _of_another_log(path: Path) -> None:
    _missing(path)
    other = path.parents[2] / "other"
    with DrivenFile(other) as running:
        running.write("a", 100)
    shutil.copy(other / "state" / "positions.db", path)


@pytest.mark.parametrize("spoil", [_missing, _random, _damaged_page, _cut, _of_another_log])
def test_positions_that_are_no_use_are_rebuilt(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    _stop(data, "a=3", "rotate", *(f"d{index}=1" for index in range(300)), "a=2")
    spoil(data / "state" / "positions.db")
    with DrivenFile(data) as running:
        assert [running.following(name) for name in ("a", "d7", "new")] == [6, 2, 1]
    rebuilt = [said for said in running.said if "is rebuilt from 2 files of the log" in said]
    assert len(rebuilt) == 1
    with DrivenFile(data) as running:
        assert [running.following(name) for name in ("a", "d7", "new")] == [6, 2, 1]
    assert running.said == []


def test_old_positions_are_brought_up_to_date(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _stop(data, "a=3", "b=1")
    shutil.copy(data / "state" / "positions.db", tmp_path / "old")
    _stop(data, "a=3", "rotate", "c=1", "rotate", "a=1")
    shutil.copy(tmp_path / "old", data / "state" / "positions.db")
    with DrivenFile(data) as running:
        assert [running.following(name) for name in "abc"] == [8, 2, 2]
    assert running.said == []


# Clocks and files that other programs have renamed.


def _written(path: Path, *seqs: int, clock: float = 0, device: str = "a") -> None:
    write(path, *[line(seq, device=device, time=seq + clock) for seq in seqs])


@pytest.mark.parametrize("clocks", [(3600.0, 0.0), (0.0, -3600.0), (10 * 366 * 86400.0, 0.0)])
def test_a_rebuild_gives_no_number_twice_whatever_the_clocks_said(
    clocks: tuple[float, float], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    _written(log / "ingest.log.2", 1, 2, 3, clock=clocks[0])
    _written(log / "ingest.log.1", 4, 5, 6, clock=clocks[1])
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 7


def test_the_highest_number_counts_in_whatever_order_files_and_lines_are(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    _written(log / "ingest.log.2", 8, 9, clock=3600)
    _written(log / "ingest.log.1", 5, 3, 4, 10, 1)
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 11


def test_a_newer_file_is_read_whatever_its_place_in_the_order(tmp_path: Path) -> None:
    crash(tmp_path, "a=3", "checkpoint")
    log = tmp_path / "log"
    # Nothing tells that this one is newer than the other: neither its times nor a common device.
    _written(log / "ingest.log.1", 1, 2, device="b", clock=-86400)
    (log / ACTIVE).rename(log / "ingest.log.2")
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "ab"] == [4, 3]


def test_a_copy_of_the_log_in_its_folder_changes_nothing(tmp_path: Path) -> None:
    crash(tmp_path, "a=3", "checkpoint")
    log = tmp_path / "log"
    shutil.copy(log / ACTIVE, log / "ingest.log.20261125")
    with DrivenFile(tmp_path) as running:
        running.write("a", 2)
        assert running.said == []
    assert [parse(line).seq for line in _lines(tmp_path)] == [1, 2, 3, 4, 5]


# A hot copy that was restored.


def test_a_jump_is_noted_and_no_breach(tmp_path: Path) -> None:
    crash(tmp_path, "a=30", "b=2", "rotate", "a=9", "checkpoint", "a=1")
    _deleted(tmp_path / "log" / ACTIVE)
    for _ in range(2):
        with DrivenFile(tmp_path) as running:
            assert verify(tmp_path / "log", read_positions(running.layout.positions)).breaches == []
            running.write("a", 2)
    with DrivenFile(tmp_path) as running:
        running.write("b", 1)
    report = verify(tmp_path / "log", read_positions(running.layout.positions))
    assert (report.breaches, report.jumps) == ([], 2)
    assert report.last["b"] == 2 + SKIPPED + 1


def test_a_start_that_was_killed_after_a_jump_jumps_by_a_noted_number(tmp_path: Path) -> None:
    crash(tmp_path, "a=30", "checkpoint", "a=9", "rotate", "a=1")
    _deleted(tmp_path / "log" / ACTIVE)
    for _ in range(2):
        _recover_and_die(tmp_path)
    with DrivenFile(tmp_path) as running:
        running.write("a", 1)
    report = verify(tmp_path / "log", read_positions(running.layout.positions))
    assert (report.breaches, report.jumps) == ([], 1)


def test_the_same_with_positions_that_were_saved_by_a_clean_stop(tmp_path: Path) -> None:
    _stop(tmp_path, "a=3")
    shutil.copy(tmp_path / "state" / "positions.db", tmp_path / "old")
    _stop(tmp_path, "a=1", "rotate", "a=2")
    shutil.copy(tmp_path / "old", tmp_path / "state" / "positions.db")
    (closed,) = (tmp_path / "log").glob("ingest-*.log")
    closed.unlink()
    for _ in range(2):
        _recover_and_die(tmp_path)
    with DrivenFile(tmp_path) as running:
        running.write("a", 1)
    report = verify(tmp_path / "log", read_positions(running.layout.positions))
    assert (report.breaches, report.jumps) == ([], 1)


def _recover_and_die(data: Path) -> None:
    """Start, and be killed before anything of it is saved."""
    layout = Layout(data)
    with closing(IntentFile(layout.intent, Disk())) as intent:
        recover(
            layout.log_folder,
            layout.positions,
            intent,
            lambda event: None,
            disk=Disk(),
            clock=Clock(),
        )


# An operator at work while the listener is stopped.


def _moved(active: Path) -> None:
    active.rename(active.with_name("ingest.log.1"))


def _packed(active: Path) -> None:
    active.with_name("ingest.log.1.gz").write_bytes(gzip.compress(active.read_bytes()))
    active.unlink()


def _moved_away(active: Path) -> None:
    active.rename(active.parents[1] / "elsewhere")


def _deleted(active: Path) -> None:
    active.unlink()


def _emptied(active: Path) -> None:
    os.truncate(active, 0)


def _halved(active: Path) -> None:
    os.truncate(active, active.stat().st_size // 2)


def _one_line_less(active: Path) -> None:
    active.write_bytes(b"".join(active.read_bytes().splitlines(keepends=True)[:-1]))


def _nothing_left(active: Path) -> None:
    for path in active.parent.glob("ingest*"):
        path.unlink()


_HARMLESS = [_moved, _packed]
_HARMFUL = [_moved_away, _deleted, _emptied, _halved, _one_line_less, _nothing_left]
_STEPS = [
    ("a=40", "b=2"),
    ("a=30", "b=2", "rotate", "a=10"),
    ("a=30", "b=1", "checkpoint", "b=1", "a=9", "rotate", "a=1"),
    ("b=2", "a=39", "checkpoint", "rotate", "a=1"),
]


@pytest.mark.parametrize("meddle", _HARMLESS + _HARMFUL)
@pytest.mark.parametrize("steps", _STEPS)
def test_after_a_clean_stop_numbers_are_exact_whatever_becomes_of_the_log(
    meddle: Callable[[Path], None], steps: tuple[str, ...], tmp_path: Path
) -> None:
    _stop(tmp_path, *steps)
    meddle(tmp_path / "log" / ACTIVE)
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "abc"] == [41, 3, 1]


@pytest.mark.parametrize("meddle", _HARMLESS)
@pytest.mark.parametrize("steps", _STEPS)
def test_after_a_crash_moved_files_are_found(
    meddle: Callable[[Path], None], steps: tuple[str, ...], tmp_path: Path
) -> None:
    crash(tmp_path, *steps)
    meddle(tmp_path / "log" / ACTIVE)
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "abc"] == [41, 3, 1]
    assert running.said == []


@pytest.mark.parametrize("meddle", _HARMFUL)
@pytest.mark.parametrize("steps", _STEPS)
def test_after_a_crash_numbers_never_go_back(
    meddle: Callable[[Path], None], steps: tuple[str, ...], tmp_path: Path
) -> None:
    crash(tmp_path, *steps)
    meddle(tmp_path / "log" / ACTIVE)
    with DrivenFile(tmp_path) as running:
        following = [running.following(name) for name in "ab"]
        assert following[0] > 40 and following[1] > 2
    assert running.said != []
    skips = [said for said in running.said if "numbers go on 10,000,000 higher" in said]
    assert len(skips) == (following[0] > SKIPPED)
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "ab"] == following


@pytest.mark.parametrize("end", [_stop, crash])
def test_rotated_files_may_go(end: Callable[..., None], tmp_path: Path) -> None:
    end(tmp_path, "a=3", "rotate", "a=1", "b=1", "checkpoint", "rotate", "a=1", "checkpoint", "a=1")
    for path in (tmp_path / "log").glob("ingest-*"):
        path.unlink()
    with DrivenFile(tmp_path) as running:
        assert [running.following(name) for name in "abc"] == [7, 2, 1]
    assert running.said == []


# Lines without their end.


def _forget_intent(data: Path) -> None:
    """Leave the state that another boot finds: what was about to be written is not trusted."""
    (data / "state" / "intent").unlink()


def test_a_torn_line_is_cut_away_in_a_closed_file(tmp_path: Path) -> None:
    crash(tmp_path, "a=3", "checkpoint")
    _forget_intent(tmp_path)
    with (tmp_path / "log" / ACTIVE).open("ab") as stream:
        stream.write(line(4)[:-1])
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
        running.write("a", 1)
    assert len(running.said) == 1
    assert "the end of its last whole line" in running.said[0]
    assert list(map(len, _lines_by_file(tmp_path))) == [3, 1]
    assert [parse(line).seq for line in _lines(tmp_path)] == [1, 2, 3, 4]


def test_nothing_but_a_torn_line_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / ACTIVE).write_bytes(b'{"time":')
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 1
    assert [file.path.name for file in log_files(tmp_path / "log")] == [ACTIVE]


def test_a_start_that_was_killed_before_it_cut_is_taken_up(tmp_path: Path) -> None:
    crash(tmp_path, "a=3", "rotate")
    _forget_intent(tmp_path)
    (closed,) = (tmp_path / "log").glob("ingest-*.log")
    with closed.open("ab") as stream:
        stream.write(line(4)[:-1])
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
        running.write("a", 1)
    assert [parse(line).seq for line in _lines(tmp_path)] == [1, 2, 3, 4]


def _forget_positions(data: Path) -> None:
    for path in (data / "state").glob("positions.db*"):
        path.unlink()


@pytest.mark.parametrize(
    ("before", "spoil"),
    [
        (("a=3", "checkpoint"), lambda data: None),
        (("a=3", "checkpoint"), _forget_positions),
        (("a=3",), lambda data: None),  # the checkpoint of the start knows no record
        (("a=1", "rotate", "a=2"), _forget_positions),
    ],
)
def test_what_next_tells_is_synced_first(
    before: tuple[str, ...],
    spoil: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash(tmp_path, *before, "a=2")
    spoil(tmp_path)
    active = tmp_path / "log" / ACTIVE
    content = active.read_bytes()
    written: list[int] = []
    synced: list[int] = []

    def fdatasync(fd: int) -> None:
        written.append(os.fstat(fd).st_ino)
        real(fd)

    real = os.fdatasync
    monkeypatch.setattr(Disk, "fdatasync", staticmethod(fdatasync))
    with DrivenFile(tmp_path) as running:
        synced += written
        assert running.following("a") == 6
    assert active.stat().st_ino in synced
    assert active.read_bytes() == content


def test_a_closed_file_that_was_cut_and_not_synced_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what was cut off may be back after a power cut, beside its copy in the next file."""
    crash(tmp_path, "a=3", "rotate", "a=1", "checkpoint")
    (closed,) = (tmp_path / "log").glob("ingest-*.log")
    synced: list[int] = []

    def fdatasync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    real = os.fdatasync
    monkeypatch.setattr(Disk, "fdatasync", staticmethod(fdatasync))
    with DrivenFile(tmp_path):
        assert closed.stat().st_ino in synced


def test_lines_behind_a_hole_are_cut(tmp_path: Path) -> None:
    """A power cut may leave a file's size, and zeros in the place of some of its pages."""
    crash(tmp_path, "a=3", "checkpoint", "a=3")
    active = tmp_path / "log" / ACTIVE
    lines = active.read_bytes().splitlines(keepends=True)
    active.write_bytes(b"".join((*lines[:3], bytes(len(lines[3]) + 7), lines[4][7:], lines[5])))
    _forget_intent(tmp_path)
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
        running.write("a", 1)
    assert [parse(line).seq for line in _lines(tmp_path)] == [1, 2, 3, 4]
