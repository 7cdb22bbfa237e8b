"""The named values that a record carries, whatever its device writes.

| frame | fields |
|---|---|
| msgpack or JSON `{"temp":20.5,"door":{"open":true}}` | `temp` 20.5, `door.open` true |
| msgpack or JSON `[20.5,"shut"]` | `c1` 20.5, `c2` "shut" |
| msgpack or JSON `20.5`, text `20.5` | `value` 20.5 |
| text `temp=20.5 door=shut` | `temp` 20.5, `door` "shut" |
| Influx line `weather,place=roof temp=82i,hum=71.2 1465839830100400200` | `place` "roof", `temp` 82.0, `hum` 71.2 |
| CSV `20.5,shut` | `c1` 20.5, `c2` "shut" |

Every number is a double, as a field that is an integer today may have a fraction tomorrow. What
has no value (null, bytes, other extensions) is no field. `raw` records have no fields.
"""  # noqa: E501 - a table

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias, cast

import orjson

from ingest.record import Record

Field: TypeAlias = float | str | bool
"""A number, a text or a truth value."""

LIMIT: Final = 1000
"""The most fields of one record: a device can't make a watcher's memory grow at will."""

DEEPEST: Final = 64
"""Levels that are opened: what is nested deeper is no field, and takes no stack."""

_WORDS: Final[dict[str, Field]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{word: float(word) for word in ("nan", "NaN", "inf", "-inf")},
}
# A key, `=`, and a value in quotes or up to the next separator; `\` escapes, as in Influx lines.
_PAIR = re.compile(
    r'(?:^|[\s,;])([^\s,;="\\]+(?:\\.[^\s,;="\\]*)*)='
    r'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s,;\\]*(?:\\.[^\s,;\\]*)*))'
)
_ESCAPE = re.compile(r"\\([^0-9A-Za-z_])")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)
_INTEGER = re.compile(r"([+-]?[0-9]+)[iu]")  # of an Influx line
_QUOTED = re.compile('"[^"]*"')
_SEPARATOR = re.compile("[\t;,]")
_PLAIN = re.compile(r"[0-9A-Za-z_]+")


def fields_of(record: Record) -> dict[str, Field]:
    """Return the fields of a record, in the order of its frame."""
    return fields_in(record.kind, record.value)


def fields_in(kind: str, value: object) -> dict[str, Field]:
    """Return the fields of a record that is not made into a `Record`.

    Args:
        kind: `text`, `data` or `raw`.
        value: what JSON makes of the record's value.
    """
    if kind == "text":
        return _of_text(cast(str, value))
    return _of_tree(value) if kind == "data" else {}


def needle(field: str) -> bytes:
    """Return bytes that a record's line holds if it has the field; empty if there are none.

    Columns and lone values have names that do not stand in the line. A name's letters may be
    escaped in JSON (`\\u0074emp`), also within a text: who looks for needles must keep lines with
    `\\u` as well.
    """
    last = field.rpartition(".")[2]
    if re.fullmatch(r"c[0-9]+|value", last):
        return b""
    return max(_PLAIN.findall(last), key=len, default="").encode()


def _of_text(text: str) -> dict[str, Field]:
    if text[:1] in "{[":
        try:
            return _of_tree(orjson.loads(text))
        except ValueError:
            pass
    if "=" in text:
        return _of_pairs(text)
    return _of_columns(text)


def _of_pairs(text: str) -> dict[str, Field]:
    if "\\" in text:
        return {
            _unescaped(key): _unescaped(quoted) or _of_word(_unescaped(word))
            for key, quoted, word in _PAIR.findall(text)[:LIMIT]
        }
    return {key: quoted or _of_word(word) for key, quoted, word in _PAIR.findall(text)[:LIMIT]}


def _of_columns(text: str) -> dict[str, Field]:
    found = _SEPARATOR.search(_QUOTED.sub("", text) if '"' in text else text)
    if found is None:
        word = _of_word(text.strip())
        return {} if isinstance(word, str) else {"value": word}
    columns = _cut(text, found[0])
    values = [_of_word(column.strip()) for column in columns[:LIMIT]]
    if all(isinstance(value, str) for value in values):
        return {}  # a sentence
    return {f"c{place}": value for place, value in enumerate(values, 1) if value != ""}


def _cut(text: str, separator: str) -> Sequence[str]:
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator))
    except (csv.Error, StopIteration):
        return text.split(separator)


def _of_word(word: str) -> Field:
    """Read a word of a text: a number, a truth value, or else the word."""
    if word[-1:].isdigit() and "_" not in word:  # float() takes 1_000
        try:
            return float(word)
        except ValueError:
            return word
    if integer := _INTEGER.fullmatch(word):
        return float(integer[1])
    return _WORDS.get(word, word)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _of_tree(value: object) -> dict[str, Field]:
    """Flatten a value of JSON: the names of what is nested are joined by dots."""
    found: dict[str, Field] = {}
    _add(found, "", value, DEEPEST)
    return found


def _add_items(
    found: dict[str, Field], prefix: str, items: Iterable[tuple[str, object]], deeper: int
) -> None:
    for key, value in items:
        kind = type(value)
        if kind is float or kind is bool or kind is str:
            found[prefix + key] = value  # type: ignore[assignment]
        elif kind is int:
            found[prefix + key] = float(value)  # type: ignore[arg-type]
        elif value is not None:
            _add(found, prefix + key, value, deeper)
        if len(found) >= LIMIT:
            return


def _add(found: dict[str, Field], name: str, value: object, deeper: int) -> None:
    """Add a value.

    Args:
        found: where.
        name: of the value; empty for the frame itself.
        value: any value of JSON.
        deeper: how many more levels may be opened.
    """
    match value:
        case dict() if deeper:
            _add_map(found, name, value, deeper - 1)
        case bool() | str():
            found[name or "value"] = value
        case int() | float():
            found[name or "value"] = float(value)
        case list() if deeper:
            inner = f"{name}." if name else ""
            columns = ((f"c{place}", each) for place, each in enumerate(value, 1))
            _add_items(found, inner, columns, deeper - 1)


def _add_map(found: dict[str, Field], name: str, value: dict[str, object], deeper: int) -> None:
    """Add a map, or what a wrapper of the log stands for (PROTOCOL.md, "What is stored")."""
    inner = f"{name}." if name else ""
    if len(value) != 1:
        _add_items(found, inner, value.items(), deeper)
        return
    match value:
        case {"$number": str(number)} if _NUMBER.fullmatch(number):
            found[name or "value"] = float(number)
        case {"$date": str(date)}:
            found[name or "value"] = date
        case {"$map": list(pairs)}:
            _add_items(found, inner, _text_keys(pairs), deeper)
        case {"$binary": _} | {"$ext": _}:
            pass
        case _:
            _add_items(found, inner, value.items(), deeper)


def _text_keys(pairs: Sequence[object]) -> Iterable[tuple[str, object]]:
    for pair in pairs:
        match pair:
            case [str(key), value]:
                yield key, value
