"""Where the rules stand on devices: what tests find moves them on, and makes events and timers."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from ingest.watch.fields import Field
from ingest.watch.rules.memory import Device
from ingest.watch.rules.model import Rule
from ingest.watch.rules.phases import FIRES, Event, Input, Phase, Watch, event, step


class Timer(NamedTuple):
    """A moment at which a rule looks at a device.

    `field` and `after` tell what for: a field that has become that old, in microseconds, or a
    silence, with an `after` of -1; with 0 it is what the rule's watch waits for.
    """

    due: int
    device: str
    rule: int
    field: str = ""
    after: int = 0


class Standing:
    """The watches of all devices, and the times that they and their tests wait for.

    Attributes:
        changed: watches that are new, other or gone: device and rule. Who saves them empties it.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Begin with no timer and no event; the watches are kept by the devices.

        Args:
            rules: the rules, in the order of their file.
        """
        self.changed: set[tuple[Device, int]] = set()
        self._rules = rules
        self._timers: list[Timer] = []
        self._events: list[Event] = []

    def taken(self) -> list[Event]:
        """Return what happened since the last call."""
        events, self._events = self._events, []
        return events

    def arm(self, device: Device, due: int, place: int, name: str = "", after: int = 0) -> None:
        """Have a timer that is not later than `due`, and only one for each purpose."""
        key = place, name, after
        if device.armed.get(key, due + 1) > due:
            device.armed[key] = due
            heappush(self._timers, Timer(due, device.name, place, name, after))

    def due_until(self, now: int) -> Iterator[Timer]:
        """Take the timers that are due, in order, also those that are armed meanwhile."""
        while self._timers and self._timers[0].due <= now:
            yield heappop(self._timers)

    def step(
        self,
        device: Device,
        place: int,
        happened: Input,
        now: int,
        reason: str = "",
        shown: Mapping[str, Field] | None = None,
        since: int = 0,
        seq: int = 0,
    ) -> None:
        """Let a rule go on, on a device, and note what that causes."""
        rule = self._rules[place]
        watch = device.watches.get(place) or Watch(since=since, seq=seq)
        before = watch.phase
        if happened is Input.HOLDS and before in (Phase.QUIET, Phase.PENDING):
            watch.reason, watch.fields = reason, dict(shown or {})
        elif shown and happened is Input.ENDS:
            watch.fields = dict(shown)
        made = step(rule, watch, happened, now)
        if watch.phase is not before or watch.phase is Phase.PENDING:
            self.changed.add((device, place))
        if watch.phase is not before:
            self._put(device, place, watch)
        if made is not None:
            self._events.append(event(rule, device.name, watch, made == FIRES, now))

    def drop(self, device: Device, place: int, now: int, reason: str) -> None:
        """Forget a watch; one that had fired clears."""
        watch = device.watches.pop(place)
        self.changed.add((device, place))
        if watch.is_active:
            watch.reason = reason
            self._events.append(event(self._rules[place], device.name, watch, False, now))

    def fit(self, device: Device, now: int) -> None:
        """Let what a device's watches wait for suit their rules and the clock.

        Neither need be what it was: a rule is changed in its file, a clock is set back. A condition
        that was to hold for a while, and is another now, has yet to be found to hold.
        """
        for place, watch in list(device.watches.items()):
            rule, before = self._rules[place], (watch.since, watch.due)
            if watch.phase is Phase.PENDING and watch.reason != str(rule.test):
                self.drop(device, place, now, "")
            elif watch.phase is Phase.PENDING:
                watch.since = min(watch.since, now)
                watch.due = watch.since + rule.hold
            elif watch.phase is Phase.KEEPING:
                watch.due = min(watch.due, now + rule.keep)
            if before != (watch.since, watch.due):
                self.changed.add((device, place))

    def drop_pending(self, device: Device, now: int) -> None:
        """Forget the conditions that were to hold for a while."""
        for place, watch in list(device.watches.items()):
            if watch.phase is Phase.PENDING:
                self.drop(device, place, now, "")

    def _put(self, device: Device, place: int, watch: Watch) -> None:
        if watch.phase is Phase.QUIET:
            device.watches.pop(place, None)
            return
        device.watches[place] = watch
        if watch.due:
            self.arm(device, watch.due, place)
