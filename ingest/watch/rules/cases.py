"""Tests of rules, in TOML: records that are given, and what must fire on them.

    rules = "rules.toml"

    [[test]]
    name = "hot for ten minutes"
    until = "1h"
    records = [
        {at = "0s", device = "cold-1", text = "temp=31"},
        {at = "20m", device = "cold-1", data = {temp = 20}},
    ]
    expect = [{rule = "hot", device = "cold-1", fires = "10m", clears = "20m"}]

Times are durations from the test's begin. All that fires must be expected, and all that is
expected must fire, at those times. What does not say that it clears fires to the end.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from ingest.names import is_device_name, nearest
from ingest.record import Values, record_block, record_time
from ingest.units import parse_duration
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.lines import Lines
from ingest.watch.rules.model import Rule, in_words
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.replay import firings
from ingest.watch.rules.rulesfile import LONGEST, read_rules

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_BEGIN_TIME: Final = round(_BEGIN.timestamp()) * SECOND
_EXAMPLE: Final = 'a file of tests has rules = "rules.toml" and tables [[test]]'
_FILE_KEYS: Final = {"rules", "test"}
_TEST_KEYS: Final = {"name", "records", "until", "expect"}
_RECORD_KEYS: Final = {"at", "device", "seq", "tag", "text", "data"}
_EXPECT_KEYS: Final = {"rule", "device", "fires", "clears"}


class CasesError(Exception):
    """A file of tests that can't be run; the text says where and why."""


@dataclass(frozen=True, order=True)
class Outcome:
    """A rule fired on a device, and perhaps cleared; microseconds from the test's begin."""

    rule: str
    device: str
    fires: int
    clears: int | None

    def __str__(self) -> str:
        end = (
            "and does not clear"
            if self.clears is None
            else f"and clears at {_in_words(self.clears)}"
        )
        about = f' on "{self.device}"' if self.device else ""
        return f'"{self.rule}" fires{about} at {_in_words(self.fires)} {end}'


@dataclass(frozen=True)
class Case:
    """One test: its name and line, its log, its end in microseconds, and what it expects."""

    name: str
    line: int
    log: bytes
    until: int
    expected: Sequence[Outcome]

    def run(self, rules: Sequence[Rule]) -> list[str]:
        """Run rules over the records; returns what differs, in words."""
        engine = Engine(rules)
        events = engine.feed(self.log) + engine.advance(_BEGIN_TIME + self.until)
        found = [
            Outcome(
                firing.event.rule,
                firing.event.device,
                firing.event.fired - _BEGIN_TIME,
                None if firing.cleared is None else firing.cleared - _BEGIN_TIME,
            )
            for firing in firings(events)
        ]
        missing = [f"expected, but not so: {each}" for each in _without(self.expected, found)]
        return missing + [f"not expected: {each}" for each in _without(found, self.expected)]


def read_cases(path: Path) -> tuple[Sequence[Rule], list[Case]]:
    """Read a file of tests, and the rules that it names.

    Raises:
        CasesError: the file is no such file.
        RulesError: something is wrong with the rules.
    """
    try:
        text = path.read_text()
        tables = tomllib.loads(text)
    except OSError as error:
        raise CasesError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise CasesError(f"{path}: this is no TOML: {error}") from None
    reader = _Reader(path, Lines(text))
    with reader.at("", -1, ""):
        _refuse_unknown(tables, _FILE_KEYS)
        name = _text(_required(tables, "rules", _EXAMPLE), "rules")
        found = _tables(_required(tables, "test", _EXAMPLE), "test")
    rules = read_rules(path.parent / name).rules
    names = {rule.name for rule in rules}
    return rules, [reader.case(place, table, names) for place, table in enumerate(found)]


class _Reader:
    """Reads the tests of one file; what is wrong is said with its line."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self._path = path
        self._lines = lines

    @contextmanager
    def at(self, test: str, place: int, key: str) -> Iterator[None]:
        """Say of an error where it is: in which test, and at which of its keys."""
        try:
            yield
        except ValueError as error:
            line = self._lines.of("test", place, key) if place >= 0 else 0
            where = f"{self._path}:{line}" if line else f"{self._path}"
            raise CasesError(f"{where}: {test}{error}") from None

    def case(self, place: int, table: Mapping[str, Any], rules: Collection[str]) -> Case:
        """Read one test."""
        name = str(table.get("name", f"number {place + 1}"))
        title = f'test "{name}": '
        for key in table:
            with self.at(title, place, key):
                _refuse_unknown({key: table[key]}, _TEST_KEYS)
        with self.at(title, place, "records"):
            records = _tables(_required(table, "records"), "records")
            lines = list(_lines(records))
        with self.at(title, place, "until"):
            until = max([_moment(table.get("until", "0s")), *(at for at, _ in lines)])
        with self.at(title, place, "expect"):
            expected = _outcomes(_tables(table.get("expect", []), "expect"), rules)
        log, line = b"".join(each for _, each in lines), self._lines.of("test", place, "")
        return Case(name, line, log, until, expected)


def _lines(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, bytes]]:
    """Make the lines of a log; records are numbered unless they say a number."""
    numbers: dict[str, int] = {}
    before = 0
    for place, record in enumerate(records, 1):
        with _within(f"record {place}"):
            _refuse_unknown(record, _RECORD_KEYS)
            at, device = _moment(_required(record, "at")), str(_required(record, "device"))
            if at < before:
                raise ValueError("records stand in the order of their times")
            number = record.get("seq", numbers.get(device, 0) + 1)
            if not is_device_name(device):
                raise ValueError(f"{device!r} is no device's name")
            if not isinstance(number, int) or not 0 < number < 1 << 63:
                raise ValueError("seq: this is a whole number above 0")
            line = _line(record, at, device, number)
        before, numbers[device] = at, number
        yield at, line


@contextmanager
def _within(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _line(record: Mapping[str, Any], at: int, device: str, number: int) -> bytes:
    kinds = [kind for kind in ("text", "data") if kind in record]
    if len(kinds) != 1:
        raise ValueError("a record has a text or data")
    (kind,) = kinds
    for name in {"text", "tag"} & record.keys():
        _text(record[name], name)
    stamp = record_time(_BEGIN + timedelta(microseconds=at))
    tag = b',"tag":%b' % orjson.dumps(record["tag"]) if "tag" in record else b""
    key = b'%b,"%b":' % (tag, kind.encode())
    try:
        value = orjson.dumps(record[kind])
    except orjson.JSONEncodeError as error:
        raise ValueError(f"{kind}: no record has such a value: {error}") from None
    values = Values(key, [value], b"}\n")
    return record_block(stamp, device.encode(), number, values)


def _outcomes(tables: Sequence[Mapping[str, Any]], rules: Collection[str]) -> list[Outcome]:
    found = []
    for place, table in enumerate(tables, 1):
        with _within(f"alert {place}"):
            found.append(_outcome(table, rules))
    return found


def _outcome(table: Mapping[str, Any], rules: Collection[str]) -> Outcome:
    _refuse_unknown(table, _EXPECT_KEYS)
    rule, device = _text(_required(table, "rule"), "rule"), _text(table.get("device", ""), "device")
    if rule not in rules:
        near = nearest(rule, rules)
        raise ValueError(f"there is no rule {rule}{f'; is it {near}?' if near else ''}")
    clears = _moment(table["clears"]) if "clears" in table else None
    return Outcome(rule, device, _moment(_required(table, "fires")), clears)


def _required(table: Mapping[str, Any], key: str, hint: str = "") -> Any:
    if key not in table:
        raise ValueError(f"there is no {key}{f'; {hint}' if hint else ''}")
    return table[key]


def _tables(found: object, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{key}: this is a list of tables")
    return found


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: this is a text in quotes")
    return value


def _moment(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError(f'{text!r} is not a duration in quotes, such as "10s"')
    moment = round(parse_duration(text) * SECOND)
    if moment > LONGEST:
        raise ValueError(f"{text!r} is more than {in_words(LONGEST)}")
    return moment


def _refuse_unknown(table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ValueError(f"{key} has no meaning here; there are {', '.join(sorted(known))}")


def _without(these: Sequence[Outcome], those: Sequence[Outcome]) -> list[Outcome]:
    left = list(those)
    found = []
    for each in these:
        if each in left:
            left.remove(each)
        else:
            found.append(each)
    return found


def _in_words(moment: int) -> str:
    seconds = moment / SECOND
    return f"{seconds:g}s" if seconds < 60 or seconds % 60 else f"{seconds / 60:g}m"
