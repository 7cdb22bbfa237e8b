"""Reads the settings: from the command line, and from a TOML file."""

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from ingest.listener.protocols import split
from ingest.names import nearest
from ingest.service.dials import TableError, parse_dials
from ingest.service.settings import Listen, Settings, SettingsError, option_name

_NUMERIC: Final = frozenset({"NUMBER", "SIZE", "DURATION"})
"""What may be a number in the file, and no string."""

_FIELDS: Final = {option_name(field_.name): field_ for field_ in fields(Settings)}
"""The settings by their names in the file."""


def read_settings(given: Mapping[str, Any], config: Path | None) -> Settings:
    """Put the settings together: what is given, else what the file says, else the defaults.

    Args:
        given: by field name, values as on the command line: a str each, for `listen` a list of
            `Listen` or str, for the switch a bool.
        config: the TOML file, if there is one.

    Raises:
        SettingsError: a value or the file makes no sense.
    """
    values = {name: _parse_given(name, value) for name, value in given.items()}
    held = _read_file(config) if config else {}
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
        raise ValueError(
            'an endpoint such as "tcp:7650" is wanted, a list of them, or tables [[listen]]'
        )
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
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {_not_utf8(error)}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return dict(_parse_held(name, value, path) for name, value in held.items())


def _not_utf8(error: UnicodeDecodeError) -> str:
    if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is UTF-16; save it as UTF-8"
    return f"byte {error.start + 1} is not UTF-8"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `did you mean ...?` for a name that is close to a known one; empty if none is."""
    close = nearest(name, known)
    return f"did you mean {close}?" if close else ""


def _parse_given(name: str, value: Any) -> Any:
    try:
        return _parse(name, value)
    except ValueError as error:
        raise SettingsError(f"--{option_name(name)}: {error}") from error


def _parse_held(name: str, value: Any, path: Path) -> tuple[str, Any]:
    """Parse what a file holds under a name; return the name of the field, and its value."""
    if name not in _FIELDS:
        what = f"{_place(name, path)}: there is no setting {name!r}"
        hint = did_you_mean(name, _FIELDS)
        if isinstance(value, dict) and not hint:
            hint = f"settings stand above all tables, without [{name}]"
        raise SettingsError(f"{what}; {hint}" if hint else what)
    try:
        parsed = _parse(_FIELDS[name].name, value)
        if name == "listen":
            parsed = _with_places(parsed, path)
        return _FIELDS[name].name, parsed
    except TableError as error:
        raise SettingsError(f"{_place(name, path, error.number)}: {name}: {error}") from error
    except ValueError as error:
        raise SettingsError(f"{_place(name, path)}: {name}: {error}") from error


def _with_places(listens: Iterable[Listen], path: Path) -> tuple[Listen, ...]:
    first = _place("listen", path)
    return tuple(
        replace(each, place=f"{_place('listen', path, number, first)}: listen")
        for number, each in enumerate(listens, 1)
    )


def _place(name: str, path: Path, nth: int = 1, otherwise: str = "") -> str:
    """Say where a TOML file has the nth of some name at its top level, as far as can be told."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    found = [number for number, line in enumerate(lines, 1) if pattern.match(line)]
    return f"{path}, line {found[nth - 1]}" if len(found) >= nth else otherwise or str(path)


def _parse_listens(value: Any) -> tuple[Listen, ...]:
    listens = value if isinstance(value, list) else [value]
    if not listens:
        raise ValueError('a list of endpoints is wanted, such as ["tcp:7650"]')
    parsed = []
    for number, each in enumerate(listens, 1):
        try:
            parsed.append(parse_listen(each))
        except ValueError as error:
            if isinstance(each, dict):
                raise TableError(number, str(error)) from error
            raise
    return tuple(parsed)


def _parse(name: str, value: Any) -> Any:
    if name == "listen":
        return _parse_listens(value)
    if name == "dial":
        return parse_dials(value)
    if name == "allow_plaintext_auth":
        if not isinstance(value, bool):
            raise ValueError("true or false is wanted")
        return value
    metadata = _FIELDS[option_name(name)].metadata
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"one value is wanted, such as {metadata['default']}")
    if not isinstance(value, str) and metadata["metavar"] not in _NUMERIC:
        raise ValueError(f'a string is wanted, such as "{metadata["default"]}"')
    return metadata["parse"](str(value))
