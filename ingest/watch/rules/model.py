"""Rules: what they look for, on which devices, and who is told."""

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

from ingest.watch.rules.expressions import Expression
from ingest.watch.rules.nodes import SECOND


@dataclass(frozen=True)
class When:
    """A condition over each record.

    Attributes:
        holds: the condition.
        clear: the condition that ends it; None if it ends when `holds` is false.
        hold: how long it must hold before the rule fires, in microseconds.
    """

    holds: Expression
    clear: Expression | None
    hold: int

    def __str__(self) -> str:
        return self.holds.source


@dataclass(frozen=True)
class Silence:
    """Nothing came for a while.

    Attributes:
        after: how long, in microseconds; None for three times the usual interval.
        field: the field that must not be missing; None for any record of the device.
    """

    after: int | None
    field: str | None

    def __str__(self) -> str:
        after = "longer than usual" if self.after is None else f"for {in_words(self.after)}"
        return f"{self.field or 'the device'} is silent {after}"


@dataclass(frozen=True)
class MissingNumbers:
    """A number of the device does not follow the one before."""

    def __str__(self) -> str:
        return "numbers are missing"


@dataclass(frozen=True)
class Refused:
    """The listener refused the device `count` times `within` microseconds."""

    count: int
    within: int

    def __str__(self) -> str:
        return f"refused {self.count} times within {in_words(self.within)}"


@dataclass(frozen=True)
class DiskFull:
    """The disk of the log will be full `within` microseconds at the present rate."""

    within: int

    def __str__(self) -> str:
        return f"the disk will be full within {in_words(self.within)}"


Test: TypeAlias = When | Silence | MissingNumbers | Refused | DiskFull


@dataclass(frozen=True)
class Target:
    """Who is told: `webhook`, `exec`, `alertmanager` or `mail`, and the address."""

    kind: str
    address: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.address}"

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read what `str` wrote."""
        kind, _, address = text.partition(":")
        return cls(kind, address)

    @property
    def shown(self) -> str:
        """The target for people who look: addresses of the web have secrets in their path."""
        parts = urlsplit(self.address)
        if self.kind not in ("webhook", "alertmanager"):
            return str(self)
        host = parts.netloc.rpartition("@")[2]
        return f"{self.kind}:{parts.scheme}://{host}/…"


@dataclass(frozen=True)
class Message:
    """What an alert says: a text with `{names}` of fields in it, and of `NAMES`."""

    template: str
    names: frozenset[str]

    NAMES: ClassVar = frozenset(("device", "rule", "reason", "since", "time"))

    @classmethod
    def parse(cls, template: str) -> "Message":
        """Read a template.

        Raises:
            ValueError: its braces do not make names; the text says what to write.
        """
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(
                f"{error}; braces hold a name, {{device}}, and one by itself is written twice: {{{{"
            ) from None
        names = frozenset(name for _, name, _, _ in parts if name is not None)
        for _, name, form, conversion in parts:
            if name == "" or conversion or "{" in (form or ""):
                raise ValueError("braces hold a name: {device}, {temp} or {temp:.1f}")
            _check_format(form or "")
        return cls(template, names)

    def fill(self, values: Mapping[str, object]) -> str:
        """Put the values in; `?` stands for one that is not there or does not fit its format."""
        return "".join(self._filled(values))

    def _filled(self, values: Mapping[str, object]) -> Iterator[str]:
        for text, name, form, _ in string.Formatter().parse(self.template):
            yield text
            if name is not None:
                yield _formatted(values.get(name), form or "")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: under which its state is kept.
        test: what it looks for.
        then: who is told.
        devices: a pattern for the devices' names.
        keep: how long it goes on firing after its test has ended, in microseconds.
        message: what it tells.
    """

    name: str
    test: Test
    then: tuple[Target, ...]
    devices: str
    keep: int
    message: Message

    @property
    def hold(self) -> int:
        """How long the test must hold before the rule fires, in microseconds."""
        return self.test.hold if isinstance(self.test, When) else 0

    @property
    def shown(self) -> frozenset[str]:
        """The fields that an alert of this rule carries."""
        fields = self.message.names - Message.NAMES
        if isinstance(self.test, When):
            fields |= self.test.holds.fields
            fields |= self.test.clear.fields if self.test.clear else frozenset()
        return fields


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed in, and from whom; without a sender it is `ingest@` and this host.

    `tls` insists on STARTTLS.
    """

    host: str = "127.0.0.1"
    port: int = 25
    sender: str = ""
    username: str = ""
    password_file: str = ""
    tls: bool = False


@dataclass(frozen=True)
class Rules:
    """What a file of rules says."""

    rules: tuple[Rule, ...] = ()
    mail: MailServer = MailServer()


def in_words(duration: int) -> str:
    """Write microseconds as the file of rules does: `90s`, `10m`, `1d`."""
    seconds = duration / SECOND
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _check_format(form: str) -> None:
    """Refuse a format that suits neither numbers nor texts, or that fills the memory.

    Raises:
        ValueError: the text says what to write.
    """
    if re.search(r"\d{3}", form):
        raise ValueError(f"{form!r} asks for more than 99 places; {{temp:.1f}} has one")
    if _formatted(0.0, form) == _formatted("", form) == "?":
        raise ValueError(f"{form!r} is no format of numbers or texts, such as {{temp:.1f}}")


def _formatted(value: object, form: str) -> str:
    if value is None:
        return "?"
    if not form:
        return f"{value:g}" if type(value) is float else str(value)
    try:
        return format(value, form)
    except ValueError:
        return "?"
