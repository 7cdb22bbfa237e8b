"""What becomes of closed files: they are compressed, kept for a while, and removed.

Runs in a thread of its own, at a low priority. Each step can be cut short by a crash at any
instant and is taken up at the next start.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from ingest.journal.clock import Calendar, Clock
from ingest.journal.compressing import SUFFIX, TEMPORARY, Compression, compress, is_copy
from ingest.journal.events import ArchiveFailing, ClockLeapt, Removed, Report
from ingest.journal.home import FolderReplacedError, Home
from ingest.journal.removal import Removal, keep_room, note_removal, read_removal
from ingest.journal.rotation import ClosedFile, RetentionPolicy, closing_times, expired
from ingest.log.files import LogFile, sync_folder
from ingest.log.listing import log_files

_INTERVAL = 60.0  # seconds between two looks at the ages of files
_NICE = 10
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """How closed files are kept."""

    compression: Compression = "none"
    retention: RetentionPolicy = RetentionPolicy()


class Archivist:
    """Looks after closed files; in a thread, or step by step."""

    def __init__(
        self,
        folder: Path,
        policy: ArchivePolicy,
        report: Report,
        clock: Clock,
        *,
        home: Home | None = None,
        needed_after: str | None = None,
    ) -> None:
        """Make the archivist; `start` runs its thread.

        Args:
            folder: the log's folder.
            policy: may be replaced at any time, by assignment.
            report: called from the thread.
            clock: tells the ages of files.
            home: asked before files are touched; None if the folder is nobody else's.
            needed_after: see `set_needed_after`; None if all files may be removed.

        Raises:
            OSError: the folder can't be read.
        """
        self.policy = policy
        self._folder = folder
        self._report = report
        self._home = home
        self._needed_after = needed_after
        self._highest = 0
        self._calendar = Calendar(clock, _times_of(folder))
        self._is_leap_told = False
        self._woken = threading.Event()
        self._stopped = False
        self._failing = ""
        self._thread = threading.Thread(target=self._run, name="ingest-archive", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look now: a file was closed or the policy has changed."""
        self._woken.set()

    def set_needed_after(self, closed: str, highest: int) -> None:
        """Name the newest file that a start after a crash need not read.

        Younger files stay as they are, whatever the policy says: only they tell the newest numbers,
        and the writer may still cut one that it has given up.

        Args:
            closed: its name, as it was when it was closed.
            highest: no record in it or in an older file has a higher number.
        """
        if closed != self._needed_after:
            self._highest = highest  # first: the files that it is about go on the other's word
            self._needed_after = closed
            self.wake()

    def stop(self) -> None:
        """Stop as soon as the piece at hand is done; a half-made copy is removed."""
        self._stopped = True
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def step(self) -> float:
        """Do what there is to do; return how many seconds the next step may wait."""
        if self._is_home():
            try:
                self.tidy()
                self._failing = ""
            except Exception as error:  # a fault of ours, too: the next look may succeed
                # Said once, and tried again each time.
                if self._is_home() and repr(error) != self._failing:
                    self._failing = repr(error)
                    self._report(ArchiveFailing(error))
        return _INTERVAL

    def _is_home(self) -> bool:
        """Tell whether the folder is still ours; if it is not, the writer tells."""
        try:
            if self._home is not None:
                self._home.check()
        except FolderReplacedError:
            return False
        except OSError:  # whatever it is, `tidy` finds it too
            return True
        return True

    def _run(self) -> None:
        # Linux gives each thread a priority of its own; where a sandbox forbids that, it has ours.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopped:
            self._woken.clear()
            self._woken.wait(self.step())

    def tidy(self) -> None:
        """Remove left-overs, compress what is to be compressed, remove what has expired.

        What is the matter with one file keeps nothing from the others.

        Raises:
            OSError: the first of what was the matter; all else is done.
        """
        with os.scandir(self._folder) as entries:
            names = {entry.name for entry in entries}
        errors: list[OSError] = []
        for name in names:
            if name.startswith("ingest-") and name.endswith(TEMPORARY):
                _attempt((self._folder / name).unlink, errors)
        closed = [file for file in log_files(self._folder) if file.closed]
        for file in self._expire(closed, errors):
            if self._stopped or any(error.errno in _NO_ROOM for error in errors):
                break
            if not (file.compressed or self._is_needed(file)):
                _attempt(partial(self._compress, file.path, names), errors)
        if errors:
            raise errors[0]

    def _compress(self, original: Path, names: Iterable[str]) -> None:
        """Compress a file; if that was done and it is still there, remove it."""
        copies = [name for suffix in SUFFIX.values() if (name := original.name + suffix) in names]
        if any(is_copy(original, original.with_name(copy)) for copy in copies):
            sync_folder(self._folder)  # the copy is on disk; its name need not be
            original.unlink()
        elif self.policy.compression != "none":
            compress(original, self.policy.compression, lambda: self._stopped)

    def _expire(self, files: list[LogFile], errors: list[OSError]) -> list[LogFile]:
        """Remove the files that the policy lets go, and return the others."""
        now = self._calendar.now()
        if self.policy.retention == RetentionPolicy():
            return files
        self._tell_of_leap()
        reasons = self._expired(files, now)
        gone = [file for file in files if file.path.name in reasons and not self._is_needed(file)]
        if self._needed_after is not None and not _attempt(partial(self._note, gone), errors):
            return files
        for file in gone:
            if _attempt(file.path.unlink, errors):
                self._report(Removed(file.path.name, reasons[file.path.name]))
        if gone:
            sync_folder(self._folder)
        return [file for file in files if file not in gone]

    def _note(self, gone: list[LogFile]) -> None:
        """Note what is about to be removed, and keep room for the next note."""
        if gone:
            before = read_removal(self._folder)
            newest = max(file.name_when_closed for file in gone)
            highest = max(self._highest, before.highest)
            note_removal(self._folder, Removal(max(newest, before.newest), highest))
        with suppress(OSError):  # the next note may find some all the same
            keep_room(self._folder)

    def _expired(self, files: list[LogFile], now: float) -> dict[str, str]:
        """Return the names of the files that the policy lets go, each with the reason."""
        newest_first: list[tuple[LogFile, os.stat_result]] = []
        for file in reversed(files):
            with suppress(FileNotFoundError):  # somebody has just removed it
                newest_first.append((file, file.path.stat()))
        times = closing_times([(_named(file), found.st_mtime) for file, found in newest_first], now)
        closed = [
            ClosedFile(file.path.name, found.st_size, time)
            for (file, found), time in zip(newest_first, times, strict=True)
        ]
        return dict(expired(self.policy.retention, closed, now))

    def _tell_of_leap(self) -> None:
        leap = self._calendar.leap if self.policy.retention.age else 0.0
        if leap and not self._is_leap_told:
            self._report(ClockLeapt(leap))
        self._is_leap_told = bool(leap)

    def _is_needed(self, file: LogFile) -> bool:
        return self._needed_after is not None and file.name_when_closed > self._needed_after


def _attempt(change: Callable[[], object], errors: list[OSError]) -> bool:
    """Change something; return whether that was done, and keep the error if it was not."""
    try:
        change()
    except FileNotFoundError:
        return False  # somebody has just moved or removed it
    except OSError as error:
        errors.append(error)
        return False
    return True


def _named(file: LogFile) -> float:
    """Return when a file was closed, by its name; seconds since 1970."""
    return datetime.fromisoformat(f"{file.closed}+00:00").timestamp()


def _times_of(folder: Path) -> list[float]:
    """Return when the files of a log were last changed; seconds since 1970."""
    times: list[float] = []
    for file in log_files(folder):
        with suppress(FileNotFoundError):  # somebody has just moved it
            times.append(file.path.stat().st_mtime)
    return times
