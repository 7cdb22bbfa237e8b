"""What the page keeps between two runs: its place in the log, and what it knows of devices there.

Both are written in one transaction, after what was read up to the place was acted on. So whatever
ends the process, the devices are as they were at the place, and nothing is skipped.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from ingest.database import keep_write_ahead_log
from ingest.layout import BESIDE_DATABASE
from ingest.log.places import Place

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS place (
    one INTEGER PRIMARY KEY CHECK (one = 1), place TEXT, reached REAL
);
CREATE TABLE IF NOT EXISTS devices (name TEXT PRIMARY KEY, last REAL, seq INTEGER) WITHOUT ROWID;
"""
_VERSION: Final = 1


class Kept(NamedTuple):
    """Where reading goes on.

    Attributes:
        place: the place.
        reached: the time of the last record before it, in seconds since 1970.
        devices: the name, the time of the newest record and its number, of each device.
    """

    place: Place
    reached: float
    devices: list[tuple[str, float, int]]


class Keeper:
    """One SQLite file. All of it can be found again in the log: a damaged one is made anew."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError, sqlite3.Error: it can't be written.
        """
        try:
            self._open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            for suffix in ("", *BESIDE_DATABASE):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            keep_write_ahead_log(self._connection, path)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def load(self) -> Kept | None:
        """Return what was kept last; None if nothing was."""
        row = self._connection.execute("SELECT place, reached FROM place").fetchone()
        if row is None:
            return None
        try:
            place = Place.from_json(row[0])
        except ValueError:
            return None
        devices = self._connection.execute("SELECT name, last, seq FROM devices").fetchall()
        return Kept(place, row[1], devices)

    def save(self, place: Place, reached: float, devices: Iterable[tuple[str, float, int]]) -> None:
        """Keep a place, and what is new of devices."""
        with self._connection:
            self._connection.execute("BEGIN")
            self._connection.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", devices)
            self._connection.execute(
                "INSERT OR REPLACE INTO place VALUES (1, ?, ?)", (place.to_json(), reached)
            )
