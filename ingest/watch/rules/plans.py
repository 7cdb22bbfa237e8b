"""Which rules look at a device, and what of its records they need."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate

from ingest.watch.fields import needle
from ingest.watch.rules.expressions import Expression
from ingest.watch.rules.model import DiskFull, MissingNumbers, Refused, Rule, Silence, When

_EVERY_LINE = re.compile(b"")
_ESCAPED = rb"\u"
"""A field's name may be written with it in JSON; see `needle`."""


@dataclass(frozen=True)
class Plan:
    """How a device is looked at. Rules are named by their place in the file.

    Attributes:
        conditions: rules with a condition.
        silences: rules about silence, by the field that must not be missing; "" for any record.
        missing: rules about missing numbers.
        refused: rules about refusals.
        tracked: fields whose newest value is kept.
        aged: how old a field may become before a condition must be looked at: rule, field, and
            microseconds.
        touched: finds whether the rest of a line is worth parsing; None if none is.
        reads: whether the fields are wanted, and not only the text.
    """

    conditions: tuple[tuple[int, Rule, When], ...]
    silences: Mapping[str, tuple[tuple[int, Silence], ...]]
    missing: tuple[int, ...]
    refused: tuple[tuple[int, Refused], ...]
    tracked: tuple[str, ...]
    aged: tuple[tuple[int, str, int], ...]
    touched: re.Pattern[bytes] | None
    reads: bool

    @property
    def hears(self) -> bool:
        """Whether every record counts, whatever is in it."""
        return bool(self.missing or "" in self.silences)


class Plans:
    """The plans of all devices; those that the same rules look at share one."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._matches = [re.compile(translate(rule.devices)).match for rule in rules]
        self._plans: dict[tuple[int, ...], Plan] = {}

    def applies(self, place: int, device: str) -> bool:
        """Tell whether a rule is about a device; one about none has an empty name for it."""
        if isinstance(self._rules[place].test, DiskFull):
            return device == ""
        return self._matches[place](device) is not None

    def of(self, device: str) -> Plan:
        """Return the plan of a device."""
        places = tuple(place for place, match in enumerate(self._matches) if match(device))
        if places not in self._plans:
            self._plans[places] = _plan([(place, self._rules[place]) for place in places])
        return self._plans[places]


def _plan(rules: Sequence[tuple[int, Rule]]) -> Plan:
    conditions: list[tuple[int, Rule, When]] = []
    silences: defaultdict[str, list[tuple[int, Silence]]] = defaultdict(list)
    missing: list[int] = []
    refused: list[tuple[int, Refused]] = []
    for place, rule in rules:
        match rule.test:
            case When() as test:
                conditions.append((place, rule, test))
            case Silence() as test:
                silences[test.field or ""].append((place, test))
            case MissingNumbers():
                missing.append(place)
            case Refused() as test:
                refused.append((place, test))
    expressions = [each for _, _, test in conditions for each in _expressions(test)]
    tracked = frozenset[str]().union(*(each.tracked for each in expressions))
    timed = tracked | (silences.keys() - {""})
    return Plan(
        tuple(conditions),
        {name: tuple(tests) for name, tests in silences.items()},
        tuple(missing),
        tuple(refused),
        tuple(sorted(tracked)),
        tuple(_ages(conditions)),
        _touched(expressions, timed),
        bool(timed) or any(rule.shown for _, rule, _ in conditions),
    )


def _expressions(test: When) -> Iterator[Expression]:
    yield test.holds
    if test.clear is not None:
        yield test.clear


def _ages(conditions: Sequence[tuple[int, Rule, When]]) -> Iterator[tuple[int, str, int]]:
    for place, _, test in conditions:
        ages = {age for each in _expressions(test) for age in each.ages}
        yield from ((place, name, after) for name, after in sorted(ages))


def _touched(expressions: Sequence[Expression], timed: frozenset[str]) -> re.Pattern[bytes] | None:
    """Make what finds whether a line may have a field that one of the rules needs."""
    if not expressions and not timed:
        return None
    needed = set(timed)
    for expression in expressions:
        if expression.needs is None:
            return _EVERY_LINE
        needed |= expression.needs
    needles = {needle(name) for name in needed}
    if b"" in needles:
        return _EVERY_LINE
    return re.compile(b"|".join([*map(re.escape, sorted(needles)), re.escape(_ESCAPED)]))
