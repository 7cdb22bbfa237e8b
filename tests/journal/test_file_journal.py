"""What the journal on disk does beside the contract (see `test_memory`)."""

from pathlib import Path

import pytest

from ingest.journal import file as file_module
from ingest.journal.archive import ArchivePolicy
from ingest.journal.file import BACKLOG, JournalPolicy
from ingest.journal.interface import Lease
from ingest.journal.rotation import RotationPolicy
from tests.journal.holders import DrivenFile, Holder, append, eventually


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


def test_what_was_appended_before_close_is_written(tmp_path: Path) -> None:
    driven, holder = open_journal(tmp_path)
    append(driven.journal, holder.lease, 1000)
    driven.close()
    assert len(driven.lines()) == 1000


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
    eventually(lambda: {path.suffix for path in folder.glob("ingest-*")} == {".gz"})
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
