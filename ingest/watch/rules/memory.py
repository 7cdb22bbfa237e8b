"""What the rules remember of a device, and how it is written down."""

from dataclasses import asdict, dataclass, field
from typing import Final

import orjson

from ingest.watch.fields import Field
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Phase, Watch
from ingest.watch.rules.plans import Plan

_LEARN_AFTER: Final = 5
"""Intervals that must have been seen before the usual one is trusted."""
_SHORTEST: Final = SECOND
"""A shorter interval is within a burst, as of a device that sends many records at once."""
_LEARNED_AT_LEAST: Final = 10 * SECOND
"""The shortest silence that is learned: networks stutter."""
_WEIGHT: Final = 8
"""Intervals over which the usual one is the mean, the newest weighing most."""
_TIMES: Final = 3
"""How many usual intervals are a silence."""


@dataclass(slots=True)
class Rhythm:
    """When something came, and how often it comes. Times are microseconds.

    Attributes:
        last: when it came last, since 1970; 0 for never.
        usual: the usual interval.
        intervals: how many were seen.
    """

    last: int = 0
    usual: float = 0.0
    intervals: int = 0

    def beat(self, now: int, silent: bool) -> bool:
        """Note that it came; an interval that ends a silence teaches nothing.

        Returns:
            Whether what is known of it may have become more than a newer `last`.
        """
        gap, is_first = now - self.last, not self.last
        self.last = now
        if 0 <= gap < _SHORTEST:
            return False
        if gap > 0 and not is_first and not silent:
            self._learn(gap)
        return True

    def _learn(self, gap: int) -> None:
        """Let the usual interval follow; a single long gap does not spoil it."""
        if self.intervals:
            gap = min(gap, round(_TIMES * self.usual))
        self.intervals += 1
        self.usual += (gap - self.usual) / min(self.intervals, _WEIGHT)

    @property
    def learned(self) -> int | None:
        """How long a silence is unusual; None if that is not known yet."""
        if self.intervals < _LEARN_AFTER:
            return None
        return max(round(_TIMES * self.usual), _LEARNED_AT_LEAST)


@dataclass(eq=False, slots=True)
class Device:
    """What the rules remember of a device. Times are microseconds since 1970.

    Attributes:
        name: its name.
        plan: how its records are looked at.
        seq: the number of its newest record; 0 if that was not noted.
        rhythms: when its records came, under "", and fields whose silence counts.
        known: the newest value of each tracked field, and when it came.
        refused: how many refusals the listener counts since it started.
        refusals: those of late: when, and how many.
        watches: the rules that are not quiet, by their place.
        armed: when the heap holds a timer for what: rule, field, and a number.
        registered: whether it stood in the registry when that was looked at last.
    """

    name: str
    plan: Plan
    seq: int = 0
    rhythms: dict[str, Rhythm] = field(default_factory=dict)
    known: dict[str, tuple[int, Field]] = field(default_factory=dict)
    refused: int = 0
    refusals: list[tuple[int, int]] = field(default_factory=list)
    watches: dict[int, Watch] = field(default_factory=dict)
    armed: dict[tuple[int, str, int], int] = field(default_factory=dict)
    registered: bool = False

    def drop_unkept(self) -> bool:
        """Forget what its plan does not keep up to date; tells whether there was any.

        A rule that asks for it later must not take it for what came last.
        """
        rhythms = {name: each for name, each in self.rhythms.items() if name in self.plan.silences}
        known = {name: each for name, each in self.known.items() if name in self.plan.tracked}
        seq = self.seq if self.plan.hears else 0
        is_less = (seq, len(rhythms), len(known)) != (self.seq, len(self.rhythms), len(self.known))
        self.seq, self.rhythms, self.known = seq, rhythms, known
        return is_less

    def set_back(self, now: int) -> None:
        """Let nothing have come later than now: the clock was set back."""
        for rhythm in self.rhythms.values():
            rhythm.last = min(rhythm.last, now)
        self.known = {name: (min(time, now), value) for name, (time, value) in self.known.items()}

    def go_on(self, now: int) -> None:
        """Go on where lines of the log are gone: nobody knows what came until now.

        A silence counts from now on.
        """
        self.seq = 0
        self.known.clear()
        for rhythm in self.rhythms.values():
            rhythm.last = max(rhythm.last, now) if rhythm.last else 0

    def dump(self) -> bytes:
        """Write down all but the watches."""
        rhythms = {
            name: (each.last, each.usual, each.intervals) for name, each in self.rhythms.items()
        }
        # JSON has no NaN: a text stands for it, and for the infinities.
        known = {name: (time, _written(value)) for name, (time, value) in self.known.items()}
        kept = [self.seq, rhythms, known, self.refused, self.refusals, self.registered]
        return orjson.dumps(kept)

    def load(self, dumped: bytes) -> None:
        """Take over what `dump` wrote."""
        self.seq, rhythms, known, self.refused, refusals, *newer = orjson.loads(dumped)
        self.registered = newer == [True]
        self.rhythms = {name: Rhythm(*each) for name, each in rhythms.items()}
        self.known = {name: (time, _read(value)) for name, (time, value) in known.items()}
        self.refusals = [(time, count) for time, count in refusals]


def dump_watch(watch: Watch) -> bytes:
    """Write down where a rule stands."""
    shown = {name: _written(value) for name, value in watch.fields.items()}
    return orjson.dumps(asdict(watch) | {"fields": shown})


def load_watch(dumped: bytes) -> Watch:
    """Take over what `dump_watch` wrote."""
    values = orjson.loads(dumped)
    values["phase"] = Phase(values["phase"])
    values["fields"] = {name: _read(value) for name, value in values["fields"].items()}
    return Watch(**values)


def _written(value: Field) -> object:
    return [str(value)] if isinstance(value, float) and value - value != 0 else value


def _read(value: object) -> Field:
    if isinstance(value, list):
        return float(value[0])
    assert isinstance(value, float | str | bool)
    return value
