"""The columns of the view `log`: those of every record, and the fields that devices send.

A field is a key of a frame's object: of msgpack, of JSON text, or of text that is nothing but
`key=value`. Of an object within the object, the keys are fields too: `"fields.temp"`.

In Parquet each key of the object itself is a typed column. Where the columns of a record spell its
`data` to the byte, `data` is not stored, and the view spells it again. A frame that they do not
spell (another type, another order of keys, a key that is no column) is stored whole.

    {"temp":20.5,"door":"shut"}   temp 20.5, door shut, data NULL
    {"temp":"n/a"}                temp NULL, data {"temp":"n/a"}

A key within an object that a sample of the file shows is a typed column as well, beside the JSON.

    {"fields":{"temp":20.5}}      fields {"temp":20.5}, fields.temp 20.5, data NULL

A column of numbers has what is a number in its frame, as `fields` reads it for curves and rules:
`{"temp":true}` and `{"temp":"5"}` have none, `temp=5` has one.

`selecting` has the SQL that makes these columns.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import orjson

FieldType: TypeAlias = Literal["BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON"]
NUMBERS: frozenset[FieldType] = frozenset({"BIGINT", "DOUBLE"})
"""The types of numbers. A truth value, or digits in quotes, is no number and NULL there."""

RECORD = {
    "time": "TIMESTAMP",
    "device": "VARCHAR",
    "seq": "BIGINT",
    "kind": "VARCHAR",
    "event_time": "TIMESTAMP",
    "tag": "VARCHAR",
    "chunk": "VARCHAR",
    "text": "VARCHAR",
    "data": "JSON",
    "raw": "VARCHAR",
}
"""The columns that every record has, with their types. Times are UTC."""

MAX_FIELDS = 200
"""Fields that get a column of their own: a fleet has tens, a hostile device as many as it likes."""
MAX_SHAPES = 1000
"""Distinct sets of keys that are looked at in one file."""

MAX_NESTED = 50
"""Fields within objects that get a column of their own: each costs a look into the JSON."""

_DEEPEST = 4
"""Keys one within the other that make a field."""

_RESERVED = {*RECORD, "log", "rowid", "filename", "file_row_number", "file_index"}
_FIELD_NAME = re.compile(r"\w[\w.:/ -]{0,63}")

_KEY = r"[A-Za-z_][A-Za-z0-9_.]{0,63}"
_PAIR = rf"{_KEY}=[^ ,;]*"
PAIRS = rf"{_PAIR}(?:[ ,;]+{_PAIR})*"
"""Text that is nothing but `key=value`."""
_TEXT_KEY = re.compile(_KEY, re.ASCII)
_TEXT_FIELD = re.compile(rf"(?:^|[ ,;])({_KEY})=([^ ,;]*)", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)

_TYPES: dict[object, FieldType] = {
    "BIGINT": "BIGINT",
    "UBIGINT": "BIGINT",
    "HUGEINT": "BIGINT",
    "DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "VARCHAR": "VARCHAR",
}


@dataclass(frozen=True)
class Field:
    """A field and its column.

    Attributes:
        name: the key in the frame; of keys one within the other, all of them, with dots.
        column: the name in SQL: `name`, or `data_` and `name` where that is taken, as `time` is.
        type: what most of its values are. Others are converted, or else NULL in the column.
        path: the keys that lead to it, of a field within objects or one that is asked for by
            name; empty for a key of the frame's own that is known.
    """

    name: str
    column: str
    type: FieldType
    path: tuple[str, ...] = ()

    @property
    def may_be_in_text(self) -> bool:
        """Whether `key=value` text can have it."""
        return self.type != "JSON" and _TEXT_KEY.fullmatch(self.name) is not None


@dataclass(frozen=True)
class Contents:
    """Which fields a Parquet file has as columns.

    Attributes:
        fields: in the order in which `data` spells them.
        complete: whether no other field occurs that a view may want.
        odd: whether keys occur that are fields only for who asks for them by name, such as `50%`.
        nested: fields within objects that are columns too, with what the JSON has there as this
            type.
    """

    fields: tuple[Field, ...] = ()
    complete: bool = True
    odd: bool = False
    nested: tuple[Field, ...] = ()


class Catalogue:
    """Which fields occur, in what order, and how often as which type."""

    def __init__(self) -> None:
        self._votes: dict[str, Counter[FieldType]] = {}
        self._order: list[str] = []
        self._nested: dict[tuple[str, ...], Counter[FieldType]] = {}
        self.complete = True
        self.odd = False

    def add(self, shape: Mapping[str, FieldType | None], count: int) -> None:
        """Count frames that have these keys; the type of a null is None."""
        named = {name: kind for name, kind in shape.items() if _FIELD_NAME.fullmatch(name)}
        self.odd |= len(named) < len(shape)
        self._place(named)
        for name, kind in named.items():
            if kind is not None:
                self._votes[name][kind] += count

    def add_nested(self, keys: Mapping[str, object], count: int) -> None:
        """Count what frames of this structure have within objects."""
        for path, kind in _leaves(keys):
            self._nested.setdefault(path, Counter())[kind] += count

    def _place(self, names: Iterable[str]) -> None:
        """Give each new name a place behind the one that it follows."""
        previous = -1
        for name in names:
            if name not in self._votes:
                self._votes[name] = Counter()
                self._order.insert(previous + 1, name)
            previous = self._order.index(name)

    def extend(self, rest: "Catalogue") -> None:
        """Take over what `rest` has found among frames that may have been counted before.

        That is fields that are new, and that a field's numbers are not all whole.
        """
        new = set(rest._votes) - set(self._votes)
        self._place(rest._order)
        for name, votes in rest._votes.items():
            if name in new:
                self._votes[name].update(votes)
            elif votes["DOUBLE"] and not self._votes[name]["DOUBLE"]:
                self._votes[name]["DOUBLE"] = 1
        for path in rest._nested.keys() - self._nested.keys():
            self._nested[path] = rest._nested[path]
        self.complete = self.complete and rest.complete
        self.odd |= rest.odd

    def contents(self, limit: int = MAX_FIELDS) -> Contents:
        """Choose the fields that get a column: the most frequent ones, each name once.

        SQL does not tell upper from lower case: of `Temp` and `temp` the more frequent counts.
        """
        found = [name for name in self._order if self._votes[name]]
        chosen: dict[str, str] = {}
        for name in sorted(found, key=lambda name: -self._votes[name].total()):
            if len(chosen) < limit:
                chosen.setdefault(_column(name).lower(), name)
        names = set(chosen.values())
        fields = (
            Field(name, _column(name), majority(self._votes[name]))
            for name in found
            if name in names
        )
        return Contents(tuple(fields), self.complete and len(names) == len(found), self.odd)

    def nested(self, taken: Iterable[str], limit: int = MAX_FIELDS) -> tuple[Field, ...]:
        """Choose the fields within objects, the most frequent ones, by name.

        Args:
            taken: the columns that there are.
            limit: how many.
        """
        names = {name.lower() for name in taken}
        fields: list[Field] = []
        for path in sorted(self._nested, key=lambda path: (-self._nested[path].total(), path)):
            name = ".".join(path)
            if name.lower() not in names and len(fields) < limit:
                names.add(name.lower())
                fields.append(Field(name, name, majority(self._nested[path]), path))
        return tuple(sorted(fields, key=lambda field: field.name))

    def dump(self, contents: Contents) -> str:
        """Write the chosen fields and how often they occur, for a Parquet file's metadata."""
        fields = [(field.name, field.type, self._votes[field.name]) for field in contents.fields]
        nested = [(field.path, self._nested[field.path]) for field in self.nested(())]
        typed = [(field.path, field.type) for field in contents.nested]
        dumped = {"complete": contents.complete, "odd": contents.odd, "typed": typed}
        return orjson.dumps(dumped | {"fields": fields, "nested": nested}).decode()

    def load(self, dumped: str) -> Contents:
        """Count what `dump` has written, and return the fields that it had."""
        held = orjson.loads(dumped)
        self._place(name for name, *_ in held["fields"])
        fields = []
        for name, kind, *_, votes in held["fields"]:  # files of before have four each
            fields.append(Field(name, _column(name), kind))
            self._votes[name].update(votes)
        for path, votes in held.get("nested", ()):
            self._nested.setdefault(tuple(path), Counter()).update(votes)
        typed = ((tuple(path), kind) for path, kind in held.get("typed", ()))
        nested = (Field(".".join(path), ".".join(path), kind, path) for path, kind in typed)
        return Contents(tuple(fields), held["complete"], held.get("odd", True), tuple(nested))


def _column(name: str) -> str:
    return f"data_{name}" if name.lower() in _RESERVED else name


def fields_called(column: str) -> tuple[Field, ...]:
    """Return the fields, of no type yet, that a column of this name may be of."""
    behind = column.removeprefix("data_")
    if behind.lower() in _RESERVED:
        return (Field(behind, column, "JSON", (behind,)),) if behind != column else ()
    paths = dict.fromkeys([(column,), tuple(column.split("."))])
    return tuple(Field(column, column, "JSON", path) for path in paths)


def _leaves(
    keys: Mapping[str, object], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldType]]:
    """List the keys within objects of a structure, with their types; numbers are doubles."""
    for key, kind in keys.items():
        if not _FIELD_NAME.fullmatch(key) or len(path) == _DEEPEST:
            continue
        if isinstance(kind, dict):
            yield from _leaves(kind, (*path, key))
        elif path and (found := json_type(kind)) is not None:
            yield (*path, key), "DOUBLE" if found == "BIGINT" else found


def majority(votes: Counter[FieldType]) -> FieldType:
    """Choose the type of a field: that of most of its values."""
    numbers = votes["BIGINT"] + votes["DOUBLE"]
    number: FieldType = "DOUBLE" if votes["DOUBLE"] else "BIGINT"
    kinds: dict[FieldType, int] = {
        number: numbers,
        **{kind: votes[kind] for kind in cast(list[FieldType], ["BOOLEAN", "VARCHAR", "JSON"])},
    }
    return max(kinds, key=kinds.__getitem__)


def count_documents(catalogue: Catalogue, shapes: Iterable[tuple[str, int]]) -> None:
    """Count the answer to `documents_sql`."""
    for number, (shape, count) in enumerate(shapes):
        if number == MAX_SHAPES:
            catalogue.complete = False
            break
        try:
            keys = orjson.loads(shape)
        except orjson.JSONDecodeError:  # text that is JSON may nest deeper than orjson reads
            catalogue.complete = False
            continue
        if isinstance(keys, dict):
            typed = {key: json_type(kind) for key, kind in keys.items()}
            catalogue.add(typed, count)
            catalogue.add_nested(keys, count)


def count_pairs(catalogue: Catalogue, shapes: Iterable[tuple[int, list[str]]]) -> None:
    """Count the answer to `pairs_sql`."""
    for number, (count, samples) in enumerate(shapes):
        if number == MAX_SHAPES:
            catalogue.complete = False
            break
        for text in samples:
            typed = {key: _text_type(value) for key, value in _TEXT_FIELD.findall(text)}
            catalogue.add(typed, max(1, count // len(samples)))


def json_type(kind: object) -> FieldType | None:
    """Return the type of a column for what DuckDB calls a value's type; None for a null."""
    if kind in (None, "NULL"):
        return None
    return _TYPES.get(kind, "JSON") if isinstance(kind, str) else "JSON"


def _text_type(value: str) -> FieldType:
    return "DOUBLE" if _NUMBER.fullmatch(value) else "VARCHAR"


def quoted(name: str) -> str:
    """Write a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a string in SQL."""
    return "'" + text.replace("'", "''") + "'"
