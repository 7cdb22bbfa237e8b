"""A file of rules in TOML, and the checks that find what is wrong with it."""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ingest.names import nearest
from ingest.units import parse_duration
from ingest.watch.rules.expressions import Expression, compile_condition
from ingest.watch.rules.lines import Lines
from ingest.watch.rules.model import (
    DiskFull,
    MailServer,
    Message,
    MissingNumbers,
    Refused,
    Rule,
    Rules,
    Silence,
    Target,
    Test,
    When,
    in_words,
)
from ingest.watch.rules.nodes import SECOND

_T = TypeVar("_T")
_GLOB = re.compile(r"[A-Za-z0-9._:*?-]{1,128}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_WORD = r"[!-+\--:=?A-~]+"  # of printable ASCII, without , ; < > @
_ADDRESS = re.compile(f"{_WORD}@{_WORD}")
_URL = re.compile(r"[!-~]+")
LONGEST: Final = 3650 * 86400 * SECOND
"""Ten years: moments that are so much later are still moments of the calendar."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a file of rules.

    Attributes:
        rule: the rule's name in quotes, or its place; empty if it is not about one.
        line: where, counted from 1; 0 if that is not known.
        text: what is wrong, and what to do.
    """

    rule: str
    line: int
    text: str


class RulesError(Exception):
    """A file of rules that can't be used, with everything that is wrong with it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(_in_words(path, problem) for problem in self.problems))


def read_rules(path: Path) -> Rules:
    """Read and check a file of rules.

    Raises:
        RulesError: it can't be read, or something is wrong with it.
    """
    try:
        text = path.read_text()
        tables = tomllib.loads(text)
    except OSError as error:
        raise RulesError(path, [Problem("", 0, error.strerror or str(error))]) from None
    except ValueError as error:  # TOML's, or that of a text that is no UTF-8
        raise RulesError(path, [Problem("", 0, f"this is no TOML: {error}")]) from None
    problems: list[Problem] = []
    rules = _read(tables, Lines(text), problems.append)
    if problems:
        raise RulesError(path, problems)
    return rules


def _in_words(path: Path, problem: Problem) -> str:
    line = f":{problem.line}" if problem.line else ""
    rule = f"rule {problem.rule}: " if problem.rule else ""
    return f"{path}{line}: {rule}{problem.text}"


class _Table:
    """A table of the file: its keys are taken one by one, and what is wrong is noted."""

    def __init__(self, values: dict[str, Any], note: Callable[[str, str], None]) -> None:
        self._values = dict(values)
        self._known: set[str] = set()
        self.note = note

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, read: Callable[[Any], _T], default: _T) -> _T:
        """Return what `read` makes of a key's value; `default` without the key or with an error."""
        self._known.add(key)
        if key not in self._values:
            return default
        try:
            return read(self._values.pop(key))
        except ValueError as error:
            self.note(key, f"{key}: {error}")
            return default

    def refuse_the_rest(self, known: tuple[str, ...] = ()) -> None:
        """Note the keys that nobody has taken."""
        for key in self._values:
            near = nearest(key, (*self._known, *known))
            hint = f"; is it {near}?" if near else ""
            self.note(key, f"{key} has no meaning here{hint}")


def _read(tables: dict[str, Any], lines: Lines, problem: Callable[[Problem], None]) -> Rules:
    for key in tables.keys() - {"rule", "mail"}:
        problem(Problem("", lines.of(key, 0, ""), f"{key}: there are only [[rule]] and [mail]"))
    found = tables.get("rule", [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        problem(Problem("", lines.of("rule", 0, ""), "a rule begins with a line [[rule]]"))
        found = []
    if "rule" not in tables:
        problem(Problem("", 0, "there is no rule; one begins with [[rule]]"))
    rules: list[Rule] = []
    for place, values in enumerate(found):
        name = str(values.get("name", ""))

        def note(key: str, text: str, place: int = place, name: str = name) -> None:
            title = f'"{name}"' if name else f"number {place + 1}"
            problem(Problem(title, lines.of("rule", place, key), text))

        rules.append(_rule(_Table(values, note), {rule.name for rule in rules}))
    settings = tables.get("mail", {})
    if not isinstance(settings, dict):
        problem(Problem("", lines.of("mail", 0, ""), "mail: this is a table, below a line [mail]"))
        settings = {}
    mail = _Table(settings, lambda key, text: problem(
        Problem("", lines.of("mail", 0, key), f"[mail] {text}")
    ))  # fmt: skip
    return Rules(tuple(rules), _mail(mail))


def _rule(table: _Table, names: set[str]) -> Rule:
    if "name" not in table:
        table.note("", 'a rule needs a name, under which its state is kept: name = "hot"')
    name = table.take("name", _name, "")
    if name in names:
        table.note("name", "another rule has this name")
    test = _test(table)
    message = Message.parse("{device}: {reason}" if not isinstance(test, DiskFull) else "{reason}")
    rule = Rule(
        name=name,
        test=test,
        then=table.take("then", _targets, ()),
        devices=table.take("devices", _glob, "*"),
        keep=table.take("keep_firing_for", _duration, 0),
        message=table.take("message", _message, message),
    )
    table.refuse_the_rest(tuple(_TESTS))
    return rule


def _test(table: _Table) -> Test:
    given = [key for key in _TESTS if key in table]
    if len(given) != 1:
        there = " and ".join(given) if given else "none of them"
        table.note("", f"a rule has one of {', '.join(_TESTS)}; here is {there}")
    tests = [_TESTS[key](table) for key in given]
    return tests[0] if tests else MissingNumbers()


def _when(table: _Table) -> Test:
    never = compile_condition("false")
    return When(
        table.take("when", _condition, never),
        table.take("clear", _optional(_condition), None),
        table.take("for", _duration, 0),
    )


def _condition(value: object) -> Expression:
    return compile_condition(_text(value))


def _optional(read: Callable[[object], _T]) -> Callable[[object], _T | None]:
    return read


def _silent_after(value: object) -> int | None:
    return None if value == "learned" else _duration(value)


def _silence(table: _Table) -> Test:
    after = table.take("silent", _silent_after, None)
    return Silence(after, table.take("field", _optional(_field), None))


def _missing(table: _Table) -> Test:
    table.take("missing_numbers", _true, True)
    return MissingNumbers()


def _refused(table: _Table) -> Test:
    return Refused(table.take("refused", _count, 1), table.take("within", _duration, 600 * SECOND))


def _disk(table: _Table) -> Test:
    return DiskFull(table.take("disk_full_within", _duration, 0))


_TESTS: Final[dict[str, Callable[[_Table], Test]]] = {
    "when": _when,
    "silent": _silence,
    "missing_numbers": _missing,
    "refused": _refused,
    "disk_full_within": _disk,
}


def _mail(table: _Table) -> MailServer:
    host, port = table.take("server", _address, (MailServer.host, MailServer.port))
    server = MailServer(
        host,
        port,
        table.take("from", _mailbox, MailServer.sender),
        table.take("username", _text, ""),
        table.take("password_file", _text, ""),
        table.take("tls", _truth, False),
    )
    table.refuse_the_rest()
    return server


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('this is a text in quotes: "…"')
    return value


def _name(value: object) -> str:
    if not _NAME.fullmatch(_text(value)):
        raise ValueError("a name has 1 to 100 printable characters")
    return _text(value)


def _field(value: object) -> str:
    if not _text(value):
        raise ValueError("this is a field's name; leave it out for the device itself")
    return _text(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("this is true or false")
    return value


def _true(value: object) -> bool:
    if value is not True:
        raise ValueError("this can only be true; leave the rule out instead")
    return True


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("this is a whole number above 0")
    return value


def _duration(value: object) -> int:
    duration = round(parse_duration(_text(value)) * SECOND)
    if duration <= 0:
        raise ValueError("this is longer than no time, such as 10m")
    if duration > LONGEST:
        raise ValueError(f"this is at most {in_words(LONGEST)}")
    return duration


def _glob(value: object) -> str:
    if not _GLOB.fullmatch(_text(value)):
        raise ValueError("this is a device's name, in which * and ? may stand for others")
    return _text(value)


def _message(value: object) -> Message:
    return Message.parse(_text(value))


def _address(value: object) -> tuple[str, int]:
    host, colon, port = _text(value).rpartition(":")
    if not colon:
        return port, MailServer.port
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError('this is host and port, such as "127.0.0.1:25"')
    return host, int(port)


def _mailbox(value: object) -> str:
    if not _ADDRESS.fullmatch(_text(value)):
        raise ValueError("this is a mail address, such as ingest@example.org")
    return _text(value)


def _targets(value: object) -> tuple[Target, ...]:
    if not isinstance(value, list):
        raise ValueError('this is a list: ["webhook:http://127.0.0.1:8080/alerts"]')
    targets, errors = [], []
    for each in value:
        try:
            targets.append(_target(each))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("; ".join(errors))
    return tuple(dict.fromkeys(targets))


def _target(value: object) -> Target:
    kind, _, address = _text(value).partition(":")
    if kind not in _TARGETS:
        kinds = ", ".join(f"{name}:" for name in _TARGETS)
        raise ValueError(f"{value!r} begins with none of {kinds}")
    return Target(kind, _TARGETS[kind](address))


def _url(address: str) -> str:
    if not _URL.fullmatch(address):
        raise ValueError(f"{address!r}: write signs beyond ASCII, and blanks, as %20 and the like")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{address!r} is no address such as http://127.0.0.1:9093")
    return address


def _program(address: str) -> str:
    if not os.path.isabs(address):  # noqa: PTH117 - a text, to be compared with what is written
        raise ValueError(f"{address!r} is no path from the root, such as /usr/local/bin/call")
    if not os.access(address, os.X_OK) or not Path(address).is_file():
        raise ValueError(f"{address} is no program, or may not be run by this user: chmod +x")
    return address


_TARGETS: Final[dict[str, Callable[[str], str]]] = {
    "webhook": _url,
    "exec": _program,
    "alertmanager": _url,
    "mail": _mailbox,
}
