"""Each device's newest number: a cache of the log, in SQLite, with the place where it is true.

The log is the truth, since its records carry their numbers. This file saves reading all of it at
every start: it holds the numbers as of one place in the log, its mark, and only what comes after
the mark is read. While the listener runs it does not ask this file: see `numbers`.
"""

import os
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from ingest.database import keep_write_ahead_log
from ingest.layout import BESIDE_DATABASE
from ingest.log.files import sync_folder
from ingest.log.places import Place

_SCHEMA = """
CREATE TABLE IF NOT EXISTS positions (device TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_SAVE = """
INSERT INTO positions SELECT key, value FROM json_each(?) WHERE true
ON CONFLICT (device) DO UPDATE SET last = max(last, excluded.last)
"""
_SUM = "SELECT coalesce(sum(last & 0xffffffff), 0) FROM positions"
"""Of the low halves of the numbers, so that it has room in an integer of SQLite."""
_GROWTH = """
SELECT coalesce(sum((max(value, ifnull(last, 0)) & 0xffffffff) - (ifnull(last, 0) & 0xffffffff)), 0)
FROM json_each(?) LEFT JOIN positions ON device = key
"""
"""By how much some newer numbers change the sum: to add all up takes 0.1 s for a million."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

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
        self._path = path
        # SQLite gives the files beside it the mode that this one has when they are made.
        with suppress(OSError):  # it is there, or SQLite says what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            # A checkpoint must outlast a power cut: files of the log are removed on its word.
            keep_write_ahead_log(self._database, path)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            path.chmod(0o600)
            self.floor = int(self._meta("floor") or 0)
            self._highest: int | None = None  # once somebody has asked
            self._left = _look_at(path)
        except BaseException:
            self._database.close()
            raise

    def check(self) -> None:
        """Look through the whole file.

        An older copy that was put beside a newer `-wal` passes SQLite's own check: some of its
        pages are old, and so are the numbers in them. Their sum tells.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        total = self._meta("sum")
        if found == "ok" and total not in (None, *self._database.execute(_SUM).fetchone()):
            found = "its numbers are not those that were saved"
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    def is_as_left(self) -> bool:
        """Tell whether the file is at its path still, and nobody else has written to it.

        This connection must be the only one that writes.
        """
        return _look_at(self._path) == self._left

    def get(self, device: str) -> int:
        """Return the device's newest number; 0 for none."""
        number = number_in(self._database, device)
        return self.floor if number is None else number

    def checkpoint(self) -> Checkpoint | None:
        """Return what the last checkpoint said of itself, or None if there was none."""
        held = self._meta("checkpoint")
        if held is None:
            return None
        log, mark, clean = orjson.loads(str(held))
        return Checkpoint(log, Mark(*mark), clean)

    def save(self, changed: Mapping[str, int], checkpoint: Checkpoint) -> None:
        """Take the newest numbers of some devices, and where in the log they are true.

        One statement takes them all, in C and without the interpreter's lock. No number falls.

        Raises:
            sqlite3.Error: the disk is full or failing; nothing was taken.
        """
        with self._transaction():
            self._merge(changed)
            log, mark, clean = checkpoint
            self._set("checkpoint", orjson.dumps([log, list(mark), clean]).decode())
        self._leave()

    def numbers(self) -> dict[str, int]:
        """Return each device's newest number."""
        return _numbers(self._database)

    def highest(self) -> int:
        """Return a number that no device's newest one is above."""
        if self._highest is None:
            (found,) = self._database.execute("SELECT max(last) FROM positions").fetchone()
            self._highest = found or 0
        return max(self._highest, self.floor)

    def go_on_from(self, numbers: Mapping[str, int], floor: int) -> None:
        """Let no device go on below some number: those that are named from theirs.

        Args:
            numbers: the last number that is left out, of some devices.
            floor: the same, of all that are named nowhere.
        """
        with self._transaction():
            self._merge(numbers)
            self.floor = max(self.floor, floor)
            self._set("floor", self.floor)
        self._leave()

    def copy_to(self, other: sqlite3.Connection) -> None:
        """Make another database hold the same, page by page."""
        self._database.backup(other)

    def copy_from(self, other: sqlite3.Connection) -> None:
        """Make the file hold what another database holds, whatever its sum says.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        other.backup(self._database)
        self.floor = int(self._meta("floor") or 0)
        self._highest = None
        self._database.execute("DELETE FROM meta WHERE name = 'sum'")
        self._leave()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def flush(self) -> None:
        """Bring all of it into the one file: nothing beside it is needed.

        Raises:
            sqlite3.Error: the disk is full or failing.
        """
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _leave(self) -> None:
        """Remember the file as we left it, unless it is another one or away for the moment."""
        found = _look_at(self._path)
        if [status[:2] for status in found] == [status[:2] for status in self._left]:
            self._left = found

    def _transaction(self) -> sqlite3.Connection:
        self._database.execute("BEGIN IMMEDIATE")
        return self._database

    def _merge(self, changed: Mapping[str, int]) -> None:
        (growth,) = self._database.execute(_GROWTH, (_document(changed),)).fetchone()
        merge(self._database, changed)
        total = self._meta("sum")
        if total is None:
            (total,) = self._database.execute(_SUM).fetchone()
        else:
            total = int(total) + growth
        self._set("sum", total)
        if self._highest is not None:
            self._highest = max(self._highest, *changed.values(), 0)

    def _meta(self, name: str) -> "int | str | None":
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set(self, name: str, value: "int | str") -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def number_in(database: sqlite3.Connection, device: str) -> int | None:
    """Return the number that a database holds of a device; None without one."""
    row = database.execute("SELECT last FROM positions WHERE device = ?", (device,)).fetchone()
    return None if row is None else row[0]


def merge(database: sqlite3.Connection, changed: Mapping[str, int]) -> None:
    """Bring newer numbers of some devices into a database. No number falls."""
    database.execute(_SAVE, (_document(changed),))


def _document(numbers: Mapping[str, int]) -> str:
    return orjson.dumps(numbers).decode()


def write_anew(
    path: Path,
    fill: Callable[[Positions], None],
    changed: Mapping[str, int],
    checkpoint: Checkpoint,
) -> Path:
    """Write a new file beside the one at `path`, and return its path.

    It is on disk when this returns; `put_in_place` puts it in the place of the old one.

    Args:
        path: of the old file.
        fill: brings all the numbers into the new one.
        changed: numbers that are newer than these.
        checkpoint: where in the log they are true.

    Raises:
        OSError: it can't be made.
        sqlite3.Error: the disk is full or failing.
    """
    fresh = path.with_name(path.name + ".new")
    for suffix in ("", *BESIDE_DATABASE):
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    with closing(Positions(fresh)) as positions:
        fill(positions)
        positions.save(changed, checkpoint)
        positions.flush()
    return fresh


def put_in_place(fresh: Path, path: Path) -> None:
    """Give a file that `write_anew` wrote the name of the one that it replaces, which is closed.

    Raises:
        OSError: it can't be renamed.
    """
    remove_beside(path)  # first: what is in these files belongs to the old one
    fresh.replace(path)
    sync_folder(path.parent)


def remove_beside(path: Path) -> None:
    """Remove what SQLite keeps beside a database that nobody has open.

    Raises:
        OSError: it can't be removed.
    """
    for suffix in BESIDE_DATABASE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def code_of(error: Exception) -> int:
    """Return SQLite's primary result code (sqlite.org/rescode.html); -1 without one."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else code


def is_damage(error: Exception) -> bool:
    """Tell whether an error says that the file is damaged, and not that the disk is full, say."""
    return code_of(error) in _DAMAGED


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


def _look_at(path: Path) -> list[tuple[int, ...]]:
    """Return what changes when a database, or what is beside it, is removed or replaced.

    Of the file itself that is also when it is written to, which `cp` does to one that is there.
    """
    found = [_status(path.with_name(path.name + suffix)) for suffix in ("", *BESIDE_DATABASE)]
    return [found[0], *(status[:2] for status in found[1:])]


def _status(path: Path) -> tuple[int, ...]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _numbers(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT device, last FROM positions"))


def new_identity() -> str:
    """Make the identity of a new log."""
    return uuid.uuid4().hex
