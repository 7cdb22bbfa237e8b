"""What the journal on disk does beside the contract (see `test_contract`)."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.journal import file as file_module
from ingest.journal.archive import ArchivePolicy, Archivist
from ingest.journal.events import (
    ClockLeapt,
    DiskFailing,
    DiskRecovered,
    PositionsFailing,
    PositionsRecovered,
    PositionsReplaced,
    Removed,
    Rotated,
)
from ingest.journal.file import BACKLOG, FileJournal, JournalPolicy
from ingest.journal.home import Home
from ingest.journal.interface import Lease
from ingest.journal.positions import Mark, Positions, read_positions
from ingest.journal.rotation import RetentionPolicy, RotationPolicy
from ingest.layout import Layout
from tests.journal.disks import NOW, Clocks
from tests.log.logs import BEGIN, line
from tests.support.journals import DrivenFile, Flow, Holder, Report, append
from tests.support.waiting import wait_for


def open_journal(data: Path, policy: JournalPolicy | None = None) -> tuple[DrivenFile, Holder]:
    """Start a journal and claim device `a`."""
    driven, holder = DrivenFile(data, policy), Holder()
    driven.journal.claim("a", holder)
    return driven, holder


def push(driven: DrivenFile, lease: Lease, count: int = 1) -> None:
    """Append records and wait until they are durable."""
    append(driven.journal, lease, count)
    driven.settle(lambda: lease.durable == lease.last)


def test_numbers_go_on_after_a_restart(tmp_path: Path) -> None:
    for last in (0, 3, 6):
        driven, holder = open_journal(tmp_path)
        assert holder.told == [("granted", last)]
        push(driven, holder.lease, 3)
        driven.close()
    assert len(driven.lines()) == 9


@pytest.mark.parametrize("is_rebooted", [False, True])
def test_a_close_saves_the_numbers_that_nobody_has_heard_of(
    is_rebooted: bool, tmp_path: Path
) -> None:
    driven, holder = open_journal(tmp_path)
    append(driven.journal, holder.lease, 3)
    driven.journal.close()  # with its last answers on their way
    if is_rebooted:
        driven.layout.intent.unlink()
    again, holder = open_journal(tmp_path)
    assert holder.told == [("granted", 3)]
    again.close()


def test_a_rotation_on_demand(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    closed: list[Path | None] = []
    driven.journal.rotate(closed.append)
    driven.settle(lambda: len(closed) == 1)
    push(driven, holder.lease)
    driven.journal.rotate(closed.append)
    driven.settle(lambda: len(closed) == 2)
    push(driven, holder.lease)
    driven.close()
    assert closed[0] is None
    assert closed[1] is not None
    assert closed[1].read_bytes().count(b"\n") == 1
    assert f"the log was rotated to {closed[1].name}" in driven.report.lines
    assert len(driven.lines()) == 2


def test_a_file_does_not_exceed_its_size(tmp_path: Path) -> None:
    policy = JournalPolicy(RotationPolicy(size=1000))
    driven, holder = open_journal(tmp_path, policy)
    for _ in range(20):
        push(driven, holder.lease, 3)
    driven.close()
    sizes = [path.stat().st_size for path in driven.layout.log_folder.glob("ingest*.log")]
    assert len(sizes) == 5
    assert max(sizes) <= 1000
    assert len(driven.lines()) == 60


def test_a_block_that_is_larger_than_a_file_stays_whole(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path, JournalPolicy(RotationPolicy(size=100)))
    push(driven, holder.lease, 50)
    push(driven, holder.lease, 50)
    driven.close()
    (closed,) = driven.layout.log_folder.glob("ingest-*.log")
    assert closed.read_bytes().count(b"\n") == 50


def test_another_policy(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    push(driven, holder.lease, 5)
    driven.journal.set_policy(
        JournalPolicy(RotationPolicy(size=10), ArchivePolicy(compression="gzip"))
    )
    folder = driven.layout.log_folder
    while not list(folder.glob("ingest-*")):
        push(driven, holder.lease)
    wait_for(lambda: {path.suffix for path in folder.glob("ingest-*")} == {".gz"})
    driven.close()
    assert (folder / "ingest.log").read_bytes().count(b"\n") == 1


def test_a_file_that_was_moved_is_left(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    push(driven, holder.lease)
    log = driven.layout.log_folder / "ingest.log"
    log.rename(log.with_name("ingest.log.1"))
    driven.journal.reopen()
    driven.settle(log.exists)
    push(driven, holder.lease)
    driven.close()
    assert log.read_bytes().count(b"\n") == 1
    assert any("was moved by another program" in line for line in driven.report.lines)


def test_too_much_that_waits_stops_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "BACKLOG", 1000)
    monkeypatch.setattr(file_module, "_RELIEVED", 250)
    driven, holder = open_journal(tmp_path)
    append(driven.journal, holder.lease, 5)
    assert driven.flow.paused == 0
    append(driven.journal, holder.lease, 50)
    append(driven.journal, holder.lease, 50)
    assert driven.flow.paused == 1
    driven.settle(lambda: driven.flow.resumed == 1)
    assert driven.journal.backlog <= 250
    driven.settle(lambda: holder.lease.durable == 105)
    assert driven.journal.backlog == 0
    assert (driven.flow.paused, driven.flow.resumed) == (1, 1)
    driven.close()


def test_the_bound_is_for_a_fleet() -> None:
    assert BACKLOG == 32 << 20


def test_a_failing_disk_stops_the_flow_and_says_so_once(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    push(driven, holder.lease)
    log = driven.layout.log_folder / "ingest.log"
    # A folder in the log's place is what the disk refuses to open, even for root.
    log.rename(log.with_name("ingest.log.1"))
    log.mkdir()
    append(driven.journal, holder.lease)
    driven.settle(lambda: driven.journal.health is not None)
    assert driven.flow.paused == 1
    assert holder.lease.durable == 1
    log.rmdir()
    driven.settle(lambda: holder.lease.durable == 2)
    assert driven.journal.health is None
    assert driven.flow.resumed == 1
    driven.close()
    said = [line for line in driven.report.lines if "takes" in line]
    assert [("no records" in line, "again" in line) for line in said] == [
        (True, False),
        (False, True),
    ]


def test_without_sync_records_are_durable_too(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path, JournalPolicy(sync=False))
    push(driven, holder.lease, 10)
    driven.close()
    assert len(driven.lines()) == 10


def _damage(path: Path) -> None:
    """Overwrite a database that is in use, so that what SQLite holds in memory is outdated too."""
    for suffix in ("", "-wal", "-shm"):
        name = path.with_name(path.name + suffix)
        with name.open("r+b") as stream:
            stream.write(b"\xff" * name.stat().st_size)


def test_damaged_positions_are_made_anew(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    push(driven, holder.lease, 3)
    driven.close()
    driven, holder = open_journal(tmp_path)
    _damage(driven.layout.positions)
    stranger = Holder()
    driven.journal.claim("stranger", stranger)  # no claim waits for the database
    assert stranger.told == [("granted", 0)]
    push(driven, holder.lease, 2)
    driven.settle(lambda: bool(driven.events()))
    assert read_positions(driven.layout.positions)["a"] >= 3
    driven.close()
    assert [type(event) for event in driven.events()] == [PositionsReplaced]
    driven, holder = open_journal(tmp_path)
    assert holder.told == [("granted", 5)]
    driven.close()
    assert driven.events() == []


def test_positions_that_take_nothing_are_told_of_once(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    database = driven.layout.positions
    driven.settle(database.exists)
    _remove(database)
    database.mkdir()  # a folder in its place is what no one can replace, not even root
    (database / "file").touch()
    push(driven, holder.lease)
    driven.settle(lambda: driven.journal.health is not None)
    assert driven.journal.health is not None
    assert driven.journal.health.kind == "positions-failing"
    for _ in range(3):
        driven.journal.keeper.step()
    push(driven, holder.lease)  # records are taken all the same
    (database / "file").unlink()
    database.rmdir()
    driven.settle(lambda: driven.journal.health is None)
    assert read_positions(database)["a"] >= 1
    driven.close()
    assert [type(event) for event in driven.events()] == [
        PositionsFailing,
        PositionsReplaced,
        PositionsRecovered,
    ]


def _remove(database: Path) -> None:
    for path in database.parent.glob("positions.db*"):
        path.unlink()


def _folder_moved(layout: Layout) -> tuple[Path, Path]:
    return layout.data, layout.data.with_name("moved")


def _state_moved(layout: Layout) -> tuple[Path, Path]:
    return layout.state_folder, layout.data / "moved"


def _log_moved(layout: Layout) -> tuple[Path, Path]:
    return layout.log_folder, layout.data / "moved"


def _lock_moved(layout: Layout) -> tuple[Path, Path]:
    return layout.lock, layout.state_folder / "moved"


def test_a_folder_that_is_moved_while_it_is_looked_through_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, moved = Layout(tmp_path / "data"), list[Path]()
    driven, _ = open_journal(layout.data)

    def move(_: Archivist) -> None:
        moved.append(layout.data.rename(tmp_path / "moved"))
        raise FileNotFoundError(errno.ENOENT, "it is not there")

    monkeypatch.setattr(Archivist, "tidy", move)
    driven.journal.archivist.wake()
    driven.settle(lambda: driven.journal.health is not None)
    driven.close()
    assert moved
    assert [type(event) for event in driven.events()] == [DiskFailing]


@pytest.mark.parametrize("moved", [_folder_moved, _state_moved, _log_moved, _lock_moved])
@pytest.mark.parametrize("is_followed", [False, True], ids=["alone", "with a second one"])
def test_a_folder_that_is_not_the_one_we_locked_takes_no_records(
    moved: Callable[[Layout], tuple[Path, Path]], is_followed: bool, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.lock.touch()
    driven, holder = open_journal(layout.data)
    push(driven, holder.lease, 3)
    path, target = moved(layout)
    path.rename(target)
    if is_followed:
        layout.create()
        layout.lock.touch()
        if not (layout.log_folder / "ingest.log").exists():
            (layout.log_folder / "ingest.log").touch()
    before = _content(layout.data)
    driven.settle(lambda: driven.journal.health is not None)
    assert driven.journal.health is not None
    assert driven.journal.health.kind == "folder-replaced"
    assert driven.flow.paused == 1
    for _ in range(6):
        append(driven.journal, holder.lease)
    assert holder.lease.durable == 3
    assert _content(layout.data) == before
    if is_followed:
        driven.close()
        assert _content(layout.data) == before
    else:  # put back, it goes on
        target.rename(path)
        driven.settle(lambda: holder.lease.durable == 9)
        assert driven.journal.health is None
        driven.close()
        assert len(driven.lines()) == 9
    assert [type(event) for event in driven.events()] == [
        DiskFailing,
        *([] if is_followed else [DiskRecovered]),
    ]
    assert "is not the one that this listener locked at its start" in driven.report.lines[0]


def test_nor_does_a_folder_that_a_link_leads_to(tmp_path: Path) -> None:
    """The disk that the log is on is gone, and what is at its path is an empty folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log").symlink_to(disk)
    driven, holder = open_journal(tmp_path / "data")
    push(driven, holder.lease, 3)
    disk.rename(tmp_path / "gone")
    disk.mkdir()
    append(driven.journal, holder.lease)
    driven.settle(lambda: driven.journal.health is not None)
    assert driven.journal.health is not None
    assert driven.journal.health.kind == "folder-replaced"
    assert list(disk.iterdir()) == []
    disk.rmdir()
    (tmp_path / "gone").rename(disk)
    driven.settle(lambda: holder.lease.durable == 4)
    driven.close()
    assert len(driven.lines()) == 4


def test_a_folder_that_can_not_be_looked_at_ends_no_checkpoints_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven, holder = open_journal(tmp_path)
    push(driven, holder.lease, 3)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(Home, "check", refuse)
        patched.setattr(Positions, "save", refuse)
        driven.journal.numbers.note({holder.lease.device: 3}, Mark("", "", 0))
        driven.journal.keeper.step()
    driven.journal.keeper.step()
    assert read_positions(driven.layout.positions) == {holder.lease.device: 3}
    driven.close()


def _content(data: Path) -> dict[Path, bytes]:
    folder = data / "log"
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("moved", [_folder_moved, _log_moved])
def test_not_one_record_goes_to_a_folder_that_is_another_listeners(
    moved: Callable[[Layout], tuple[Path, Path]], tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "data")
    driven, holder = open_journal(layout.data)
    push(driven, holder.lease, 3)
    path, target = moved(layout)
    path.rename(target)
    layout.create()
    append(driven.journal, holder.lease)
    driven.settle(lambda: driven.journal.health is not None)
    driven.close()
    assert _content(layout.data) == {}
    assert holder.lease.durable == 3


def test_a_clock_that_is_wrong_for_a_while(tmp_path: Path) -> None:
    """Ten years ahead for some seconds: files are closed soon after each step, and all stay."""
    layout, clocks, report, holder = Layout(tmp_path), Clocks(), Report(), Holder()
    layout.create()
    _touch(NOW, layout.log_folder / "ingest.log")
    policy = JournalPolicy(
        RotationPolicy(every=_DAY), ArchivePolicy(retention=RetentionPolicy(age=30 * _DAY))
    )
    journal = FileJournal(layout, policy, _call, Flow(), report, clock=clocks.clock)
    journal.claim("a", holder)
    for step in (0.0, _TEN_YEARS, -_TEN_YEARS, _DAY):
        clocks.set(step)
        _look(journal, clocks)
        seq = holder.lease.last + 1
        stamped = line(seq, time=clocks.wall - BEGIN.timestamp()) + b"\n"
        journal.append(holder.lease, stamped, 1)
        journal.writer.step()
        assert holder.lease.durable == seq
        journal.keeper.step()
        _touch(NOW, *layout.log_folder.glob("ingest-*"))
        journal.archivist.step()
    journal.close()
    closed = sorted(layout.log_folder.glob("ingest-*"))
    assert [path.name[7:11] for path in closed] == ["2036"] * 3, "in the order of their closing"
    assert [path.read_bytes().count(b"\n") for path in closed] == [1, 1, 1]
    _, *said = map(type, report.events)  # the first start found a file and no positions
    assert said == [Rotated, ClockLeapt, Rotated, Rotated]
    # Their names are from the future; they grow old like all others.
    for path, changed in zip(closed, (NOW, NOW + _TEN_YEARS, NOW + _DAY), strict=True):
        _touch(changed, path)
    policy = replace(policy, rotation=RotationPolicy())
    left = []
    for days in (29.5, 30.5, 31.5):
        clocks.wall = NOW + days * _DAY
        journal = FileJournal(layout, policy, _call, Flow(), report, clock=clocks.clock)
        journal.archivist.step()
        journal.close()
        left.append(sorted(layout.log_folder.glob("ingest-*")))
    assert left == [closed, closed[1:], []]
    assert [event.name for event in report.events if isinstance(event, Removed)] == [
        path.name for path in closed
    ]


_DAY = 86400.0


def _touch(changed: float, *paths: Path) -> None:
    """Set when files were changed, as the clock of the test would have."""
    for path in paths:
        path.touch()
        os.utime(path, (changed, changed))


_TEN_YEARS = 3650 * _DAY


def _look(journal: FileJournal, clocks: Clocks) -> None:
    """Let the writer wait for what comes, in vain, as long as it does."""
    for _ in range(2):
        wait = journal.writer.step()
        assert wait is not None
        clocks.advance(wait.seconds)


def _call(call: Callable[..., object], *arguments: object) -> None:
    call(*arguments)
