"""What becomes of closed files."""

import gzip
import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from ingest.journal.archive import ArchivePolicy, Archivist, Compression
from ingest.journal.clock import Clock
from ingest.journal.events import ClockLeapt, Removed
from ingest.journal.removal import NOTHING, Removal, read_removal
from ingest.journal.rotation import RetentionPolicy
from tests.journal.disks import NOW, Clocks
from tests.log.logs import line, write
from tests.support.journals import Report

OLDEST = "ingest-20261122T110000.000Z.log"
NEWEST = "ingest-20261122T120000.000Z.log"
DAY = 86400.0
KEEP_ALL = RetentionPolicy()


def archivist(
    folder: Path,
    compression: Compression = "none",
    retention: RetentionPolicy = KEEP_ALL,
    needed_after: str | None = None,
) -> Archivist:
    return Archivist(
        folder, ArchivePolicy(compression, retention), Report(), Clock(), needed_after=needed_after
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of two closed files and the active one."""
    write(tmp_path / OLDEST, line(1), line(2))
    write(tmp_path / NEWEST, line(3))
    write(tmp_path / "ingest.log", line(4))
    return tmp_path


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compression_keeps_content_mode_and_time(folder: Path, compression: Compression) -> None:
    original = (folder / OLDEST).read_bytes()
    os.utime(folder / OLDEST, (1_000_000, 2_000_000))
    (folder / OLDEST).chmod(0o640)
    archivist(folder, compression).tidy()
    suffix = {"gzip": ".gz", "zstd": ".zst"}[compression]
    assert names(folder) == [OLDEST + suffix, NEWEST + suffix, "ingest.log"]
    copy = folder / (OLDEST + suffix)
    assert _unpacked(copy) == original
    assert copy.stat().st_mtime == 2_000_000
    assert copy.stat().st_mode & 0o777 == 0o640


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as stream:
        return stream.read()


def test_what_is_compressed_already_stays_as_it_is(folder: Path) -> None:
    archivist(folder, "gzip").tidy()
    archivist(folder, "zstd").tidy()
    assert names(folder) == [f"{OLDEST}.gz", f"{NEWEST}.gz", "ingest.log"]


def test_an_original_beside_its_copy_is_removed(folder: Path) -> None:
    """As after a crash between the two steps."""
    write(folder / f"{OLDEST}.zst", line(1), line(2))
    archivist(folder).tidy()
    assert names(folder) == [f"{OLDEST}.zst", NEWEST, "ingest.log"]


def test_a_half_made_copy_is_removed(folder: Path) -> None:
    (folder / f"{OLDEST}.zst.tmp").write_bytes(b"half")
    archivist(folder).tidy()
    assert names(folder) == [OLDEST, NEWEST, "ingest.log"]


def test_the_oldest_files_go(folder: Path) -> None:
    archivist(folder, retention=RetentionPolicy(files=1)).tidy()
    assert names(folder) == [NEWEST, "ingest.log"]


def test_files_go_by_age_and_size(folder: Path) -> None:
    newest = (folder / NEWEST).stat().st_size
    archivist(folder, retention=RetentionPolicy(size=newest)).tidy()
    assert names(folder) == [NEWEST, "ingest.log"]
    (folder / "ingest-20000101T000000.000Z.log").touch()
    archivist(folder, retention=RetentionPolicy(age=10 * 365 * 86400)).tidy()
    assert names(folder) == [NEWEST, "ingest.log"]


def test_files_that_a_start_would_need_stay(folder: Path) -> None:
    """Whatever the policy says: only they tell the newest numbers."""
    archive = archivist(folder, "gzip", RetentionPolicy(size=1), needed_after="")
    archive.tidy()
    assert names(folder) == [f"{OLDEST}.gz", f"{NEWEST}.gz", "ingest.log"]
    assert read_removal(folder) == NOTHING
    archive.set_needed_after(OLDEST, 17)
    archive.tidy()
    assert names(folder) == [".ingest-removed", f"{NEWEST}.gz", "ingest.log"]
    assert read_removal(folder) == Removal(OLDEST, 17)


def test_what_was_removed_is_noted_before(folder: Path) -> None:
    """A start that finds no positions must know that the log does not tell all numbers."""
    archive = archivist(folder, "gzip", RetentionPolicy(files=1), needed_after="")
    archive.tidy()
    archive.set_needed_after(NEWEST, 17)
    note = folder / ".ingest-removed"
    note.mkdir()  # no note can be made
    with pytest.raises(OSError, match="ingest-removed"):
        archive.tidy()
    assert (folder / f"{OLDEST}.gz").exists()
    note.rmdir()
    archive.tidy()
    assert not (folder / f"{OLDEST}.gz").exists()
    # A later note keeps what an earlier one says.
    archive.set_needed_after("", 4)
    archive.policy = ArchivePolicy(retention=RetentionPolicy(size=1))
    archive.set_needed_after(NEWEST, 4)
    archive.tidy()
    assert read_removal(folder) == Removal(NEWEST, 17)


@pytest.mark.parametrize("junk", [b"", b"junk", b"[]", b'{"newest":"x"}', b'{"highest":"x"}'])
def test_a_note_that_makes_no_sense_is_none(folder: Path, junk: bytes) -> None:
    (folder / ".ingest-removed").write_bytes(junk)
    assert read_removal(folder) == NOTHING


def test_files_that_are_not_the_logs_stay(folder: Path) -> None:
    for name in ("ingest.log.1", "notes.txt", "ingest-old.log"):
        (folder / name).write_text("not ours\n")
    archivist(folder, "gzip", RetentionPolicy(files=1)).tidy()
    assert {"ingest.log.1", "notes.txt", "ingest-old.log"} <= set(names(folder))


def test_the_thread_looks_when_it_is_woken_and_stops(folder: Path) -> None:
    thread = archivist(folder, "zstd")
    thread.start()
    thread.wake()
    thread.stop()
    assert "ingest-archive" not in [each.name for each in threading.enumerate()]
    assert not [name for name in names(folder) if name.endswith(".tmp")]


def test_trouble_is_told_once(folder: Path) -> None:
    report = Report()
    thread = Archivist(folder, ArchivePolicy(), report, Clock())
    shutil.rmtree(folder)
    thread.start()
    for _ in range(3):
        thread.wake()
    thread.stop()
    assert len(report.lines) == 1
    assert report.lines[0].startswith("closed files can't be looked after: ")


def _named(seconds: float) -> str:
    closed = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"ingest-{closed:%Y%m%dT%H%M%S}.000Z.log"


def _file(folder: Path, closed: float, changed: float | None = None) -> str:
    """Put a closed file there; times are in seconds since 1970."""
    name = _named(closed)
    write(folder / name, line(1))
    os.utime(folder / name, (NOW, closed if changed is None else changed))
    return name


class TestAges:
    """Files are removed by their age, and by no age that the clock makes up."""

    @pytest.fixture
    def clocks(self) -> Clocks:
        return Clocks()

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        (tmp_path / "log").mkdir()
        return tmp_path / "log"

    def _start(self, log: Path, clocks: Clocks) -> tuple[Archivist, Report]:
        report = Report()
        policy = ArchivePolicy(retention=RetentionPolicy(age=30 * DAY))
        return Archivist(log, policy, report, clocks.clock), report

    def test_each_removal_is_told(self, log: Path, clocks: Clocks) -> None:
        gone = [_file(log, NOW - days * DAY) for days in (32, 31)]
        kept = _file(log, NOW - 29 * DAY)
        archive, report = self._start(log, clocks)
        archive.tidy()
        assert names(log) == [kept]
        assert report.events == [
            Removed(name, "it was closed more than 30 days ago") for name in gone
        ]
        assert report.lines[0] == f"{gone[0]} is removed: it was closed more than 30 days ago"

    @pytest.mark.parametrize("years", [1, 10, 70])
    def test_a_clock_that_leaps_ahead_removes_nothing_and_is_told_of_once(
        self, years: int, log: Path, clocks: Clocks
    ) -> None:
        kept = [_file(log, NOW - days * DAY) for days in (29, 2, 1)]
        archive, report = self._start(log, clocks)
        archive.tidy()
        clocks.set(years * 365 * DAY)
        for _ in range(10):
            clocks.advance(60)
            archive.tidy()
        assert names(log) == kept
        assert report.lines == [
            f"the clock has leapt {years * 365} days ahead: closed files are removed by their age"
            " again when it is set back, or has stood so for a day"
        ]
        clocks.set(-years * 365 * DAY)
        clocks.advance(1.5 * DAY)
        archive.tidy()
        assert names(log) == kept[1:]

    def test_a_start_while_the_clock_is_ahead_removes_nothing(
        self, log: Path, clocks: Clocks
    ) -> None:
        kept = [_file(log, NOW - days * DAY) for days in (29, 2, 1)]
        clocks.set(10 * 365 * DAY)
        archive, report = self._start(log, clocks)
        archive.tidy()
        assert names(log) == kept
        assert [type(event) for event in report.events] == [ClockLeapt]

    def test_files_closed_while_the_clock_was_ahead_go_when_they_are_old(
        self, log: Path, clocks: Clocks
    ) -> None:
        future = NOW + 10 * 365 * DAY
        _file(log, NOW - 20 * DAY)
        _file(log, future)
        # Since then each name is a little later than the one before; only the change tells when.
        _file(log, future + 1, NOW - 5 * DAY)
        newest = _file(log, future + 2, NOW - 1 * DAY)
        archive, report = self._start(log, clocks)
        archive.tidy()
        assert report.events == []
        clocks.advance(26 * DAY)
        archive.tidy()
        assert names(log) == [newest]
        assert len(report.events) == 3

    def test_other_rules_do_not_look_at_the_clock(self, log: Path, clocks: Clocks) -> None:
        _file(log, NOW - 2 * DAY)
        kept = _file(log, NOW - 1 * DAY)
        report = Report()
        policy = ArchivePolicy(retention=RetentionPolicy(files=1))
        archive = Archivist(log, policy, report, clocks.clock)
        clocks.set(10 * 365 * DAY)
        archive.tidy()
        assert names(log) == [kept]
        assert report.lines == [f"{_named(NOW - 2 * DAY)} is removed: 1 newer ones are kept"]


def test_a_copy_is_not_written_through_a_link(folder: Path) -> None:
    """Who may write the folder must not make us write elsewhere."""
    victim = folder / "victim"
    victim.write_text("not ours")
    archive = archivist(folder, "gzip")
    (folder / f"{OLDEST}.gz.tmp").symlink_to(victim)
    archive.tidy()
    assert victim.read_text() == "not ours"
    with pytest.raises(FileExistsError):
        (folder / "link").symlink_to(victim)
        archive._write_copy(folder / "ingest.log", folder / "link", "gzip")
    assert victim.read_text() == "not ours"
