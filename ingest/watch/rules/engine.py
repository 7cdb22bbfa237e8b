"""Rules over the log: blocks of lines in, events out. Pure: its clock is the log's own time.

A line is taken apart only as far as the rules of its device need. Most lines are passed by after a
look at their device and a search for the names of fields.

Times that rules wait for (`for`, silence, …) stand in one heap. They are due when the log has
passed them, or when `advance` says what time it is; so a log that is read a night later gives the
same events at the same times.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import orjson

from ingest.watch.fields import Field, fields_in
from ingest.watch.rules.memory import Device, Rhythm
from ingest.watch.rules.model import DiskFull, Rule, Silence, When
from ingest.watch.rules.nodes import SECOND, Sample, Value
from ingest.watch.rules.phases import Event, Input, Phase, Watch
from ingest.watch.rules.plans import Plans
from ingest.watch.rules.standing import Standing, Timer
from ingest.watch.rules.times import microseconds

_LINE: Final = re.compile(rb'\n\{"time":"([^"]{27})","device":"([^"]*)","seq":([0-9]+),(.*)')
_LONGEST: Final = 1000


_OBJECT: Final = b"fields"
_SILENCE: Final = -1  # of a timer
_SET_BACK: Final = 10 * SECOND
"""How much earlier a record is than the clock if that was set back; by less, it was only written
late."""


class Engine:
    """All rules, on all devices.

    Attributes:
        rules: the rules, in the order of their file.
        clock: the time that the log or `advance` told last, in microseconds since 1970.
        devices: all that came, by name.
        changed: devices of which something else is new than watches. Who saves them empties it.
        changed_watches: watches that are new, other or gone: device and rule. As above.
        asked: when the listener was asked for its refusals last; 0 for never.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        clock: int = 0,
        is_jump: Callable[[str, int], bool] = lambda _device, _number: False,
    ) -> None:
        """Begin with nothing known.

        Args:
            rules: the rules, in the order of their file.
            clock: where the clock stands.
            is_jump: tells whether the listener has left out numbers before this one of a device,
                so that none is missing there.
        """
        self.rules = rules
        self._is_jump = is_jump
        self.clock = clock
        self.devices: dict[bytes, Device] = {}
        self.changed: set[Device] = set()
        self._standing = Standing(rules)
        self.changed_watches = self._standing.changed
        self.asked = 0
        self._plans = Plans(rules)
        self._is_behind_a_gap = False

    def feed(self, block: bytes) -> list[Event]:
        """Take a block of whole lines of the log; return what it caused, in order."""
        devices = self.devices
        stamp, now = b"", self.clock
        if self._is_behind_a_gap:
            self._go_on(block)
        for time, name, number, rest in _LINE.findall(b"\n" + block):
            if time != stamp:
                stamp = time
                now = microseconds(time) or now
                self._pass_to(now)
            device = devices.get(name) or self._meet(name)
            plan = device.plan
            if plan.hears:
                self._hear(device, int(number), now)
            if plan.touched is not None and plan.touched.search(rest):
                self._look(device, float(number), rest, now)
        return self._standing.taken()

    def skip(self) -> None:
        """Lines of the log are gone: what is fed next does not follow what was fed last."""
        self._is_behind_a_gap = True

    def advance(self, now: int) -> list[Event]:
        """Say what time it is, now that all of the log is read; return what was due."""
        if now > self.clock:
            self._pass_to(now)
        return self._standing.taken()

    def refusals(self, counted: Mapping[str, int], started: int, now: int) -> list[Event]:
        """Take how often the listener has refused each device since it started.

        When between this look and the one before a refusal was is not known: the earliest moment
        counts. So refusals of a night in which nobody looked are not taken for those of a minute.

        Args:
            counted: refusals by device.
            started: when the listener started, in microseconds.
            now: what time it is.
        """
        earliest = max(self.asked, started)
        self.asked = now
        for name, count in counted.items():
            device = self.device(name)
            if count == device.refused:
                continue
            # A smaller number is that of a listener that has started again.
            new = count - device.refused if count > device.refused else count
            device.refused = count
            self.changed.add(device)
            if device.plan.refused:
                device.refusals.append((earliest, new))
        for device in self.devices.values():
            if device.refusals or device.watches:
                self._weigh_refusals(device, now)
        return self._standing.taken()

    def disk(self, full_in: float | None, now: int) -> list[Event]:
        """Take in how many seconds the disk will be full; None if it does not fill."""
        device = self.device("")
        for place, rule in enumerate(self.rules):
            if isinstance(rule.test, DiskFull):
                holds = full_in is not None and full_in * SECOND <= rule.test.within
                hours = f"{(full_in or 0) / 3600:.1f}"
                reason = f"the disk will be full in {hours} h at the present rate"
                self._standing.step(
                    device, place, Input.HOLDS if holds else Input.ENDS, now, reason
                )
        return self._standing.taken()

    def forget(self, device: Device, now: int) -> list[Event]:
        """Let a device go that is no longer in the fleet: what fires on it clears."""
        for place in list(device.watches):
            self._standing.drop(device, place, now, "the device was removed")
        device.rhythms.clear()
        device.known.clear()
        self.changed.add(device)
        return self._standing.taken()

    def restore(
        self, devices: Iterable[tuple[str, bytes]], watches: Iterable[tuple[str, str, Watch]]
    ) -> list[tuple[str, str, Watch]]:
        """Take over what was saved; called once, before anything is fed.

        Args:
            devices: name, and what `Device.dump` wrote.
            watches: the rule's name, the device's, and the watch.

        Returns:
            The watches of rules that are no more, or no longer about that device.
        """
        places = {rule.name: place for place, rule in enumerate(self.rules)}
        for name, dumped in devices:
            self.device(name).load(dumped)
        lost = []
        for rule, name, watch in watches:
            place = places.get(rule)
            if place is None or not self._plans.applies(place, name):
                lost.append((rule, name, watch))
            else:
                self.device(name).watches[place] = watch
        for device in self.devices.values():
            if device.drop_unkept():
                self.changed.add(device)
            self._standing.fit(device, self.clock)
            self._arm_all(device)
        return lost

    def firing(self) -> Iterator[tuple[Rule, Device, Watch]]:
        """Go through what has fired and not cleared."""
        for device in self.devices.values():
            for place, watch in device.watches.items():
                if watch.is_active:
                    yield self.rules[place], device, watch

    def device(self, name: str) -> Device:
        """Return what is remembered of a device."""
        return self.devices.get(name.encode()) or self._meet(name.encode())

    def _meet(self, name: bytes) -> Device:
        text = name.decode(errors="replace")
        device = self.devices[name] = Device(text, self._plans.of(text))
        return device

    # Time.

    def _pass_to(self, now: int) -> None:
        for timer in self._standing.due_until(now):
            self.clock = timer.due
            self._come_due(timer, self.device(timer.device))
        is_set_back = now < self.clock - _SET_BACK
        self.clock = now
        if is_set_back:
            for device in self.devices.values():
                device.set_back(now)
                self._standing.fit(device, now)
                self._arm_all(device)
            self.changed.update(self.devices.values())

    def _go_on(self, block: bytes) -> None:
        """Go on behind lines that are gone, at the time of the first that is not."""
        first = _LINE.search(b"\n" + block)
        now = microseconds(first[1]) if first else 0
        if now:
            self._is_behind_a_gap = False
            for device in self.devices.values():
                self._standing.drop_pending(device, now)
                device.go_on(now)
            self.changed.update(self.devices.values())

    def _come_due(self, timer: Timer, device: Device) -> None:
        if device.armed.get(timer[2:]) != timer.due:
            return  # one that was armed for earlier has taken its place
        del device.armed[timer[2:]]
        if timer.after:
            self._look_again(timer, device)
            return
        watch = device.watches.get(timer.rule)
        if watch is not None and watch.due == timer.due:
            self._standing.step(device, timer.rule, Input.DUE, timer.due)
        elif watch is not None and watch.due:
            self._standing.arm(device, watch.due, timer.rule)

    def _look_again(self, timer: Timer, device: Device) -> None:
        rule = self.rules[timer.rule]
        match rule.test:
            case Silence() as test:
                self._look_for_silence(device, timer.rule, test, timer.field, timer.due)
            case When() as test:
                sample = Sample(timer.due, device.name, known=device.known)
                self._judge(device, timer.rule, rule, test, test.holds.evaluate(sample), sample)
                self._arm_ages(device)

    def _arm_all(self, device: Device) -> None:
        for place, watch in device.watches.items():
            if watch.due:
                self._standing.arm(device, watch.due, place)
        for name, rhythm in device.rhythms.items():
            self._arm_silences(device, name, rhythm)
        self._arm_ages(device)

    def _arm_ages(self, device: Device) -> None:
        for place, name, after in device.plan.aged:
            known = device.known.get(name)
            if known is not None and known[0] + after > self.clock:
                self._standing.arm(device, known[0] + after, place, name, after)

    def _arm_silences(self, device: Device, name: str, rhythm: Rhythm) -> None:
        for place, test in device.plan.silences.get(name, ()):
            limit = test.after or rhythm.learned
            if limit is not None and rhythm.last and not self._fires(device, place):
                self._standing.arm(device, rhythm.last + limit, place, name, _SILENCE)

    @staticmethod
    def _fires(device: Device, place: int) -> bool:
        watch = device.watches.get(place)
        return watch is not None and watch.phase is Phase.FIRING

    # Tests.

    def _hear(self, device: Device, number: int, now: int) -> None:
        """Take notice of a record, whatever is in it."""
        for place in device.plan.missing:
            self._compare(device, place, number, now)
        device.seq = number
        if "" in device.plan.silences:
            self._beat(device, "", now)
        self.changed.add(device)

    def _compare(self, device: Device, place: int, number: int, now: int) -> None:
        expected = device.seq + 1
        if device.seq and number != expected and not self._is_jump(device.name, number):
            last = f" to {number - 1}" if number > expected + 1 else ""
            missing = f"missing: number {expected}{last}"
            again = f"number {number} came after {device.seq}"
            reason = missing if number > expected else again
            self._standing.step(device, place, Input.HOLDS, now, reason, seq=number)
        elif place in device.watches:
            self._standing.step(device, place, Input.ENDS, now)

    def _beat(self, device: Device, name: str, now: int) -> None:
        """Note that a record came, or a field, whose silence counts."""
        rhythm = device.rhythms.get(name)
        if rhythm is None:
            rhythm = device.rhythms[name] = Rhythm()
        silent = False
        if device.watches:
            for place, _ in device.plan.silences[name]:
                if place in device.watches:
                    silent = True
                    self._standing.step(device, place, Input.ENDS, now)
        if rhythm.beat(now, silent) or silent:
            self._arm_silences(device, name, rhythm)

    def _look_for_silence(
        self, device: Device, place: int, test: Silence, name: str, now: int
    ) -> None:
        rhythm = device.rhythms.get(name)
        limit = None if rhythm is None else test.after or rhythm.learned
        if rhythm is None or limit is None or not rhythm.last:
            return
        if rhythm.last + limit > now:
            self._standing.arm(device, rhythm.last + limit, place, name, _SILENCE)
        else:
            what = f"no {name}" if name else "silent"
            reason = f"{what} for {limit / SECOND:g} s"
            self._standing.step(device, place, Input.HOLDS, now, reason, since=rhythm.last)

    def _look(self, device: Device, number: float, rest: bytes, now: int) -> None:
        """Look into a record; `rest` is what stands behind its number and a comma."""
        try:
            record = orjson.loads(b"{" + rest)
            kind, value = record.popitem()
            fields = fields_in(kind, value) if device.plan.reads else {}
            if _OBJECT in rest:
                fields = _with_short_names(fields)
        except (ValueError, LookupError):
            return  # no record: `ingest verify` reports it
        text = value if kind == "text" else None
        sample = Sample(now, device.name, number, record.get("tag"), text, fields, device.known)
        watches = device.watches
        for place, rule, test in device.plan.conditions:
            verdict = test.holds.evaluate(sample)
            if verdict is True or place in watches:
                self._judge(device, place, rule, test, verdict, sample)
        if device.plan.tracked:
            self._track(device, fields, now)
        for name in device.plan.silences:
            if name in fields:
                self._beat(device, name, now)
                self.changed.add(device)

    def _judge(
        self, device: Device, place: int, rule: Rule, test: When, holds: Value, sample: Sample
    ) -> None:
        """Act on what a condition says; where `clear` is given, only that ends what has fired."""
        watch = device.watches.get(place)
        if holds is True and watch is not None and watch.phase is Phase.FIRING:
            return
        verdict = holds
        if test.clear is not None and watch is not None and watch.is_active and holds is not True:
            verdict = None if test.clear.evaluate(sample) is not True else False
        if isinstance(verdict, bool):
            shown = _shown(rule, sample.fields)
            happened = Input.HOLDS if verdict else Input.ENDS
            self._standing.step(
                device, place, happened, sample.time, str(test), shown, seq=int(sample.seq or 0)
            )

    def _track(self, device: Device, fields: Mapping[str, Field], now: int) -> None:
        for name in device.plan.tracked:
            if name in fields:
                device.known[name] = (now, fields[name])
                self.changed.add(device)
        self._arm_ages(device)

    def _weigh_refusals(self, device: Device, now: int) -> None:
        for place, test in device.plan.refused:
            count = sum(new for time, new in device.refusals if time > now - test.within)
            happened = Input.HOLDS if count >= test.count else Input.ENDS
            self._standing.step(device, place, happened, now, f"refused {count} times")
        longest = max((test.within for _, test in device.plan.refused), default=0)
        kept = [each for each in device.refusals if each[0] > now - longest]
        if len(kept) != len(device.refusals):
            device.refusals = kept
            self.changed.add(device)


def _with_short_names(fields: dict[str, Field]) -> dict[str, Field]:
    """Let what an object `fields` holds go by its own name too, if nothing else has it.

    In an expression, `fields.temp` is the field `temp`; of a line of Influx that the listener has
    parsed, it is also the one that the log calls so.
    """
    short = {name[7:]: value for name, value in fields.items() if name.startswith("fields.")}
    return short | fields if short else fields


def _shown(rule: Rule, fields: Mapping[str, Field]) -> dict[str, Field]:
    """Pick the fields that an alert carries; a text may be as long as a frame, and is cut."""
    values = ((name, fields[name]) for name in rule.shown if name in fields)
    return {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in values}
