"""What the journal tells the operator: one class for each kind of event.

`str(event)` is its one line of English; a program that watches looks at the class and its fields.
"""

import errno
import sqlite3
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ingest.units import format_count


@dataclass(frozen=True, slots=True)
class Event:
    """What happened.

    Attributes:
        is_warning: whether something is wrong, or was wrong and is mended.
    """

    is_warning: ClassVar[bool] = True


Report = Callable[[Event], object]
"""Tells the operator of one event."""


def guarded(report: Report) -> Report:
    """Make a reporter that never raises: an event that can't be told must not stop the journal."""

    def tell(event: Event) -> None:
        try:
            report(event)
        except Exception:
            sys.excepthook(*sys.exc_info())  # the last place to say it: the standard error

    return tell


# The disk and the files.


def reason_of(error: OSError) -> str:
    """Say what the system says; and of which file, where that is what matters."""
    is_not_ours = error.errno == errno.ELOOP  # see `ingest.layout.open_own`
    return f"{error.filename} {error.strerror}" if is_not_ours else str(error.strerror)


@dataclass(frozen=True, slots=True)
class DiskFailing(Event):
    """The disk takes no records; said once, until `DiskRecovered`."""

    folder: Path
    error: OSError

    def __str__(self) -> str:
        return (
            f"{self.folder} takes no records: {reason_of(self.error)}; devices wait,"
            " nothing is acknowledged and nothing is lost"
        )


@dataclass(frozen=True, slots=True)
class DiskRecovered(Event):
    """The disk takes records again, after so many seconds."""

    folder: Path
    seconds: float

    def __str__(self) -> str:
        return f"{self.folder} takes records again, after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Rotated(Event):
    """The active file was closed under this name."""

    is_warning: ClassVar[bool] = False
    name: str

    def __str__(self) -> str:
        return f"the log was rotated to {self.name}"


@dataclass(frozen=True, slots=True)
class RotationFailing(Event):
    """No new file can be begun, and the active one goes on; said once, until one can."""

    error: OSError

    def __str__(self) -> str:
        return (
            f"the log can't be rotated: {self.error}; records go on in the same file,"
            " and it is tried again"
        )


@dataclass(frozen=True, slots=True)
class FileMoved(Event):
    """Another program renamed or removed the active file."""

    is_warning: ClassVar[bool] = False
    path: Path

    def __str__(self) -> str:
        return f"{self.path} was moved by another program: a new file is begun"


@dataclass(frozen=True, slots=True)
class FileCut(Event):
    """Another program cut the active file to so many bytes."""

    is_warning: ClassVar[bool] = False
    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.path} was cut to {self.size} bytes by another program"


@dataclass(frozen=True, slots=True)
class WriterFailed(Event):
    """The writer's thread ended by an error that nobody foresaw; no more records are taken."""

    error: BaseException

    def __str__(self) -> str:
        return (
            f"the writer of the log has failed: {located(self.error)}; devices wait, nothing is"
            " acknowledged and nothing is lost; restart the listener"
        )


# Closed files.


@dataclass(frozen=True, slots=True)
class Removed(Event):
    """A closed file was removed, by this rule of the retention policy."""

    is_warning: ClassVar[bool] = False
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} is removed: {self.reason}"


@dataclass(frozen=True, slots=True)
class ClockLeapt(Event):
    """The clock is ahead of what makes sense by so many seconds; no file is removed for its age."""

    seconds: float

    def __str__(self) -> str:
        return (
            f"the clock has leapt {self.seconds / 86400:.0f} days ahead: closed files are removed"
            " by their age again when it is set back, or has stood so for a day"
        )


@dataclass(frozen=True, slots=True)
class ArchiveFailing(Event):
    """Closed files can't be compressed or removed; said once for each error."""

    error: Exception

    def __str__(self) -> str:
        return f"closed files can't be looked after: {_in_words(self.error)}"


# What a start finds.


@dataclass(frozen=True, slots=True)
class WriteCompleted(Event):
    """A write that a kill had cut short was completed."""

    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.path}: the write that was cut short at byte {self.size} is completed"


@dataclass(frozen=True, slots=True)
class TornLineCut(Event):
    """A file ended within a line, and was cut at the end of its last whole line."""

    path: Path
    size: int
    end: int

    def __str__(self) -> str:
        return (
            f"{self.path}: cut from {self.size} to {self.end} bytes, the end of its last whole line"
        )


@dataclass(frozen=True, slots=True)
class FileDamaged(Event):
    """A compressed file can be read in part only."""

    path: Path
    error: Exception

    def __str__(self) -> str:
        return f"{self.path} is damaged and read in part only: {self.error}"


@dataclass(frozen=True, slots=True)
class PositionsSetAside(Event):
    """`positions.db` is of no use, and was renamed; `reason` is a predicate."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}: it is set aside"


@dataclass(frozen=True, slots=True)
class PositionsRebuilt(Event):
    """`positions.db` was made again, from all files of the log."""

    path: Path
    files: int
    devices: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.path} is rebuilt from {format_count(self.files, 'file')} of the log:"
            f" {format_count(self.devices, 'device')}, in {self.seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class NumbersSkipped(Event):
    """So many numbers of every device are left out: the log can't say which were given; and why."""

    count: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.reason}; every device's numbers go on {self.count:,} higher,"
            " so that none is given twice"
        )


# While it runs.


@dataclass(frozen=True, slots=True)
class PositionsFailing(Event):
    """`positions.db` can't be written; said once, until `PositionsRecovered`."""

    path: Path
    error: Exception

    def __str__(self) -> str:
        return (
            f"{self.path} can't be written: {_in_words(self.error)}; it is tried again, and until"
            " then no closed file that a start would need is removed"
        )


@dataclass(frozen=True, slots=True)
class PositionsRecovered(Event):
    """`positions.db` can be written again."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path} can be written again"


@dataclass(frozen=True, slots=True)
class PositionsReplaced(Event):
    """`positions.db` was not as it had been left, and was made anew with all numbers."""

    path: Path

    def __str__(self) -> str:
        return (
            f"{self.path} was removed, replaced or damaged by another program: it is made anew, and"
            " no number is lost"
        )


@dataclass(frozen=True, slots=True)
class HolderFailed(Event):
    """The connection of a device raised an exception when the journal called it, and is cut."""

    device: str
    call: str
    error: Exception

    def __str__(self) -> str:
        return f"{self.device}: its connection is cut, {self.call}() failed: {located(self.error)}"


@dataclass(frozen=True, slots=True)
class FlowControlFailed(Event):
    """`pause` or `resume` raised an exception; what did not hear of it may be stuck or flooding."""

    call: str
    error: Exception

    def __str__(self) -> str:
        return f"the flow of records could not be told to {self.call}: {located(self.error)}"


@dataclass(frozen=True, slots=True)
class MeasureFailed(Event):
    """Whoever is told what the journal measures raised an exception, and is told no more."""

    error: Exception

    def __str__(self) -> str:
        return (
            f"a measure could not be noted: {located(self.error)}; it is taken no more until the"
            " next start, and records are taken as before"
        )


def _in_words(error: Exception) -> str:
    """Write what the system or SQLite says; any other exception is a fault of ours."""
    return str(error) if isinstance(error, OSError | sqlite3.Error) else located(error)


def located(error: BaseException) -> str:
    """Write an exception in one line, with the place that raised it: it is a fault of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{error!r} at {frames[-1].filename}:{frames[-1].lineno}" if frames else repr(error)
