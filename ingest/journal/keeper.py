"""Keeps `positions.db` a second or a few behind the log, in a thread of its own."""

import sqlite3
import threading
from collections.abc import Callable, Mapping

from ingest.journal.clock import Clock
from ingest.journal.positions import Checkpoint, Mark, Positions

_PERIOD = 1.0  # seconds between two checkpoints, at least
_PAUSE = 200
"""How many times as long as a checkpoint took it is until the next, within `_LONGEST_PERIOD`:
those of thousands of devices make the log's own syncs wait. What is not in one is read from the
log, should we be killed."""
_LONGEST_PERIOD = 10.0  # seconds
_OF_THE_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)


class Keeper:
    """Takes what is durable as it comes, and saves it now and then.

    Its connection to the database is there from the start: a checkpoint needs no new descriptor.
    """

    def __init__(
        self,
        positions: Positions,
        log: str,
        clock: Clock,
        saved: Callable[[Mark], object],
        failed: Callable[[sqlite3.Error], object],
    ) -> None:
        """Make the keeper; `start` runs its thread.

        Args:
            positions: where to save; the keeper's alone, which closes it.
            log: the identity of the log.
            clock: by which to wait.
            saved: called in the keeper's thread after a checkpoint.
            failed: called in the keeper's thread when the database, and not the disk, is at fault.
        """
        self._positions = positions
        self._log = log
        self._clock = clock
        self._saved = saved
        self._failed = failed
        self._lock = threading.Lock()
        self._changed: dict[str, int] = {}
        self._mark: Mark | None = None
        self._clean = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest-positions", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def note(self, changed: Mapping[str, int], mark: Mark) -> None:
        """Keep the newest numbers of some devices for the next checkpoint.

        Args:
            changed: the numbers, which are durable.
            mark: a place in the log where they are true.
        """
        with self._lock:
            self._changed.update(changed)
            self._mark = mark

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
        self._mark, self._clean = mark, clean
        self._save()
        self._positions.close()

    def _run(self) -> None:
        while not self._stopping.wait(self.step()):
            pass

    def _save(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            mark, self._mark = self._mark, None
        if mark is None:
            return
        try:
            self._positions.save(changed, Checkpoint(self._log, mark, self._clean))
        except sqlite3.Error as error:  # tried again the next time
            with self._lock:
                self._changed = changed | self._changed
                self._mark = self._mark or mark
            if _code(error) not in _OF_THE_DISK:  # of that the writer tells
                self._failed(error)
        else:
            self._saved(mark)


def is_damage(error: Exception) -> bool:
    """Tell whether a database's content is at fault, which no second try mends."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; -1 for an error that has none."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code
