"""Each device's newest number: a cache of the log, in SQLite, with the place where it is true.

The log is the truth, since its records carry their numbers. This file saves reading all of it at
every start: it holds the numbers as of one place in the log, its mark, and only what comes after
the mark is read.
"""

import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson

from ingest.log.places import Place

_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (device TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_SAVE = """
INSERT INTO positions SELECT key, value FROM json_each(?) WHERE true
ON CONFLICT (device) DO UPDATE SET last = excluded.last
"""


Mark = Place
"""A place in the log, as the journal calls the one where the numbers are true."""


class Checkpoint(NamedTuple):
    """What the last checkpoint said of itself.

    Attributes:
        log: the identity of the log that it belongs to.
        mark: where in the log the numbers are true.
        clean: whether the listener stopped there in good order and wrote no more.
    """

    log: str
    mark: Mark
    clean: bool


class Positions:
    """The numbers and their mark. A damaged file is set aside by its owner: see `recovery`."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            sqlite3.Error: it is no SQLite file, or damaged.
        """
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            # A checkpoint must outlast a power cut: files of the log are removed on its word.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            path.chmod(0o600)
            self.floor = int(self._meta("floor") or 0)
        except BaseException:
            self._database.close()
            raise

    def check(self) -> None:
        """Look through the whole file.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    def get(self, device: str) -> int:
        """Return the device's newest number; 0 for none."""
        row = self._database.execute(
            "SELECT last FROM positions WHERE device = ?", (device,)
        ).fetchone()
        return self.floor if row is None else row[0]

    def checkpoint(self) -> Checkpoint | None:
        """Return what the last checkpoint said of itself, or None if there was none."""
        held = self._meta("checkpoint")
        if held is None:
            return None
        log, mark, clean = orjson.loads(str(held))
        return Checkpoint(log, Mark(*mark), clean)

    def save(self, changed: Mapping[str, int], checkpoint: Checkpoint) -> None:
        """Take the newest numbers of some devices, and where in the log they are true.

        One statement takes them all, in C and without the interpreter's lock.

        Raises:
            sqlite3.Error: the disk is full or failing; nothing was taken.
        """
        with self._transaction():
            if changed:
                self._database.execute(_SAVE, (orjson.dumps(changed).decode(),))
            log, mark, clean = checkpoint
            self._set("checkpoint", orjson.dumps([log, list(mark), clean]).decode())

    def numbers(self) -> dict[str, int]:
        """Return each device's newest number."""
        return _numbers(self._database)

    def skip(self, numbers: int, changed: Mapping[str, int]) -> None:
        """Leave out as many numbers of every device, where the log can't say which were given.

        Args:
            numbers: how many.
            changed: the newest numbers of some devices, taken first.
        """
        with self._transaction():
            if changed:
                self._database.execute(_SAVE, (orjson.dumps(changed).decode(),))
            self._database.execute("UPDATE positions SET last = last + ?", (numbers,))
            self.floor += numbers
            self._set("floor", self.floor)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _transaction(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def _meta(self, name: str) -> "int | str | None":
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set(self, name: str, value: "int | str") -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def read_positions(path: Path) -> dict[str, int]:
    """Return each device's newest number, from a file that a listener may be using.

    The numbers may be some seconds old. Empty if there is no such file.

    Raises:
        sqlite3.Error: it is no SQLite file, or damaged.
    """
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return _numbers(database)


def _numbers(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT device, last FROM positions"))


def new_identity() -> str:
    """Make the identity of a new log."""
    return uuid.uuid4().hex
