"""The active file: append, fall short, go on in the same place, close, follow."""

import errno
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from ingest.journal.active import ActiveFile
from ingest.journal.clock import Clock
from ingest.journal.intent import ROOM, IntentFile
from ingest.log.files import ACTIVE, LogFile, identity
from tests.journal.disks import FaultyDisk, home_of
from tests.log.limits import largest_file
from tests.log.logs import BEGIN, at, line

_FULL = ROOM + (1 << 20)


@pytest.fixture
def make(folder: Path, disk: FaultyDisk) -> Iterator[Callable[[], ActiveFile]]:
    """Opens the active file, as a start does."""
    intent = IntentFile(folder.with_name("intent"), disk)
    home = home_of(folder)
    opened: list[ActiveFile] = []

    def make() -> ActiveFile:
        closed = [path.name for path in sorted(folder.glob("ingest-*"))]
        newest = closed[-1] if closed else None
        active = ActiveFile(folder, intent, newest, home=home, disk=disk, clock=Clock())
        opened.append(active)
        return active

    yield make
    for active in opened:
        active.close()
    intent.close()


@pytest.fixture
def active(make: Callable[[], ActiveFile]) -> ActiveFile:
    return make()


def _blocks(count: int, size: int = 100) -> list[bytes]:
    text = '"text":"%s"' % ("x" * size)
    return [line(seq, text) + b"\n" for seq in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 5000])
@pytest.mark.parametrize("size", [10, 3000])
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_appended_is_there(
    count: int, size: int, sync: bool, active: ActiveFile, folder: Path
) -> None:
    blocks = _blocks(count, size)
    for part in (blocks[: count // 2], blocks[count // 2 :]):
        active.append(part, sync=sync)
    content = (folder / ACTIVE).read_bytes()
    assert content == b"".join(blocks)
    assert active.size == active.mark.offset == len(content)
    assert bytes.fromhex(active.mark.head) == content[: content.index(b"\n") + 1][:512]


def test_a_short_write_is_completed_in_its_place(active: ActiveFile, folder: Path) -> None:
    blocks = _blocks(1500, 5000)
    active.append(blocks[:1], sync=True)
    before = identity(folder / ACTIVE)
    with largest_file(_FULL):
        with pytest.raises(OSError):
            active.append(blocks[1:], sync=True)
        assert (folder / ACTIVE).stat().st_size == _FULL
        assert active.size == len(blocks[0]), "nothing of it counts yet"
        with pytest.raises(OSError):
            active.resume(sync=True)
    active.resume(sync=True)
    assert (folder / ACTIVE).read_bytes() == b"".join(blocks)
    assert identity(folder / ACTIVE) == before
    assert active.size == sum(map(len, blocks))


@pytest.mark.parametrize("call", ["fdatasync", "fallocate"])
def test_after_a_failed_sync_the_file_is_left_at_its_last_durable_line(
    call: str, active: ActiveFile, folder: Path, disk: FaultyDisk
) -> None:
    first, *rest = _blocks(10)
    active.append([first], sync=True)
    with disk.failing(errno.EIO, call), pytest.raises(OSError):
        active.append(rest, sync=True)
    active.resume(sync=True)
    (closed,) = folder.glob("ingest-*.log")
    assert closed.read_bytes() == first
    assert (folder / ACTIVE).read_bytes() == b"".join(rest)
    assert active.mark.closed == closed.name


@pytest.mark.parametrize("call", ["fdatasync", "fallocate"])
def test_while_syncs_fail_no_empty_files_are_left(
    call: str, active: ActiveFile, folder: Path, disk: FaultyDisk
) -> None:
    first, *rest = _blocks(10)
    active.append([first], sync=True)
    active.rotate()
    with disk.failing(errno.EIO, call):
        with pytest.raises(OSError):
            active.append(rest, sync=True)
        for _ in range(5):
            with pytest.raises(OSError):
                active.resume(sync=True)
    active.resume(sync=True)
    (closed,) = folder.glob("ingest-*.log")
    assert closed.read_bytes() == first
    assert (folder / ACTIVE).read_bytes() == b"".join(rest)
    assert active.mark.closed == closed.name


def test_a_file_is_closed_under_a_later_name_each_time(active: ActiveFile, folder: Path) -> None:
    blocks = _blocks(3)
    for block in blocks:
        active.append([block], sync=True)
        active.rotate()
    closed = sorted(folder.glob("ingest-*.log"))
    assert [path.read_bytes() for path in closed] == blocks
    assert all(LogFile(path).closed for path in closed)
    assert (folder / ACTIVE).read_bytes() == b""
    assert active.mark == (closed[-1].name, "", 0)


def test_a_file_that_another_program_puts_in_place_is_not_renamed(
    active: ActiveFile, folder: Path
) -> None:
    active.append(_blocks(1), sync=True)
    (folder / ACTIVE).rename(folder / "ingest.log.1")
    (folder / ACTIVE).write_bytes(b"")
    active.rotate()
    assert sorted(path.name for path in folder.iterdir()) == [ACTIVE, "ingest.log.1"]


def _move(path: Path) -> None:
    path.rename(path.with_name("ingest.log.1"))


def _cut(path: Path) -> None:
    os.truncate(path, len(_blocks(1)[0]))


@pytest.mark.parametrize(
    ("meddle", "told", "left"),
    [(_move, "was moved", 0), (Path.unlink, "was moved", 0), (_cut, "was cut to", 1)],
)
def test_another_program_is_followed(
    meddle: Callable[[Path], None], told: str, left: int, active: ActiveFile, folder: Path
) -> None:
    blocks = _blocks(4)
    active.append(blocks[:3], sync=True)
    assert active.reopen_if_moved() is None
    meddle(folder / ACTIVE)
    found = active.reopen_if_moved()
    assert found is not None and told in str(found)
    active.append(blocks[3:], sync=True)
    assert (folder / ACTIVE).read_bytes() == b"".join(blocks[:left] + blocks[3:])
    first = blocks[0] if left else blocks[3]
    assert bytes.fromhex(active.mark.head) == first


def test_a_file_begins_with_its_first_record(
    active: ActiveFile, make: Callable[[], ActiveFile]
) -> None:
    assert active.begun > BEGIN.timestamp(), "an empty one when it was made"
    active.append([line(1, time=7) + b"\n"], sync=True)
    assert datetime.fromtimestamp(active.begun, tz=BEGIN.tzinfo) == at(7)
    assert make().begun == active.begun


def test_what_is_there_is_gone_on_with(
    active: ActiveFile, make: Callable[[], ActiveFile], folder: Path
) -> None:
    first, second = _blocks(2)
    active.append([first], sync=True)
    again = make()
    assert (again.size, again.mark) == (active.size, active.mark)
    again.append([second], sync=True)
    assert (folder / ACTIVE).read_bytes() == first + second
