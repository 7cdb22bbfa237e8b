"""What a start finds: a write that a kill cut short, a torn line, and where the numbers stand.

The work is bounded by what came after the last checkpoint, not by the size of the log; all of the
log is read only where `positions.db` can't be used.
"""

import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.events import (
    NumbersSkipped,
    PositionsRebuilt,
    PositionsSetAside,
    Report,
)
from ingest.journal.intent import IntentFile
from ingest.journal.mending import (
    UNSYNCED,
    complete_write,
    cut_torn_lines,
    newest_of,
    put_on_disk,
    unsettled,
)
from ingest.journal.positions import (
    Checkpoint,
    Positions,
    is_damage,
    new_identity,
    remove_beside,
)
from ingest.journal.removal import Removal, read_removal
from ingest.journal.survey import Survey, survey
from ingest.log.files import (
    LogFile,
    head_in,
    sample,
)
from ingest.log.jumps import all_jumps, note_jump
from ingest.log.listing import log_files
from ingest.log.places import START, Place

SKIPPED = 10_000_000
"""Numbers left out where the log no longer tells which were given: more than any device sends
between two checkpoints, so that no number is given twice."""

_END_MISSING = "the end of the log of the last run is missing: it was moved, deleted or cut"
_GONE = "positions.db is missing or an older copy, and files of the log that tell more are removed"
_DAMAGED_FILE = "a file of the log that tells newest numbers is damaged"

_IDENTITY = ".ingest-log"


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
    brought = complete_write(files, intent, disk, report)
    if cut_torn_lines(folder, _newest_closed(files, removal), disk, now, report):
        files = log_files(folder)
    log, positions = _open_positions(folder, positions_path, disk, report)
    try:
        _take_noted_jumps(folder, positions)
        found, is_end_there = _survey(files, positions, positions_path, disk, report)
        changed = _changed(found, positions)
        is_brought = all(
            last <= changed.get(device, positions.get(device)) for device, last in brought.items()
        )
        if _tells_too_little(found, removal, positions):
            why = _DAMAGED_FILE if found.damaged else _GONE
            above = max(removal.highest, *changed.values(), 0)
            changed = _skip(folder, changed, positions, now, report, why, above=above)
        elif not (is_end_there and is_brought):
            changed = _skip(folder, changed, positions, now, report, _END_MISSING)
    except BaseException:
        positions.close()
        raise
    return Recovered(log, _newest_closed(files, removal), positions, changed)


def _newest_closed(files: Iterable[LogFile], removal: Removal) -> str | None:
    """Return the newest name that was ever given to a file: the next one must be above it."""
    file = newest_of(files)
    return max("" if file is None else file.name_when_closed, removal.newest) or None


def _open_positions(folder: Path, path: Path, disk: Disk, report: Report) -> tuple[str, Positions]:
    """Return the identity of the log, and its positions; those of another log are set aside."""
    positions = _open_sound(path, report)
    try:
        checkpoint = positions.checkpoint()
        log = _identity_of(folder, checkpoint, disk)
    except BaseException:
        positions.close()
        raise
    if checkpoint is None or checkpoint.log == log:
        return log, positions
    positions.close()
    report(PositionsSetAside(path, "belongs to another log"))
    _set_aside(path)
    return log, Positions(path)


def _open_sound(path: Path, report: Report) -> Positions:
    """Open a file of positions; one that is damaged is set aside."""
    try:
        positions = Positions(path)
        try:
            positions.check()
        except BaseException:
            positions.close()
            raise
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise  # a full disk says nothing against the file
        report(PositionsSetAside(path, f"can't be read ({error})"))
        _set_aside(path)
        return Positions(path)
    return positions


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(path.name + ".set-aside"))
    remove_beside(path)


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


def _changed(found: Survey, positions: Positions) -> dict[str, int]:
    return {device: last for device, last in found.newest.items() if last > positions.get(device)}


def _tells_too_little(found: Survey, removal: Removal, positions: Positions) -> bool:
    """Tell whether the positions and what was read after their mark leave numbers untold.

    Retention removes no file that is newer than the mark. If it did, these positions are not the
    ones that it went by. Of files that others have removed the first numbers tell: each device's
    goes on from its position. For example, without positions:

        in the log      a 1, b 1, a 2    nothing is missing
        in the log      b 7, a 1         a file with b's first six is, and who else was in it?
    """
    checkpoint = positions.checkpoint()
    mark = checkpoint.mark if checkpoint else START
    first = found.oldest.items()
    return (
        removal.newest > mark.closed
        or found.damaged
        or any(number > positions.get(device) + 1 for device, number in first)
    )


def _survey(
    files: list[LogFile], positions: Positions, path: Path, disk: Disk, report: Report
) -> tuple[Survey, bool]:
    """Find out what the log says beyond the positions; return also whether its end is there."""
    checkpoint = positions.checkpoint()
    if checkpoint is not None:
        return _survey_since(checkpoint, files, positions, disk, report)
    return _survey_all(files, path, disk, report), True


def _survey_all(files: list[LogFile], path: Path, disk: Disk, report: Report) -> Survey:
    if not files:
        return Survey({}, {})
    begun = time.monotonic()
    for file in unsettled(files):
        with suppress(FileNotFoundError):  # somebody has just moved it
            put_on_disk(file, max(0, file.path.stat().st_size - UNSYNCED), disk)
    found = survey(((file, 0) for file in files), report)
    taken = time.monotonic() - begun
    report(PositionsRebuilt(path, len(files), len(found.newest), taken))
    return found


def _survey_since(
    checkpoint: Checkpoint,
    files: list[LogFile],
    positions: Positions,
    disk: Disk,
    report: Report,
) -> tuple[Survey, bool]:
    """Read what came after the mark; return also whether it is all there.

    For example, the mark is byte 700 of the file that was `ingest.log` then, after 11.00 was
    closed. It has been closed itself since, and is known by its first record:

        ingest-11.00.log    older than the mark, not read
        ingest-12.00.log    begins as the marked file did: read from byte 700 on, if it is as long
        ingest.log          read whole

    Is no file the marked one, or is it shorter than 700 bytes, all that may be newer is read, and
    records may be missing in between.
    """
    mark = checkpoint.mark
    places = [(file, 0) for file in files if _is_newer(file, mark)]
    marked = next((file for file in reversed(files) if _has_head(file, mark)), None)
    is_whole = marked is not None and _reaches(marked, mark.offset)
    if marked is not None and is_whole:
        index = files.index(marked)
        strays = [file for file in files[:index] if not file.closed and _is_ahead(file, positions)]
        places = [(marked, mark.offset), *((file, 0) for file in strays + files[index + 1 :])]
    for file, offset in places:
        put_on_disk(file, offset, disk)
    for file in unsettled(files):
        if all(file != read for read, _ in places):
            with suppress(FileNotFoundError):
                put_on_disk(file, file.path.stat().st_size, disk)  # it may have been cut
    found = survey(places, report)
    is_up_to_date = checkpoint.clean and not _changed(found, positions)
    return found, is_whole or is_up_to_date or not mark.head


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


def _is_newer(file: LogFile, mark: Place) -> bool:
    """Tell whether a file was closed after the mark, or is open, or not of our naming."""
    return not file.closed or file.name_when_closed > mark.closed


def _has_head(file: LogFile, mark: Place) -> bool:
    try:
        return bool(mark.head) and head_in(file).hex() == mark.head
    except OSError:
        return False


def _reaches(file: LogFile, offset: int) -> bool:
    """Tell whether a file still has what it had; a compressed one was whole when it was made."""
    return bool(file.compressed) or file.path.stat().st_size >= offset
