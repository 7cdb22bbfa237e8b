"""The registry: which devices may connect, kept in one SQLite file.

The listener reads it while commands in other processes write it. In WAL mode a reader never waits
for a writer, so the listener may read on its reactor thread. Changes that must cut a live
connection are noted by triggers, so no process can forget to.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from ingest.database import keep_write_ahead_log
from ingest.devices import statements
from ingest.devices.device import Device, check_format
from ingest.devices.file import opening
from ingest.devices.schema import ADDITIONS, APPLICATION_ID, BECOME, SCHEMA, SCHEMA_VERSION
from ingest.devices.verifier import Verifier, decoy, derive

_BUSY_SECONDS = 5.0

_ADVICE = {
    sqlite3.SQLITE_BUSY: f": another process kept it for {_BUSY_SECONDS:.0f} s, try again",
    sqlite3.SQLITE_CORRUPT: ": restore it from a backup",
    sqlite3.SQLITE_FULL: ": make room on its disk",
    sqlite3.SQLITE_NOTADB: ": move it away, or restore it from a backup",
    sqlite3.SQLITE_READONLY: ": run this as its owner",
}


class RegistryError(Exception):
    """The registry can't be used or can't do what was asked; the message is for a person."""


class DeviceExists(RegistryError):  # noqa: N818 - reads better where it is caught
    """The name is registered already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"device {name} is registered already")


class UnknownDevice(RegistryError):  # noqa: N818
    """The name is not registered."""

    def __init__(self, name: str) -> None:
        super().__init__(f"device {name} is not registered")


class Registry:
    """The devices in one SQLite file, or in memory.

    It may move between threads but serves one at a time. Every method but `verifier`, `get`,
    `count` and those of revocations may wait up to 5 s for another process's write: not for the
    reactor thread.

    Every method raises `RegistryError` when the file is damaged or can't be read or written.
    """

    def __init__(self, path: Path | str, *, make: bool = True) -> None:
        """Open the registry, and make it if there is none (mode 0600).

        Args:
            path: the file, or ":memory:".
            make: False to leave alone what is no registry yet: a missing file, an empty one.

        Raises:
            RegistryError: it can't be opened or is not a registry.
        """
        self._path = str(path)
        try:
            with nullcontext() if self._path == ":memory:" else opening(self._path, make=make):
                self._connection = sqlite3.connect(
                    self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
                self._prepare(make)
        except OSError as error:
            raise RegistryError(f"can't open {self._path}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file.

        What was written goes from the write-ahead log into the file itself, as far as no other
        process hinders it. So the file is whole for those who copy it with `cp`, and no old
        write-ahead log lies beside one that they put in its place.
        """
        with suppress(sqlite3.Error):
            if self._connection.total_changes:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def add(self, name: str, token: str, note: str = "", line_format: str = "") -> None:
        """Register a device, enabled.

        Args:
            name: its name.
            token: what it will prove that it knows.
            note: the operator's.
            line_format: see `set_format`.

        Raises:
            InvalidName, InvalidToken, InvalidNote, InvalidFormat: see there.
            DeviceExists: the name is registered already.
        """
        formats = {name: line_format} if line_format else {}
        if not self.add_many([(name, derive(token), note)], formats):
            raise DeviceExists(name)

    def add_many(
        self, devices: Iterable[tuple[str, Verifier, str]], formats: Mapping[str, str] | None = None
    ) -> int:
        """Register devices in one transaction: all of them or, after an error, none.

        Args:
            devices: name, verifier and note of each; names registered already stay as they are.
            formats: what the lines of some of them are; see `set_format`.

        Returns:
            How many were new.

        Raises:
            InvalidName, InvalidNote, InvalidFormat: see there.
        """
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Made before the transaction: whoever feeds us slowly must not lock out other writers.
        rows = [
            statements.row_of(name, verifier, note, created) for name, verifier, note in devices
        ]
        given = formats or {}
        for line_format in set(given.values()):
            check_format(line_format)
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    statements.INSERT_FORMAT, map(statements.format_row_of, given.items())
                )
                return self._connection.executemany(statements.INSERT, rows).rowcount
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Let a device connect, or not; the listener cuts the connection of one disabled.

        Raises:
            UnknownDevice: it is not registered.
        """
        self._change(name, statements.SET_ENABLED, enabled=enabled)

    def set_token(self, name: str, token: str) -> None:
        """Give a device a new token; the listener cuts its connection.

        Raises:
            InvalidToken: see there.
            UnknownDevice: it is not registered.
        """
        self._change(name, statements.SET_TOKEN, **asdict(derive(token)))

    def set_format(self, name: str, line_format: str) -> None:
        """Say what a device's lines of text are; it counts when the device connects again.

        Args:
            name: the device.
            line_format: one of `ingest.names.FORMATS`; empty for what its listener has.

        Raises:
            InvalidFormat: see there.
            UnknownDevice: it is not registered.
        """
        if line_format:
            check_format(line_format)
        self._change(name, statements.SET_FORMAT, format=line_format)

    def format_of(self, name: str) -> str:
        """Return what a device's lines of text are; empty where that is left to its listener."""
        rows = self._query("SELECT format FROM formats WHERE device = ?", name)
        return str(rows[0][0]) if rows else ""

    def remove(self, name: str) -> None:
        """Forget a device; the listener cuts its connection.

        Raises:
            UnknownDevice: it is not registered.
        """
        self._change(name, "DELETE FROM devices WHERE name = :name")

    def become(self, source: Path) -> None:
        """Take over the devices of another registry, in one transaction.

        The listener cuts the connection of each device that is not there, is disabled there, or
        has another token there, just as if it had been changed by hand.

        Args:
            source: the file of the other registry, which nobody else has open.
        """
        try:
            self._connection.execute("ATTACH ? AS source", (str(source),))
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    for statement in BECOME:
                        self._connection.execute(statement)
            finally:
                self._connection.execute("DETACH source")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def get(self, name: str) -> Device | None:
        """Return a device, or None if it is not registered."""
        rows = self._query(statements.SELECT_ONE, name)
        return statements.device_of(rows[0]) if rows else None

    def devices(self) -> Iterator[Device]:
        """Return every device by name, as they are when they are reached."""
        last = ""
        # Page by page: a statement left open would keep the write-ahead log from being reset.
        while rows := self._query(statements.SELECT_PAGE, last):
            yield from map(statements.device_of, rows)
            last = rows[-1][0]

    def count(self) -> int:
        """Return how many devices are registered; takes microseconds however many they are."""
        count: int = self._query("SELECT devices FROM tally")[0][0]
        return count

    def verifier(self, name: str) -> Verifier | None:
        """Return what checks a device's token; None unless it is registered and enabled."""
        rows = self._query(statements.SELECT_VERIFIER, name)
        return Verifier(*rows[0]) if rows else None

    def keys(self, name: str) -> Verifier:
        """Return what a handshake under this name goes by, whether there is such a device or not.

        A device that is not registered gets keys that no token has, and the same ones each time;
        one that is disabled shows its own salt. Nothing of it tells which names are registered,
        and neither does the time: the work is the same for all. It is the listener's hot path, one
        look-up by primary key.
        """
        return self._keys_of(name)[1]

    def may_connect(self, name: str, *, unregistered: bool) -> bool:
        """Tell whether a device may connect that proves its name by other means than its token.

        Args:
            name: its name.
            unregistered: whether it may if it is not registered.
        """
        rows = self._query("SELECT enabled FROM devices WHERE name = ?", name)
        return bool(rows[0][0]) if rows else unregistered

    def stored_keys(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the stored keys of those that are registered and enabled; 2 us for each name."""
        wanted = orjson.dumps(list(names)).decode()
        return dict(self._query(statements.SELECT_STORED_KEYS, wanted))

    def registered(self, names: Iterable[str]) -> set[str]:
        """Return which of some names are registered, whether enabled or not."""
        wanted = orjson.dumps(list(names)).decode()
        return {name for (name,) in self._query(statements.SELECT_REGISTERED, wanted)}

    def revision(self) -> bytes:
        """Return what differs whenever the devices, their tokens or their state differ."""
        return self._meta("revision")

    def check(self) -> None:
        """Look through the whole file; takes about a second for a million devices.

        Raises:
            RegistryError: it is damaged.
        """
        (found,) = self._query("PRAGMA quick_check(1)")[0]
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise self._failure(error)

    def last_revocation(self) -> int:
        """Return the mark of the last revocation, 0 if there was none; for `revoked_since`."""
        mark: int = self._query("SELECT ifnull(max(id), 0) FROM revocations")[0][0]
        return mark

    def revoked_since(self, mark: int) -> tuple[int, list[str]]:
        """Return whose connections must be cut, by whichever process it was decided.

        Args:
            mark: of `last_revocation` or of the last call, at most an hour old.

        Returns:
            The next mark, and the devices disabled, removed or given a new token after `mark`, in
            that order.
        """
        rows = self._query("SELECT id, device FROM revocations WHERE id > ? ORDER BY id", mark)
        if not rows:
            return mark, []
        return rows[-1][0], list(dict.fromkeys(device for _, device in rows))

    def record_seen(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Keep when and where devices were last seen; one not registered is left out.

        Args:
            rows: device, RFC 3339 time and peer (`host:port`); the last one for a device counts.
        """
        # One statement for all rows: SQLite runs it without the GIL.
        self._execute(statements.UPSERT_SEEN, {"rows": orjson.dumps(list(rows)).decode()})

    def _prepare(self, make: bool) -> None:
        try:
            self._identify(make)
            for table, additions in ADDITIONS:
                is_there = f"SELECT 1 FROM sqlite_master WHERE name = '{table}'"
                if not self._query(is_there):
                    self.check()  # nothing is added to what is damaged, or still being copied
                    self._run(is_there, additions)
            self._decoy_key = self._meta("decoys")
        except BaseException:
            self._connection.close()
            raise

    def _identify(self, make: bool) -> None:
        if make and self._identity() == (0, 0):
            # Another program's database may have no identity either, but it has tables.
            self._run("SELECT 1 FROM sqlite_master", SCHEMA)
        application, version = self._identity()
        if application != APPLICATION_ID:
            raise RegistryError(
                f"{self._path} is not a registry of devices but another program's database:"
                " move it away or name another data folder"
            )
        if version != SCHEMA_VERSION:
            raise RegistryError(
                f"the registry {self._path} has format {version}, this ingest reads format"
                f" {SCHEMA_VERSION}: use the version of ingest that made it"
            )
        keep_write_ahead_log(self._connection, self._path)

    def _identity(self) -> tuple[int, int]:
        application = self._query("PRAGMA application_id")[0][0]
        return application, self._query("PRAGMA user_version")[0][0]

    def _run(self, unless: str, changes: Iterable[str]) -> None:
        """Run statements in one transaction, unless a query finds something."""
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                if not self._query(unless):
                    for statement in changes:
                        self._connection.execute(statement)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _meta(self, name: str) -> bytes:
        rows = self._query("SELECT value FROM meta WHERE name = ?", name)
        value: bytes = rows[0][0]
        return value

    def _keys_of(self, name: str) -> tuple[bool, Verifier]:
        fake = decoy(name, self._decoy_key)
        row = (fake.salt, fake.iterations, fake.stored_key, fake.server_key)
        good, *keys = self._query(statements.SELECT_KEYS, name, *row)[0]
        return good, Verifier(*keys)

    def _change(self, name: str, statement: str, **values: int | str | bytes) -> None:
        if not self._execute(statement, {"name": name, **values}).rowcount:
            raise UnknownDevice(name)

    def _query(self, statement: str, *values: str | int | bytes) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _execute(self, statement: str, values: dict[str, Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> RegistryError:
        # The low byte is the kind of error, the others are its details.
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
        return RegistryError(f"the registry {self._path}: {error}{advice}")
