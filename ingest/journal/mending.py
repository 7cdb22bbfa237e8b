"""What a kill or a power cut left of the files: writes cut short, torn lines, lines not synced."""

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from ingest.journal.disk import Disk
from ingest.journal.events import Report, TornLineCut, WriteCompleted
from ingest.journal.intent import IntentFile
from ingest.journal.survey import numbers_of
from ingest.log.files import ACTIVE, LogFile, identity, rotated_name, whole_end

UNSYNCED = 16 << 20
"""Bytes at the end of a file that are more than one commit: all that was before them is synced."""
_BLOCK = 4 << 20


def complete_write(
    files: list[LogFile], intent_file: IntentFile, disk: Disk, report: Report
) -> dict[str, int]:
    """Finish the write that a kill cut short.

    Returns:
        The numbers that the last write brought; none if it had not begun.
    """
    intent = intent_file.get()
    if intent is None:
        return {}
    for file in reversed(files):
        if file.compressed or identity(file.path) != intent.identity:
            continue
        size = file.path.stat().st_size
        if size == intent.offset and not intent.done:
            return {}
        missing = intent.offset + len(intent.data) - size
        if size > intent.offset and missing > 0:
            with disk.opened(file.path, os.O_WRONLY | os.O_APPEND) as fd:
                disk.write_all(fd, intent.data[-missing:])
                disk.fdatasync(fd)
            report(WriteCompleted(file.path, size))
    return numbers_of(intent.data)


def cut_torn_lines(
    folder: Path, newest_closed: str | None, disk: Disk, now: datetime, report: Report
) -> bool:
    """Cut what ends within a line at its last whole line; return whether anything did.

    The active file gets the name of a closed one first and is cut second, since a `tail -F` prints
    a file again when it shrinks. A crash may have come between the two.
    """
    found = newest_closed is not None and _cut_torn_line(folder / newest_closed, disk, report)
    active = folder / ACTIVE
    if not _is_torn(active):
        return found
    closed = folder / rotated_name(now, newest_closed)
    disk.rename(active, closed)
    disk.close(disk.open(active, os.O_WRONLY | os.O_CREAT, 0o644))
    return _cut_torn_line(closed, disk, report)


def _is_torn(path: Path) -> bool:
    return path.exists() and _sound_end(path) < path.stat().st_size


def _sound_end(path: Path) -> int:
    """Find where the whole lines of a file end, of which the last ones may not be synced.

    What is written reaches a disk in any order. After a power cut a file system that has the size
    and not the data shows zeros (XFS does, and ext4 with `data=writeback`), and behind such a hole
    there may be whole lines. No record holds a NUL, which JSON escapes.
    """
    with path.open("rb") as stream:
        start = stream.seek(max(0, path.stat().st_size - UNSYNCED))
        hole = stream.read().find(b"\0")
        return whole_end(stream, before=None if hole < 0 else start + hole)


def _cut_torn_line(closed: Path, disk: Disk, report: Report) -> bool:
    if not _is_torn(closed):
        return False
    end, size = _sound_end(closed), closed.stat().st_size
    with disk.opened(closed, os.O_RDWR) as fd:
        disk.ftruncate(fd, end)
        disk.fsync(fd)
    if not end:
        disk.unlink(closed)
    disk.sync_folder(closed.parent)
    report(TornLineCut(closed, size, end))
    return True


def put_on_disk(file: LogFile, offset: int, disk: Disk) -> None:
    """Sync what a file holds from `offset` on: `next` will tell devices that it is on disk.

    A kill may have come before the sync, or after one that failed: then the kernel takes the
    pages for clean and a sync alone does nothing (fsync(2), EIO). So they are written again, with
    the bytes that they have.
    """
    # What is not ours to write, nobody of ours wrote just now.
    is_written = not file.compressed and os.access(file.path, os.W_OK)
    with disk.opened(file.path, os.O_RDWR if is_written else os.O_RDONLY) as fd:
        while is_written and (block := disk.pread(fd, _BLOCK, offset)):
            offset += disk.pwritev(fd, [block], offset)
        disk.fdatasync(fd)


def newest_of(files: Iterable[LogFile]) -> LogFile | None:
    """Return the file that was closed last; None without one."""
    closed = [file for file in files if file.closed]
    return max(closed, key=lambda file: file.name_when_closed, default=None)


def unsettled(files: list[LogFile]) -> list[LogFile]:
    """Return the files that a kill may have left in the midst of a change that is not synced."""
    closed = newest_of(files)
    return [file for file in files if file == closed or file in files[-2:]]
