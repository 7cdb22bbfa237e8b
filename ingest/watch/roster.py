"""Every device at a glance: what the log, the registry and the listener say of it, put together.

The follower notes what comes in the log, one thread. The reactor notes what the registry and the
listener say, and reads.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.devices.device import Device

STATES: Final = ("online", "silent", "failing", "refused", "disabled")
"""What a device may be, the good one first.

online: connected, its handshake done, and heard of late.
silent: not connected, or connected and not heard.
failing: something of it was refused of late, or again and again, or its frames wait for the disk.
refused: it tries to connect and is not let in.
disabled: an operator has disabled it.
"""

SILENT_AFTER: Final = 300.0
"""Seconds without a word after which a connected device is called silent."""
FORGET_AFTER: Final = 3600.0
"""Seconds after which a device that was removed from the registry is not shown any more."""
FAILING_FOR: Final = 300.0
"""Seconds for which a refusal is remembered in a device's state."""
STUCK_AFTER: Final = 10.0
"""Seconds that frames may wait for the disk, or a device for the listener to read them."""

AGAIN: Final = 3
"""Equal errors, each within `FAILING_FOR` of the one before, that good frames do not make good."""
OVER: Final = frozenset(
    ("auth-failed", "auth-timeout", "busy", "plaintext-refused", "registry-failed", "revoked")
)
"""Errors that are over once the device is let in, or are of somebody else who claims its name."""
FRESH: Final = 10.0
"""Seconds for which a record tells that a device is there, though the listener names no connection.

It is asked for its connections no more often.
"""
MISSED: Final = 3
"""How many times its usual pause a device that connects only to deliver may take."""

SLOT: Final = 30.0
"""Seconds over which frames are counted for the rate."""

_BY_NEED: Final = ("refused", "failing", "silent", "online", "disabled")
"""The states, those first that need a person most."""

SORTS: Final = ("name", "state", "last", "rate", "next", "waiting", "error", "peer")


@dataclass(slots=True)
class Entry:
    """One device. Times are seconds since 1970, 0 for never.

    Attributes:
        name: its name.
        registered: what the registry has; None if it is not registered (any more).
        last: the time of its newest record.
        seq: the number of that record; 0 if it is not known.
        connection: what the listener says of its connection; None without one.
        asked: when it said so.
        lost: when it answered no more.
        stays: whether it was ever seen connected for longer than `FRESH`; others come, deliver, and
            go, such as those that the listener calls.
        pause: seconds between its newest records, which came apart.
        error: the code for which it was refused last; empty for none.
        error_at: when that was.
        error_text: the reason, as the listener gives it.
        error_host: from where it came; empty if that is not known.
        error_count: how many of this code came one after another.
        waits_since: since when frames wait for the disk, or the listener reads nothing from it.
    """

    name: str
    registered: Device | None = None
    last: float = 0.0
    seq: int = 0
    connection: Mapping[str, Any] | None = None
    asked: float = 0.0
    lost: float = 0.0
    stays: bool = False
    pause: float = 0.0
    error: str = ""
    error_at: float = 0.0
    error_text: str = ""
    error_host: str = ""
    error_count: int = 0
    waits_since: float = 0.0
    slot: int = 0
    in_slot: int = 0
    in_slot_before: int = 0

    def count(self, frames: int, now: float) -> None:
        """Count frames for the rate."""
        self._turn(now)
        self.in_slot += frames

    def rate(self, now: float) -> float:
        """Return frames a second, over the last half minute and what is gone of this one."""
        self._turn(now)
        return (self.in_slot + self.in_slot_before) / (SLOT + now % SLOT)

    def _turn(self, now: float) -> None:
        slot = int(now // SLOT)
        if slot != self.slot:
            self.in_slot_before = self.in_slot if slot == self.slot + 1 else 0
            self.in_slot, self.slot = 0, slot

    def note_incident(self, incident: Mapping[str, Any]) -> None:
        """Take what the listener says of trouble, if it is news."""
        at, code = float(incident["at"]), str(incident["kind"])
        if at <= self.error_at:
            return
        is_again = code == self.error and at - self.error_at < FAILING_FOR
        self.error_count = self.error_count + 1 if is_again else 1
        self.error, self.error_at = code, at
        self.error_text, self.error_host = incident["text"], incident["host"]

    @property
    def waiting(self) -> int:
        """How many of its frames wait for the disk."""
        return int(self.connection["waiting_frames"]) if self.connection else 0

    @property
    def peer(self) -> str:
        """From where it is connected, or was last."""
        if self.connection is not None:
            return str(self.connection["peer"])
        return (self.registered.last_peer or "") if self.registered else ""

    def is_let_in(self, now: float) -> bool:
        """Tell whether it is connected, and has proved its name.

        What the listener said may be some seconds old. A record is newer news.
        """
        if self.connection is None:
            usual = 0.0 if self.stays else min(MISSED * self.pause, SILENT_AFTER)
            begun = now - max(FRESH, usual)
        elif self.connection["is_proved"]:
            return True
        else:
            begun = self.asked - float(self.connection["connected_s"])
        return self.last > max(begun, self.error_at, self.lost)

    @property
    def heard(self) -> float:
        """When it was last heard: on its connection, or in the log; 0 for never."""
        if self.connection is None or not self.connection["is_proved"]:
            return self.last
        return max(self.last, self.asked - float(self.connection["heard_s_ago"]))

    def is_spoilt(self, now: float) -> bool:
        """Tell whether, of a connected device, what came since its last error does not mend it."""
        if self.error_at <= now - FAILING_FOR or self.error in OVER:
            return False
        return self.error_at > self.last or self.error_count >= AGAIN

    def state(self, now: float) -> str:
        """Return one of `STATES`."""
        if self.registered is not None and not self.registered.enabled:
            return "disabled"
        if not self.is_let_in(now):
            is_refused = self.error_at > max(self.last, now - FAILING_FOR)
            return "refused" if is_refused else "silent"
        if self.is_spoilt(now):
            return "failing"
        if self.waits_since and now - self.waits_since > STUCK_AFTER:
            return "failing"
        return "online" if now - self.heard < SILENT_AFTER else "silent"

    def shown(self, now: float) -> dict[str, object]:
        """Return its row of the table."""
        return {
            "name": self.name,
            "state": self.state(now),
            "last": self.heard or None,
            "rate": round(self.rate(now), 3),
            "next": self.seq + 1 if self.seq else None,
            "waiting": self.waiting,
            "error": self.error,
            "error_at": self.error_at or None,
            "peer": self.peer,
            "note": self.registered.note if self.registered else "",
            "is_registered": self.registered is not None,
        }


_SortKey = Callable[[Entry, float], Any]
_KEYS: Final[dict[str, _SortKey]] = {
    "name": lambda entry, _: entry.name,
    "state": lambda entry, now: (_BY_NEED.index(entry.state(now)), entry.name),
    "last": lambda entry, _: entry.heard,
    "rate": lambda entry, now: entry.rate(now),
    "next": lambda entry, _: entry.seq,
    "waiting": lambda entry, _: entry.waiting,
    "error": lambda entry, _: entry.error_at,
    "peer": lambda entry, _: entry.peer,
}


@dataclass(frozen=True)
class Page:
    """A page of the table.

    Attributes:
        total: how many devices match.
        page: which page it is, from 1.
        pages: how many there are, at least 1.
        rows: its devices.
    """

    total: int
    page: int
    pages: int
    rows: list[dict[str, object]]


@dataclass
class Roster:
    """All devices.

    Attributes:
        entries: by name.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    _incidents: Sequence[Mapping[str, Any]] = ()
    _connected: set[str] = field(default_factory=set)

    def entry(self, name: str) -> Entry:
        """Return a device, made if it is new."""
        found = self.entries.get(name)
        if found is None:
            found = self.entries[name] = Entry(name)
        return found

    def note_records(self, name: str, last: float, seq: int, frames: int, now: float) -> None:
        """Note what came in the log of one device.

        Args:
            name: whose.
            last: the time of its newest record, in seconds since 1970.
            seq: the number of that record.
            frames: how many of them came within the last `SLOT`.
            now: seconds since 1970.
        """
        entry = self.entry(name)
        if last > entry.last > 0:
            entry.pause = last - entry.last
        entry.last, entry.seq = max(entry.last, last), max(entry.seq, seq)
        if frames:
            entry.count(frames, now)

    def note_registry(self, devices: Iterable[Device], now: float) -> None:
        """Take what the registry has; who is not there is forgotten, unless heard of late."""
        found = {device.name: device for device in devices}
        for entry in list(self.entries.values()):
            if entry.name in found:
                continue
            entry.registered = None
            if entry.connection is None and entry.last < now - FORGET_AFTER:
                del self.entries[entry.name]
        for name, device in found.items():
            self.entry(name).registered = device
        self._share_incidents()

    def note_connections(self, connections: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take the listener's list of connections."""
        found: dict[str, Mapping[str, Any]] = {}
        for connection in connections:
            name = connection["device"]
            # Who claims a name that another has proved changes nothing for that one.
            if name and not (found.get(name, connection)["is_proved"] and name in found):
                found[name] = connection
        for name in self._connected - set(found):
            self.entry(name).connection = None
            self.entry(name).waits_since = 0.0
        for name, connection in found.items():
            if not connection["is_proved"] and name not in self.entries:
                continue  # whoever claims names that nobody has must not fill the table
            entry = self.entry(name)
            if not connection["waiting_frames"] and not connection.get("is_paused"):
                entry.waits_since = 0.0
            elif not entry.waits_since:
                entry.waits_since = now
            entry.connection, entry.asked = connection, now
            entry.stays = entry.stays or connection["connected_s"] > FRESH
        self._connected = set(found) & set(self.entries)

    def note_incidents(self, incidents: Iterable[Mapping[str, Any]]) -> None:
        """Take the newest trouble that the listener had with each name that was claimed."""
        self._incidents = list(incidents)
        self._share_incidents()

    def _share_incidents(self) -> None:
        for incident in self._incidents:
            if entry := self.entries.get(incident["device"]):
                entry.note_incident(incident)

    @property
    def strangers(self) -> list[Mapping[str, Any]]:
        """Incidents with names that no device has, the newest first."""
        found = (each for each in self._incidents if each["device"] not in self.entries)
        return sorted(found, key=lambda each: -float(each["at"]))

    def lose_listener(self, now: float) -> None:
        """Nobody knows who is connected while no listener answers, and nobody can deliver."""
        self.note_connections([], now)
        for entry in list(self.entries.values()):
            entry.lost = now

    def states(self, now: float) -> dict[str, int]:
        """Count the devices by state; with 100,000 devices that takes a while."""
        counted = Counter(entry.state(now) for entry in list(self.entries.values()))
        return {state: counted[state] for state in STATES}

    def page(self, q: str, state: str, sort: str, page: int, size: int, now: float) -> Page:
        """Search, filter and sort, and return one page.

        Args:
            q: a part of the name, of the note or of the peer, in any case; empty for all.
            state: one of `STATES`; empty for all.
            sort: one of `SORTS`; with `-` before it, the greatest first.
            page: from 1; the last one if there are fewer.
            size: rows of a page.
            now: seconds since 1970.

        Raises:
            KeyError: there is no such `sort`.
        """
        key = _KEYS[sort.removeprefix("-")]
        found = list(self.entries.values())
        if q:
            wanted = q.casefold()
            found = [entry for entry in found if wanted in _searched(entry)]
        if state:
            found = [entry for entry in found if entry.state(now) == state]
        found.sort(key=lambda entry: key(entry, now), reverse=sort.startswith("-"))
        pages = max(1, -(-len(found) // size))
        page = min(max(page, 1), pages)
        rows = [entry.shown(now) for entry in found[(page - 1) * size : page * size]]
        return Page(len(found), page, pages, rows)


def _searched(entry: Entry) -> str:
    note = entry.registered.note if entry.registered else ""
    return f"{entry.name}\n{note}\n{entry.peer}".casefold()
