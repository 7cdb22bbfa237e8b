"""Keeps `positions.db` a second or a few behind the log, in a thread of its own."""

import sqlite3
import threading
from pathlib import Path
from typing import Protocol

from ingest.journal.clock import Clock
from ingest.journal.events import Event, PositionsReplaced
from ingest.journal.home import Home
from ingest.journal.numbers import Numbers, Taken
from ingest.journal.positions import (
    Checkpoint,
    Mark,
    Positions,
    code_of,
    is_damage,
    put_in_place,
    write_anew,
)

_PERIOD = 1.0  # seconds between two checkpoints, at least
_PAUSE = 200
"""How many times as long as a checkpoint took it is until the next, within `_LONGEST_PERIOD`:
those of thousands of devices make the log's own syncs wait. What is not in one is read from the
log, should we be killed."""
_LONGEST_PERIOD = 10.0  # seconds
_OF_THE_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)


class KeepersOwner(Protocol):
    """Whom the keeper tells, in the keeper's thread. The methods must not raise."""

    def positions_saved(self, closed: str, highest: int) -> None:
        """Called when files up to this one need not be read by a start any more.

        Args:
            closed: the name of the file.
            highest: no number in those files is above it.
        """

    def positions_failing(self, error: Exception) -> None:
        """Called when the database, and not the disk, takes no checkpoint; it is tried again."""

    def positions_recovered(self) -> None:
        """Called when it takes one again."""

    def tell(self, event: Event) -> None:
        """Called with what else there is for the operator."""


class Keeper:
    """Saves now and then what is new among the numbers.

    Its connection to the database is there from the start: a checkpoint needs no new descriptor.
    Before each one it looks whether the file is the one that it left. SQLite would go on in a file
    that was removed, and a start after that would find no numbers, or old ones. So then the file
    is made anew.
    """

    def __init__(
        self,
        path: Path,
        positions: Positions,
        numbers: Numbers,
        log: str,
        home: Home,
        clock: Clock,
        owner: KeepersOwner,
    ) -> None:
        """Make the keeper; `start` runs its thread.

        Args:
            path: where to save.
            positions: the same file, opened; the keeper's alone from now on.
            numbers: what to save.
            log: the identity of the log.
            home: asked before a file is put in the place of another, which may not be ours.
            clock: by which to wait.
            owner: whom to tell.
        """
        self._path = path
        self._positions = positions
        self._numbers = numbers
        self._log = log
        self._home = home
        self._clock = clock
        self._owner = owner
        self._clean = False
        self._is_failing = False
        self._closed: str | None = None  # the last that the owner was told
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest-positions", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def step(self) -> float:
        """Save what was noted; return how many seconds the next step may wait."""
        begun = self._clock.monotonic()
        self._save()
        pause = min(_PAUSE * (self._clock.monotonic() - begun), _LONGEST_PERIOD)
        return max(_PERIOD, pause)

    def stop(self, mark: Mark, *, clean: bool) -> None:
        """Save what is left and where the log ends."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._clean = clean
        self._numbers.note({}, mark)
        self._save()
        self._positions.close()

    def _run(self) -> None:
        while not self._stopping.wait(self.step()):
            pass

    def _save(self) -> None:
        try:
            self._save_what_is_new()
        except Exception as error:  # a fault of ours, too: it is tried again the next time
            # Of a disk that fails, and of a folder that was replaced, the writer tells.
            if code_of(error) not in _OF_THE_DISK and self._is_ours_to_make():
                self._tell_of_failure(error)

    def _save_what_is_new(self) -> None:
        taken = self._numbers.take()
        try:
            if self._is_ours_to_make() and not self._positions.is_as_left():
                self._make_anew(taken)
            elif taken.is_new:
                self._save_or_make_anew(taken)
            self._numbers.settle()
            self._tell_what_is_saved(taken.mark)
        except Exception:
            self._numbers.put_back(taken)
            raise

    def _save_or_make_anew(self, taken: Taken) -> None:
        try:
            self._positions.save(taken.changed, self._checkpoint(taken))
        except sqlite3.DatabaseError as error:
            if not is_damage(error) or not self._is_ours_to_make():
                raise
            self._make_anew(taken)

    def _make_anew(self, taken: Taken) -> None:
        fresh = write_anew(self._path, self._numbers.fill, taken.changed, self._checkpoint(taken))
        self._home.check()  # again: it may have been replaced meanwhile
        self._positions.close()
        put_in_place(fresh, self._path)
        self._positions = Positions(self._path)
        self._owner.tell(PositionsReplaced(self._path))

    def _checkpoint(self, taken: Taken) -> Checkpoint:
        return Checkpoint(self._log, taken.mark, self._clean)

    def _is_ours_to_make(self) -> bool:
        """Tell whether what is at the path is ours for sure: the writer tells if it is not."""
        try:
            self._home.check()
        except OSError:
            return False
        return True

    def _tell_what_is_saved(self, mark: Mark) -> None:
        if self._is_failing:
            self._is_failing = False
            self._owner.positions_recovered()
        if mark.closed != self._closed:
            self._owner.positions_saved(mark.closed, self._positions.highest())
            self._closed = mark.closed

    def _tell_of_failure(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            self._owner.positions_failing(error)
