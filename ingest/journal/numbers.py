"""Each device's newest durable number, in memory, whatever happens to `positions.db`.

A claim asks for one number at a time. But a `positions.db` that another program removes or
overwrites while the listener runs is made anew with all of them, and files of the log that told
some may be gone by then. So all are kept, as SQLite keeps them: a copy of the file's pages. For a
million devices that takes 25 MB, where a dictionary takes 120, and a twentieth of its time. What
came since the last checkpoint is in a dictionary beside it.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from ingest.journal.positions import Mark, Positions, merge, number_in

_PIECE = 250
"""Numbers that are brought into the copy at once, in about a millisecond: whoever looks one up
waits for that."""


class Taken(NamedTuple):
    """What is to be saved.

    Attributes:
        changed: the newest numbers of the devices that had records since the last checkpoint.
        mark: a place in the log where they are true.
        is_new: whether anything was noted since the last checkpoint.
    """

    changed: Mapping[str, int]
    mark: Mark
    is_new: bool


class Numbers:
    """The numbers. `get` and `note` may be called from any thread, the others from one only.

    A checkpoint is `take`, and then `settle` or `put_back`.
    """

    def __init__(self, positions: Positions) -> None:
        """Copy what a file holds."""
        self._floor = positions.floor
        self._copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._copy.execute("PRAGMA journal_mode = OFF")  # or a change would keep pages twice
        positions.copy_to(self._copy)
        self._copy_lock = threading.Lock()
        self._lock = threading.Lock()
        self._newer: dict[str, int] = {}  # than what was taken
        self._taken: dict[str, int] = {}  # and is not in the copy yet
        self._mark = Mark("", "", 0)
        self._is_noted = False

    def get(self, device: str) -> int:
        """Return a device's newest number; that of all unknown ones if it has none."""
        with self._lock:
            number = self._newer.get(device) or self._taken.get(device)
        if number is None:
            with self._copy_lock:
                number = number_in(self._copy, device)
        return self._floor if number is None else number

    def note(self, changed: Mapping[str, int], mark: Mark) -> None:
        """Take newer numbers of some devices.

        Args:
            changed: the numbers, which are durable.
            mark: a place in the log where they are true.
        """
        with self._lock:
            self._newer.update(changed)
            self._mark, self._is_noted = mark, True

    def take(self) -> Taken:
        """Return what came since the last checkpoint."""
        with self._lock:
            self._taken, self._newer = self._newer, {}
            is_new, self._is_noted = self._is_noted, False
            return Taken(self._taken, self._mark, is_new)

    def settle(self) -> None:
        """Called when what was taken is saved."""
        for piece in _pieces(self._taken):
            with self._copy_lock:
                merge(self._copy, piece)
        with self._lock:
            self._taken = {}

    def put_back(self, taken: Taken) -> None:
        """Called when what was taken could not be saved; it is taken again the next time."""
        with self._lock:
            self._newer, self._taken = self._taken | self._newer, {}
            self._is_noted |= taken.is_new

    def fill(self, fresh: Positions) -> None:
        """Make another file hold all the numbers but those that are taken, or came after that.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        with self._copy_lock:
            fresh.copy_from(self._copy)

    def close(self) -> None:
        """Let go of the memory; nothing is looked up any more."""
        with self._copy_lock:
            self._copy.close()


def _pieces(changed: Mapping[str, int]) -> Iterator[dict[str, int]]:
    items = iter(changed.items())
    while piece := dict(islice(items, _PIECE)):
        yield piece
