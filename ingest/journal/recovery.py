"""What a start finds: a write that a kill cut short, a torn line, and where the numbers stand.

The work is bounded by what came after the last checkpoint, not by the size of the log; all of the
log is read only where `positions.db` can't be used.
"""

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.events import (
    FileDamaged,
    NumbersSkipped,
    PositionsRebuilt,
    PositionsSetAside,
    Report,
    TornLineCut,
    WriteCompleted,
)
from ingest.journal.intent import IntentFile
from ingest.journal.positions import Checkpoint, Positions, new_identity
from ingest.journal.removal import Removal, read_removal
from ingest.log.files import (
    ACTIVE,
    DAMAGED,
    LogFile,
    head_in,
    identity,
    log_files,
    open_log,
    rotated_name,
    sample,
    whole_end,
)
from ingest.log.jumps import all_jumps, note_jump
from ingest.log.places import START, Place
from ingest.log.reading import WholeLines
from ingest.record import numbers_in

SKIPPED = 10_000_000
"""Numbers left out where the log no longer tells which were given: more than any device sends
between two checkpoints, so that no number is given twice."""

_END_MISSING = "the end of the log of the last run is missing: it was moved, deleted or cut"
_GONE = "positions.db is missing or an older copy, and files of the log that tell more are removed"
_DAMAGED_FILE = "a file of the log that tells newest numbers is damaged"

_IDENTITY = ".ingest-log"
_BLOCK = 4 << 20
_UNSYNCED = 16 << 20
"""Bytes at the end of a file that are more than one commit: all that was before them is synced."""
_DAMAGED_DATABASE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Recovered(NamedTuple):
    """Where the log stands.

    Attributes:
        log: its identity.
        newest_closed: the name of the newest file that was ever closed, as it was named then.
        positions: the file of positions, opened; its taker closes it.
        changed: numbers that are newer than what it says.
    """

    log: str
    newest_closed: str | None
    positions: Positions
    changed: dict[str, int]


class _Numbers(NamedTuple):
    """What some files say of the numbers.

    Attributes:
        newest: each device's highest number.
        oldest: each device's lowest number.
        damaged: whether a file could be read in part only.
    """

    newest: dict[str, int]
    oldest: dict[str, int]
    damaged: bool = False


def recover(
    folder: Path,
    positions_path: Path,
    intent: IntentFile,
    report: Report,
    *,
    disk: Disk,
    clock: Clock,
) -> Recovered:
    """Make the log whole and find out each device's newest number.

    Raises:
        OSError: the log can't be read or mended.
        sqlite3.Error: `positions.db` can't be made.
    """
    now = datetime.fromtimestamp(clock.wall(), UTC)
    files = log_files(folder)
    removal = read_removal(folder)
    brought = _complete_write(files, intent, disk, report)
    if _cut_torn_lines(folder, _newest_closed(files, removal), disk, now, report):
        files = log_files(folder)
    positions = _open_positions(positions_path, report)
    try:
        checkpoint = positions.checkpoint()
        log = _identity_of(folder, checkpoint, disk)
        if checkpoint is not None and checkpoint.log != log:
            report(PositionsSetAside(positions_path, "belongs to another log"))
            positions.close()
            _set_aside(positions_path)
            positions, checkpoint = Positions(positions_path), None
        _take_noted_jumps(folder, positions)
        if checkpoint is None:
            read, is_end_there = _read_all(files, positions_path, disk, report), True
        else:
            read, is_end_there = _read_since(checkpoint, files, positions, disk, report)
        changed = _changed(read, positions)
        is_brought = all(
            last <= changed.get(device, positions.get(device)) for device, last in brought.items()
        )
        if _tells_too_little(checkpoint, removal, read, positions):
            above = max(removal.highest, *changed.values(), 0)
            why = _DAMAGED_FILE if read.damaged else _GONE
            changed = _skip(folder, changed, positions, now, report, why, above=above)
        elif not (is_end_there and is_brought):
            changed = _skip(folder, changed, positions, now, report, _END_MISSING)
    except BaseException:
        positions.close()
        raise
    return Recovered(log, _newest_closed(files, removal), positions, changed)


def _complete_write(
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
    found: dict[bytes, int] = {}
    _read_positions(BytesIO(intent.data), found, {})
    return _decoded(found)


def _cut_torn_lines(
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
        start = stream.seek(max(0, path.stat().st_size - _UNSYNCED))
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


def _newest_closed(files: Iterable[LogFile], removal: Removal) -> str | None:
    """Return the newest name that was ever given to a file: the next one must be above it."""
    file = _last_closed(files)
    name = "" if file is None else file.path.name.removesuffix(file.compressed)
    return max(name, removal.newest) or None


def _unsettled(files: list[LogFile]) -> list[LogFile]:
    """Return the files that a kill may have left in the midst of a change that is not synced."""
    closed = _last_closed(files)
    return [file for file in files if file == closed or file in files[-2:]]


def _last_closed(files: Iterable[LogFile]) -> LogFile | None:
    closed = [file for file in files if file.closed]
    return max(closed, key=lambda file: file.path.name, default=None)


def _open_positions(path: Path, report: Report) -> Positions:
    try:
        with closing(Positions(path)) as positions:
            positions.check()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGED_DATABASE:
            raise  # a full disk says nothing against the file
        report(PositionsSetAside(path, f"can't be read ({error})"))
        _set_aside(path)
    return Positions(path)


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(path.name + ".set-aside"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _identity_of(folder: Path, checkpoint: Checkpoint | None, disk: Disk) -> str:
    """Return the identity that the log keeps beside its files, or give it one."""
    path = folder / _IDENTITY
    if path.exists():
        return path.read_text().strip()
    log = checkpoint.log if checkpoint else new_identity()
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        disk.write_all(fd, log.encode() + b"\n")
        disk.fdatasync(fd)
    finally:
        disk.close(fd)
    return log


def _take_noted_jumps(folder: Path, positions: Positions) -> None:
    """Bring positions up to the jumps that are noted beside the log, if they were lost or older."""
    jumps = all_jumps(folder)
    floor = max((jump.others for jump in jumps), default=1) - 1
    if floor <= positions.floor:
        return
    last = positions.numbers()
    for jump in jumps:
        for device in last.keys() | jump.following.keys():
            number = jump.following.get(device, jump.others)
            last[device] = max(number - 1, last.get(device, 0))
    positions.go_on_from(last, floor)


def _changed(read: _Numbers, positions: Positions) -> dict[str, int]:
    return {device: last for device, last in read.newest.items() if last > positions.get(device)}


def _tells_too_little(
    checkpoint: Checkpoint | None, removal: Removal, read: _Numbers, positions: Positions
) -> bool:
    """Tell whether the positions and what was read after their mark leave numbers untold.

    Retention removes no file that is newer than the mark. If it did, these positions are not the
    ones that it went by. Of files that others have removed the first numbers tell: each device's
    goes on from its position. For example, without positions:

        in the log      a 1, b 1, a 2    nothing is missing
        in the log      b 7, a 1         a file with b's first six is, and who else was in it?
    """
    mark = checkpoint.mark if checkpoint else START
    first = read.oldest.items()
    return (
        removal.newest > mark.closed
        or read.damaged
        or any(number > positions.get(device) + 1 for device, number in first)
    )


def _read_all(files: list[LogFile], positions_path: Path, disk: Disk, report: Report) -> _Numbers:
    if not files:
        return _Numbers({}, {})
    begun = time.monotonic()
    for file in _unsettled(files):
        with suppress(FileNotFoundError):  # somebody has just moved it
            _put_on_disk(file, max(0, file.path.stat().st_size - _UNSYNCED), disk)
    read = _read(((file, 0) for file in files), report)
    taken = time.monotonic() - begun
    report(PositionsRebuilt(positions_path, len(files), len(read.newest), taken))
    return read


def _read_since(
    checkpoint: Checkpoint,
    files: list[LogFile],
    positions: Positions,
    disk: Disk,
    report: Report,
) -> tuple[_Numbers, bool]:
    """Read what came after the mark; return also whether it is all there."""
    mark = checkpoint.mark
    places = [(file, 0) for file in files if _is_newer(file, mark)]
    marked = next((file for file in reversed(files) if _has_head(file, mark)), None)
    is_whole = marked is not None and _reaches(marked, mark.offset)
    if marked is not None and is_whole:
        index = files.index(marked)
        strays = [file for file in files[:index] if not file.closed and _is_ahead(file, positions)]
        places = [(marked, mark.offset), *((file, 0) for file in strays + files[index + 1 :])]
    for file, offset in places:
        _put_on_disk(file, offset, disk)
    for file in _unsettled(files):
        if all(file != read for read, _ in places):
            with suppress(FileNotFoundError):
                _put_on_disk(file, file.path.stat().st_size, disk)  # it may have been cut
    read = _read(places, report)
    is_up_to_date = checkpoint.clean and not _changed(read, positions)
    return read, is_whole or is_up_to_date or not mark.head


def _is_ahead(file: LogFile, positions: Positions) -> bool:
    """Tell whether a file that seems to be older than the mark has numbers that came after it.

    Nothing in a file that another program has renamed may say for sure how old it is.
    """
    numbers = sample(file).numbers.items()
    return any(number > positions.get(device.decode()) for device, number in numbers)


def _skip(
    folder: Path,
    changed: dict[str, int],
    positions: Positions,
    now: datetime,
    report: Report,
    why: str,
    above: int = 0,
) -> dict[str, int]:
    """Leave out numbers of every device, and return the new ones of those that had changed.

    Args:
        folder: the log's.
        changed: numbers that are newer than the positions.
        positions: get the numbers that are left out.
        now: the time to note.
        report: tells the operator.
        why: in words.
        above: a number that every device is to go on above: none may have been given beyond it
            that is told nowhere.
    """
    known = positions.numbers() | changed
    skipped = {device: max(last, above) + SKIPPED for device, last in known.items()}
    floor = max(positions.floor, above) + SKIPPED
    # First, so that no number is left out that the log's readers can't be told of.
    following = {device: last + 1 for device, last in skipped.items()}
    note_jump(folder, now, following, floor + 1)
    positions.go_on_from(skipped, floor)
    report(NumbersSkipped(SKIPPED, why))
    return {device: skipped[device] for device in changed}


def _put_on_disk(file: LogFile, offset: int, disk: Disk) -> None:
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


def _is_newer(file: LogFile, mark: Place) -> bool:
    """Tell whether a file was closed after the mark, or is open, or not of our naming."""
    return not file.closed or file.path.name.removesuffix(file.compressed) > mark.closed


def _has_head(file: LogFile, mark: Place) -> bool:
    try:
        return bool(mark.head) and head_in(file).hex() == mark.head
    except OSError:
        return False


def _reaches(file: LogFile, offset: int) -> bool:
    """Tell whether a file still has what it had; a compressed one was whole when it was made."""
    return bool(file.compressed) or file.path.stat().st_size >= offset


def _read(places: Iterable[tuple[LogFile, int]], report: Report) -> _Numbers:
    """Find each device's highest and lowest number in some files, each read from its place on.

    These count, in whatever order the files and the lines in them are.
    """
    newest: dict[bytes, int] = {}
    oldest: dict[bytes, int] = {}
    damaged = False
    for file, offset in places:
        try:
            with open_log(file) as stream:
                stream.seek(offset)
                _read_positions(stream, newest, oldest)
        except DAMAGED as error:
            damaged = True
            report(FileDamaged(file.path, error))
    return _Numbers(_decoded(newest), _decoded(oldest), damaged)


def _decoded(found: dict[bytes, int]) -> dict[str, int]:
    return {device.decode(): last for device, last in found.items()}


def _read_positions(stream: BinaryIO, newest: dict[bytes, int], oldest: dict[bytes, int]) -> None:
    for block in WholeLines(stream, size=_BLOCK):
        for device, digits in numbers_in(block):
            number = int(digits)
            if number > newest.get(device, 0):
                newest[device] = number
                oldest.setdefault(device, number)
            elif number < oldest.get(device, 0):
                oldest[device] = number
