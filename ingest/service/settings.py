"""The settings of a listener: one table for the command line, the file and the help."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from ingest.journal.archive import ArchivePolicy
from ingest.journal.compressing import Compression
from ingest.journal.file import JournalPolicy
from ingest.journal.rotation import RetentionPolicy, RotationPolicy
from ingest.layout import DEFAULT_DATA
from ingest.listener.admission import REFUSALS, Limits
from ingest.listener.dialer import Dial
from ingest.listener.protocols import DEFAULT
from ingest.units import format_count, format_duration, format_size, parse_duration, parse_size

_SPARE_FILES = 192 + REFUSALS
"""File descriptors that a listener keeps for other things than the devices that it lets in."""
_FEWEST_SPARE = 48
"""The same where there are few: 25 are open from the start on, 16 are for the control socket."""


_SMALLEST_FILE = 512  # bytes


class SettingsError(ValueError):
    """A setting has no sense; the text says which, where from, and what would have."""


@dataclass(frozen=True)
class Listen:
    """One place to listen at.

    Attributes:
        endpoint: a Twisted server endpoint.
        protocol: the name of the protocol that is spoken there.
        options: those of the protocol, by name; files that they name are read.
        place: where the operator wrote it, for people.
    """

    endpoint: str
    protocol: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # there are secrets
    place: str = field(default="--listen", compare=False)

    def __str__(self) -> str:
        return self.endpoint if self.protocol == DEFAULT else f"{self.protocol}={self.endpoint}"


DEFAULT_LISTEN: Final = (Listen("tcp:7650"),)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if number < least:
            raise ValueError(f"{text!r} is not a whole number of at least {least}")
        return number

    return parse


_positive = _whole_number(1)
_count = _whole_number(0)


def _frame_size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= 1 << 30:
        raise ValueError(f"{text!r} is not a size from 1 to 1GiB")
    return size


def _some(what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text:  # mostly a variable that is not set
            raise ValueError(f"{what} is wanted, and it is empty")
        return text

    return parse


def _path(what: str) -> Callable[[str], Path]:
    parse = _some(what)
    return lambda text: Path(parse(text))


def _rotate_every(text: str) -> float:
    seconds = parse_duration(text)
    if 0 < seconds < 1:
        raise ValueError(
            f"{text!r} is too short: each file costs several operations of the disk, so at least"
            " 1s is wanted, or 0 for no bound"
        )
    return seconds


def _rotate_size(text: str) -> int:
    size = parse_size(text)
    if 0 < size < _SMALLEST_FILE:
        raise ValueError(
            f"{text!r} is too small: each file costs several operations of the disk, so at least"
            f" {format_size(_SMALLEST_FILE)} is wanted, or 0 for no bound"
        )
    return size


def _timeout(text: str) -> float:
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError("a device needs some time for its handshake")
    return seconds


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else parse(text)


def _files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def _default_max_connections() -> int:
    return max(1, _files() - min(_SPARE_FILES, max(_files() // 2, _FEWEST_SPARE)))


def _setting(default: str, parse: Callable[[str], Any], help_: str, metavar: str) -> Any:
    metadata = {"default": default, "parse": parse, "help": help_, "metavar": metavar}
    return field(default_factory=lambda: parse(default), metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All settings, parsed. Sizes are in bytes, durations in seconds; 0 stands for no bound."""

    listen: tuple[Listen, ...] = DEFAULT_LISTEN
    dial: tuple[Dial, ...] = ()
    allow_plaintext_auth: bool = False
    data: Path = _setting(
        str(DEFAULT_DATA),
        _path("a folder"),
        "the folder of the log and of all else that is kept",
        "DIR",
    )
    rotate_size: int = _setting(
        "256MiB", _rotate_size, "close the log file before it exceeds this size; 0: never", "SIZE"
    )
    rotate_every: float = _setting(
        "1d", _rotate_every,
        "close the log file at each multiple of this time, UTC: 1h at every full hour, 1d at"
        " every midnight; 0: never",
        "DURATION",
    )  # fmt: skip
    keep_files: int = _setting("0", _count, "keep at most so many closed files; 0: all", "NUMBER")
    keep_days: int = _setting(
        "0", _count, "remove closed files after so many days; 0: never", "NUMBER"
    )
    keep_bytes: int = _setting(
        "0", parse_size, "remove the oldest closed files while all together exceed this; 0: never",
        "SIZE",
    )  # fmt: skip
    compress: Compression = _setting(
        "none", _one_of("none", "gzip", "zstd"), "compress closed files: none, gzip or zstd", "KIND"
    )
    durability: str = _setting(
        "fsync", _one_of("fsync", "os"),
        "when a frame is acknowledged. fsync: when it is on disk; os: when the operating system"
        " has it, which a power cut may undo",
        "WHEN",
    )  # fmt: skip
    max_connections: int = _setting(
        str(_default_max_connections()), _positive,
        "refuse further connections with `busy`; unless set, what the limit of open files allows",
        "NUMBER",
    )  # fmt: skip
    max_frame: int = _setting(
        "64KiB", _frame_size, "refuse longer frames with `frame-too-long`", "SIZE"
    )
    handshake_timeout: float = _setting(
        "10s", _timeout, "how long a device may take to say who it is", "DURATION"
    )
    idle_timeout: float = _setting(
        "1h", parse_duration,
        "cut a device that says nothing for so long; a keep-alive is enough; 0: never",
        "DURATION",
    )  # fmt: skip

    http: str | None = _setting(
        "none", _or_none(_some("an endpoint")),
        "answer /metrics, /livez and /readyz here, such as tcp:7680:interface=127.0.0.1; with"
        " other hosts in reach, --http-token-file is needed",
        "ENDPOINT",
    )  # fmt: skip
    http_token_file: Path | None = _setting(
        "none", _or_none(_path("a file")),
        "a file with the bearer token that /metrics wants; read again at SIGHUP",
        "FILE",
    )  # fmt: skip
    log_format: str = _setting(
        "text", _one_of("text", "json"),
        "how the listener's own log is written: text, or a line of JSON for each event",
        "FORMAT",
    )  # fmt: skip

    def limits(self) -> Limits:
        """Return what connections may do; no more of them than there are descriptors for."""
        return Limits(
            min(self.max_connections, _default_max_connections()),
            self.max_frame,
            self.handshake_timeout,
            self.idle_timeout,
            self.allow_plaintext_auth,
            min(REFUSALS, _files() // 16),
        )

    def as_written(self) -> dict[str, str]:
        """Return each setting as a person would write it, by its name in the file."""
        return {
            option_name(field_.name): _write(field_.metadata, getattr(self, field_.name))
            for field_ in fields(self)
        }

    def with_those_of_the_start(self, started: "Settings") -> "Settings":
        """Return these settings, with `started`'s where a change counts after a restart only."""
        return replace(self, **{name: getattr(started, name) for name in AT_START})

    def journal_policy(self) -> JournalPolicy:
        """Return how the journal is to keep records."""
        retention = RetentionPolicy(self.keep_files, self.keep_days * 86400.0, self.keep_bytes)
        return JournalPolicy(
            RotationPolicy(self.rotate_size, self.rotate_every),
            ArchivePolicy(self.compress, retention),
            sync=self.durability == "fsync",
        )


AT_START: Final = ("listen", "data", "durability", "http", "http_token_file", "log_format")
"""The settings that count from one start to the next."""

_FORMATS: dict[object, Callable[[float], str]] = {
    parse_size: format_size,
    _frame_size: format_size,
    _rotate_size: format_size,
    parse_duration: format_duration,
    _rotate_every: format_duration,
    _timeout: format_duration,
}


def _write(metadata: Mapping[str, Any], value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple) and value and isinstance(value[0], Dial):
        return format_count(len(value), "device")  # they may be thousands
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    formatted = _FORMATS.get(metadata.get("parse"))
    return formatted(value) if formatted and value else str(value)


PARSED: Final = tuple(field_ for field_ in fields(Settings) if field_.metadata)
"""The settings that have one value with a parser: all but `listen`, `dial` and the switch."""


def option_name(name: str) -> str:
    """Return a setting's name as it is on the command line and in the file."""
    return name.replace("_", "-")
