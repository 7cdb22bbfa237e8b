"""The settings of a listener: one table for the command line, the file and the help."""

import re
import resource
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from ingest.journal.archive import ArchivePolicy
from ingest.journal.compressing import Compression
from ingest.journal.file import JournalPolicy
from ingest.journal.rotation import RetentionPolicy, RotationPolicy
from ingest.layout import DEFAULT_DATA
from ingest.listener.admission import REFUSALS, Limits
from ingest.listener.dialer import Dial
from ingest.listener.protocols import DEFAULT, split
from ingest.service.dials import parse_dials
from ingest.units import format_count, format_duration, format_size, parse_duration, parse_size

_SPARE_FILES = 192 + REFUSALS
"""File descriptors that a listener needs for other things than the devices that it lets in."""


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
    """

    endpoint: str
    protocol: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # there are secrets

    def __str__(self) -> str:
        return self.endpoint if self.protocol == DEFAULT else f"{self.protocol}={self.endpoint}"


DEFAULT_LISTEN: Final = (Listen("tcp:7650"),)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise ValueError(f"{text!r} is not a number of at least 1")
    return number


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _frame_size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= 1 << 30:
        raise ValueError(f"{text!r} is not a size from 1 to 1GiB")
    return size


def _folder(text: str) -> Path:
    if not text:  # mostly a variable that is not set; it would mean the folder we are started in
        raise ValueError("the name of a folder is wanted")
    return Path(text)


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


def _default_max_connections() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return max(1, files - min(_SPARE_FILES, files // 2))


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
        str(DEFAULT_DATA), _folder, "the folder of the log and of all else that is kept", "DIR"
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
        "none", _or_none(str),
        "answer /metrics, /livez and /readyz here, such as tcp:7680:interface=127.0.0.1; with"
        " other hosts in reach, --http-token-file is needed",
        "ENDPOINT",
    )  # fmt: skip
    http_token_file: Path | None = _setting(
        "none", _or_none(Path),
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


def read_settings(given: Mapping[str, Any], config: Path | None) -> Settings:
    """Put the settings together: what is given, else what the file says, else the defaults.

    Args:
        given: by field name, values as on the command line: a str each, for `listen` a list of
            `Listen` or str, for the switch a bool.
        config: the TOML file, if there is one.

    Raises:
        SettingsError: a value or the file makes no sense.
    """
    values = _parse_all(given, "--")
    held = _parse_all(_read_file(config), f"{config}: ") if config else {}
    return Settings(**(held | values))


def parse_listen(value: Any) -> Listen:
    """Read one place to listen at: `[PROTOCOL=]ENDPOINT`, a table with `endpoint`, or a `Listen`.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, Listen):
        return value
    if isinstance(value, str):
        protocol, endpoint = split(value)
        return Listen(endpoint, protocol)
    if not isinstance(value, dict):
        raise ValueError("an endpoint is wanted, a list of them, or tables [[listen]]")
    options = dict(value)
    endpoint = options.pop("endpoint", None)
    protocol = options.pop("protocol", None)
    if not isinstance(endpoint, str) or not isinstance(protocol, str | None):
        raise ValueError("a table has endpoint, perhaps protocol, and options; both are strings")
    named, endpoint = split(endpoint)
    return Listen(endpoint, protocol or named, options_with_files(options))


_FILE = "-file"


def options_with_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the files that options name: `shared-key-file` becomes `shared-key`.

    Raises:
        ValueError: one can't be read, or both are given.
    """
    read = dict(options)
    for name, path in options.items():
        if not name.endswith(_FILE):
            continue
        plain = name.removesuffix(_FILE)
        if plain in options:
            raise ValueError(f"there are both {plain} and {name}")
        try:
            read[plain] = Path(read.pop(name)).read_text().removesuffix("\n")
        except (OSError, ValueError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file of text"
            raise ValueError(f"{name} {path}: {reason}") from None
    return read


def _read_file(path: Path) -> dict[str, Any]:
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    known = {option_name(field_.name): field_.name for field_ in fields(Settings)}
    for name in held:
        if name not in known:
            hint = did_you_mean(name, known)
            where = f"{path}, line {_line_of(name, path)}"
            what = f"{where}: there is no setting {name!r}"
            raise SettingsError(f"{what}; {hint}" if hint else what)
    return {known[name]: value for name, value in held.items()}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean ...?` for a name that is close to a known one; empty if none is."""
    close = get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]}?" if close else ""


def _line_of(name: str, path: Path) -> int:
    """Find where a TOML file sets a name of its top level; 0 if that can't be told."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return next((number for number, line in enumerate(lines, 1) if pattern.match(line)), 0)


def _parse_all(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        try:
            parsed[name] = _parse(name, value)
        except ValueError as error:
            raise SettingsError(f"{where}{option_name(name)}: {error}") from error
    return parsed


def _parse(name: str, value: Any) -> Any:
    if name == "listen":
        listens = value if isinstance(value, list) else [value]
        if not listens:
            raise ValueError("a list of endpoints is wanted")
        return tuple(map(parse_listen, listens))
    if name == "dial":
        return parse_dials(value)
    if name == "allow_plaintext_auth":
        if not isinstance(value, bool):
            raise ValueError("true or false is wanted")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("one value is wanted")
    (parse,) = (field_.metadata["parse"] for field_ in PARSED if field_.name == name)
    return parse(str(value))
