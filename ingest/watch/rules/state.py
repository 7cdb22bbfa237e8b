"""What rules remember, on disk: one SQLite file, and one transaction for each step through the log.

The place in the log, where each rule stands, and what is to be delivered are saved together. So a
kill at any instant leaves all of a step or nothing of it: what was not saved is read and decided
again, with the same outcome and the same ids. A delivery is taken off the file after its receiver
has confirmed it.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from ingest.database import keep_write_ahead_log
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.memory import dump_watch, load_watch
from ingest.watch.rules.model import Message, MissingNumbers, Rule
from ingest.watch.rules.phases import Event, Watch, event

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS devices (name TEXT PRIMARY KEY, memory BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watches (
    rule TEXT, device TEXT, watch BLOB NOT NULL, PRIMARY KEY (rule, device)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, event BLOB NOT NULL,
    targets TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS firing (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    target TEXT, number INTEGER, PRIMARY KEY (target, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    number INTEGER, target TEXT, time INTEGER NOT NULL, failure TEXT NOT NULL,
    PRIMARY KEY (number, target)
) WITHOUT ROWID;
"""
_VERSION = 1
_KEPT_EVENTS = 10_000
_MOST_WAITING = 10_000


@dataclass(frozen=True)
class Noted:
    """An event as it is saved.

    Attributes:
        number: counts events, from 1 on.
        event: what happened.
        targets: who is told.
    """

    number: int
    event: Event
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How the delivery of an event to one target ended.

    Attributes:
        time: when, in microseconds since 1970.
        failure: why it was given up; empty if the target was told.
    """

    time: int
    failure: str


@dataclass(frozen=True)
class Gone:
    """What was saved of rules that are no more, or no longer about a device.

    Attributes:
        watches: rule and device.
        events: those that had fired clear.
    """

    watches: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()


class State:
    """The file. One thread uses it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            sqlite3.Error: it is no SQLite file, is damaged, or is of a newer program.
        """
        # The thread that opens it is not the one that uses it.
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            # A delivery must not outlive what caused it, even a power cut.
            keep_write_ahead_log(self._database, path)
            self._database.execute("PRAGMA synchronous = FULL")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise sqlite3.DatabaseError(f"it was written by a newer program: {version}")
            self._database.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
            path.chmod(0o600)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def place(self) -> str | None:
        """The place in the log up to which all was decided, as JSON; None at the first start."""
        place = self._meta("place")
        return None if place is None else str(place)

    def load(
        self, rules: Sequence[Rule], is_jump: Callable[[str, int], bool]
    ) -> tuple[Engine, Gone]:
        """Make an engine that goes on from where the rules stood.

        Args:
            rules: what to look for.
            is_jump: as `Engine` takes it.

        Returns:
            The engine, and what there is no rule for any more; the next `save` takes it.
        """
        engine = Engine(rules, int(self._meta("clock") or 0), is_jump)
        engine.asked = int(self._meta("asked") or 0)
        devices = self._database.execute("SELECT name, memory FROM devices")
        watches = [
            (rule, device, load_watch(watch))
            for rule, device, watch in self._database.execute(
                "SELECT rule, device, watch FROM watches"
            )
        ]
        lost = engine.restore(devices, watches)
        return engine, Gone(
            tuple((rule, device) for rule, device, _ in lost),
            tuple(
                _removed(rule, device, watch, engine.clock)
                for rule, device, watch in lost
                if watch.is_active
            ),
        )

    def save(
        self, engine: Engine, place: str, events: Iterable[Event] = (), gone: Gone = Gone()
    ) -> list[Noted]:
        """Save a step through the log, all or nothing of it.

        Args:
            engine: what has changed in it is saved, and is then no longer taken for changed.
            place: up to where it has been fed.
            events: what that caused, and those of `gone`.
            gone: the watches that are forgotten.

        Raises:
            sqlite3.Error: the disk is full or failing; nothing was saved.
        """
        targets = {rule.name: [str(target) for target in rule.then] for rule in engine.rules}
        with self._transaction() as database:
            self._set("place", place)
            self._set("clock", engine.clock)
            self._set("asked", engine.asked)
            database.executemany(
                "INSERT OR REPLACE INTO devices VALUES (?, ?)",
                [(device.name, device.dump()) for device in engine.changed],
            )
            database.executemany("DELETE FROM watches WHERE rule = ? AND device = ?", gone.watches)
            self._save_watches(engine)
            noted = [self._note(each, targets.get(each.rule, [])) for each in events]
        engine.changed.clear()
        engine.changed_watches.clear()
        return noted

    def firing(self) -> list[Noted]:
        """Return what has fired and not cleared, oldest first."""
        return self._noted("JOIN firing USING (number) ORDER BY number")

    def newest(self, count: int) -> list[Noted]:
        """Return the newest events, newest first."""
        return self._noted("ORDER BY number DESC LIMIT ?", count)

    def after(self, number: int) -> list[Noted]:
        """Return the events with a higher number, oldest first."""
        return self._noted("WHERE number > ? ORDER BY number", number)

    def number_from(self, number: int) -> None:
        """Let the next event have a number above this one, which the log of alerts has already."""
        (last,) = self._database.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
        if last < number:
            self._database.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._database.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (number,))

    def waiting(self) -> dict[str, int]:
        """Return how many deliveries wait, for each target that has any."""
        return dict(
            self._database.execute("SELECT target, count(*) FROM deliveries GROUP BY target")
        )

    def next_for(self, target: str) -> Noted | None:
        """Return the oldest event that a target has yet to be told."""
        found = self._noted("JOIN deliveries USING (number) WHERE target = ? LIMIT 1", target)
        return found[0] if found else None

    def delivered(self, target: str, number: int, time: int = 0, failure: str = "") -> None:
        """Note that a target has been told, or never will be.

        Args:
            target: the target.
            number: the event's.
            time: when, in microseconds since 1970.
            failure: why it never will be; empty if it has been.
        """
        with self._transaction() as database:
            database.execute(
                "DELETE FROM deliveries WHERE target = ? AND number = ?", (target, number)
            )
            database.execute(
                "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)",
                (number, target, time, failure),
            )

    def outcomes(self, numbers: Iterable[int]) -> dict[tuple[int, str], Outcome]:
        """Return how deliveries of events ended, by the event's number and the target."""
        rows = self._database.execute(
            "SELECT number, target, time, failure FROM outcomes"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (orjson.dumps(list(numbers)).decode(),),
        )
        return {(number, target): Outcome(*outcome) for number, target, *outcome in rows}

    def _save_watches(self, engine: Engine) -> None:
        for device, place in engine.changed_watches:
            key = engine.rules[place].name, device.name
            watch = device.watches.get(place)
            if watch is None:
                self._database.execute("DELETE FROM watches WHERE rule = ? AND device = ?", key)
            else:
                self._database.execute(
                    "INSERT OR REPLACE INTO watches VALUES (?, ?, ?)", (*key, dump_watch(watch))
                )

    def _note(self, happened: Event, targets: list[str]) -> Noted:
        """Save an event; those who heard that it fired hear that it cleared."""
        if not happened.firing:
            targets = list(dict.fromkeys([*self._told(happened.id), *targets]))
        dumped = orjson.dumps(asdict(happened))
        (number,) = self._database.execute(
            "INSERT INTO events (id, event, targets) VALUES (?, ?, ?) RETURNING number",
            (happened.id, dumped, orjson.dumps(targets).decode()),
        ).fetchone()
        if happened.firing:
            self._database.execute(
                "INSERT OR REPLACE INTO firing VALUES (?, ?)", (happened.id, number)
            )
        else:
            self._database.execute("DELETE FROM firing WHERE id = ?", (happened.id,))
        for target in targets:
            self._database.execute("INSERT INTO deliveries VALUES (?, ?)", (target, number))
        if number % 1000 == 0:
            self._prune(number)
        return Noted(number, happened, tuple(targets))

    def _told(self, alert: str) -> list[str]:
        row = self._database.execute(
            "SELECT targets FROM events JOIN firing USING (number) WHERE firing.id = ?", (alert,)
        ).fetchone()
        return [] if row is None else [str(target) for target in orjson.loads(row[0])]

    def _prune(self, number: int) -> None:
        """Keep the queues and the history bounded."""
        targets = self._database.execute("SELECT DISTINCT target FROM deliveries").fetchall()
        for (target,) in targets:
            self._drop_oldest(target)
        self._database.execute(
            "DELETE FROM events WHERE number <= ?"
            " AND number NOT IN (SELECT number FROM firing)"
            " AND number NOT IN (SELECT number FROM deliveries)",
            (number - _KEPT_EVENTS,),
        )
        self._database.execute(
            "DELETE FROM outcomes WHERE number NOT IN (SELECT number FROM events)"
        )

    def _drop_oldest(self, target: str) -> None:
        """Keep a target's queue bounded, and say of each event that it is dropped."""
        dropped = "target = ? AND number <= (" + (
            "SELECT number FROM deliveries WHERE target = ? ORDER BY number DESC LIMIT 1 OFFSET ?)"
        )
        values = target, target, _MOST_WAITING
        why = f"dropped, as {_MOST_WAITING:,} newer ones waited"
        self._database.execute(
            "INSERT OR REPLACE INTO outcomes"
            f" SELECT number, target, ?, ? FROM deliveries WHERE {dropped}",
            (time.time_ns() // 1000, why, *values),
        )
        self._database.execute(f"DELETE FROM deliveries WHERE {dropped}", values)

    def _noted(self, which: str, *values: object) -> list[Noted]:
        rows = self._database.execute(
            f"SELECT events.number, event, targets FROM events {which}", values
        )
        return [
            Noted(number, Event(**orjson.loads(dumped)), tuple(orjson.loads(targets)))
            for number, dumped, targets in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            yield self._database

    def _meta(self, name: str) -> Any:
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _set(self, name: str, value: object) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _removed(rule: str, device: str, watch: Watch, now: int) -> Event:
    """The clearing of a rule that the file does not have any more."""
    watch.reason = "the rule was removed"
    gone = Rule(rule, MissingNumbers(), (), "*", 0, Message.parse("{device}: {reason}"))
    return event(gone, device, watch, False, now)
