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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from ingest.names import is_device_name
from ingest.record import Values, record_block, record_time
from ingest.units import parse_duration
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.model import Rule
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.replay import firings
from ingest.watch.rules.rulesfile import read_rules

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_BEGIN_TIME: Final = round(_BEGIN.timestamp()) * SECOND
_EXAMPLE: Final = 'a file of tests has rules = "rules.toml" and tables [[test]]'
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
    """One test: its name, the log that it makes, its end in microseconds, and what it expects."""

    name: str
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
        tables = tomllib.loads(path.read_text())
        name = tables["rules"]
        cases = [_case(place, table) for place, table in enumerate(_tables(tables, "test"), 1)]
    except OSError as error:
        raise CasesError(f"{path}: {error.strerror}") from None
    except KeyError as error:
        raise CasesError(f"{path}: there is no {error.args[0]}; {_EXAMPLE}") from None
    except ValueError as error:
        raise CasesError(f"{path}: {error}") from None
    rules = read_rules(path.parent / name).rules
    unknown = {each.rule for case in cases for each in case.expected} - {
        rule.name for rule in rules
    }
    if unknown:
        raise CasesError(f"{path}: there is no rule {', '.join(sorted(unknown))}")
    return rules, cases


def _case(place: int, table: Mapping[str, Any]) -> Case:
    name = str(table.get("name", f"number {place}"))
    try:
        _refuse_unknown(table, _TEST_KEYS)
        lines = list(_lines(_tables(table, "records")))
        until = max([_moment(table.get("until", "0s")), *(at for at, _ in lines)])
        expected = [_outcome(each) for each in _tables({"expect": [], **table}, "expect")]
    except KeyError as error:
        raise ValueError(f'test "{name}": there is no {error.args[0]}') from None
    except ValueError as error:
        raise ValueError(f'test "{name}": {error}') from None
    return Case(name, b"".join(line for _, line in lines), until, expected)


def _lines(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, bytes]]:
    """Make the lines of a log; records are numbered unless they say a number."""
    numbers: dict[str, int] = {}
    before = 0
    for record in records:
        _refuse_unknown(record, _RECORD_KEYS)
        at, device = _moment(record["at"]), str(record["device"])
        if at < before:
            raise ValueError("records stand in the order of their times")
        before = at
        number = numbers[device] = record.get("seq", numbers.get(device, 0) + 1)
        if not is_device_name(device):
            raise ValueError(f"{device!r} is no device's name")
        if not isinstance(number, int) or number < 1:
            raise ValueError("seq: this is a whole number above 0")
        yield at, _line(record, at, device, number)


def _line(record: Mapping[str, Any], at: int, device: str, number: int) -> bytes:
    kinds = [kind for kind in ("text", "data") if kind in record]
    if len(kinds) != 1:
        raise ValueError("a record has a text or data")
    (kind,) = kinds
    stamp = record_time(_BEGIN + timedelta(microseconds=at))
    tag = b',"tag":%b' % orjson.dumps(record["tag"]) if "tag" in record else b""
    key = b'%b,"%b":' % (tag, kind.encode())
    values = Values(key, [orjson.dumps(record[kind])], b"}\n")
    return record_block(stamp, device.encode(), number, values)


def _outcome(table: Mapping[str, Any]) -> Outcome:
    _refuse_unknown(table, _EXPECT_KEYS)
    clears = _moment(table["clears"]) if "clears" in table else None
    return Outcome(table["rule"], table.get("device", ""), _moment(table["fires"]), clears)


def _tables(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the list of tables that stands under a key.

    Raises:
        KeyError: there is none.
        ValueError: something else stands there.
    """
    found = table[key]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{key}: this is a list of tables")
    return found


def _moment(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError(f'{text!r} is not a duration in quotes, such as "10s"')
    return round(parse_duration(text) * SECOND)


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
