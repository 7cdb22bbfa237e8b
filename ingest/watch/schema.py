"""The columns of the view `log`: those of every record, and the fields that devices send.

A field is a top-level key of a frame's object: of msgpack, of JSON text, or of text that is
nothing but `key=value`. In Parquet each field is a typed column. Where the columns of a record
spell its `data` to the byte, `data` is not stored, and the view spells it again. A frame that
they do not spell (another type, another order of keys, a key that is no column) is stored whole.

    {"temp":20.5,"door":"shut"}   temp 20.5, door shut, data NULL
    {"temp":"n/a"}                temp NULL, data {"temp":"n/a"}
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import orjson

FieldType: TypeAlias = Literal["BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON"]

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

_RESERVED = {*RECORD, "log", "rowid", "filename", "file_row_number", "file_index"}
_FIELD_NAME = re.compile(r"\w[\w.:/ -]{0,63}")

_KEY = r"[A-Za-z_][A-Za-z0-9_.]{0,63}"
_PAIR = rf"{_KEY}=[^ ,;]*"
_PAIRS = rf"{_PAIR}(?:[ ,;]+{_PAIR})*"
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
        name: the key in the frame.
        column: the name in SQL: `name`, or `data_` and `name` where that is taken, as `time` is.
        type: what most of its values are. Others are converted, or else NULL in the column.
        in_text: whether it occurs in `key=value` text.
    """

    name: str
    column: str
    type: FieldType
    in_text: bool = False


@dataclass(frozen=True)
class Contents:
    """Which fields a Parquet file has as columns.

    Attributes:
        fields: in the order in which `data` spells them.
        complete: whether no other field occurs that a view may want.
    """

    fields: tuple[Field, ...] = ()
    complete: bool = True


class Catalogue:
    """Which fields occur, in what order, and how often as which type."""

    def __init__(self) -> None:
        self._votes: dict[str, Counter[FieldType]] = {}
        self._order: list[str] = []
        self._in_text: set[str] = set()
        self.complete = True

    def add(self, shape: Mapping[str, FieldType | None], count: int, *, in_text: bool) -> None:
        """Count frames that have these keys; the type of a null is None."""
        named = {name: kind for name, kind in shape.items() if _FIELD_NAME.fullmatch(name)}
        self._place(named)
        for name, kind in named.items():
            if kind is not None:
                self._votes[name][kind] += count
        if in_text:
            self._in_text.update(named)

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
        self._in_text |= rest._in_text
        self.complete = self.complete and rest.complete

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
            Field(name, _column(name), _majority(self._votes[name]), name in self._in_text)
            for name in found
            if name in names
        )
        return Contents(tuple(fields), self.complete and len(names) == len(found))

    def dump(self, contents: Contents) -> str:
        """Write the chosen fields and how often they occur, for a Parquet file's metadata."""
        votes = {field.name: self._votes[field.name] for field in contents.fields}
        fields = [
            (field.name, field.type, field.in_text, votes[field.name]) for field in contents.fields
        ]
        return orjson.dumps({"complete": contents.complete, "fields": fields}).decode()

    def load(self, dumped: str) -> Contents:
        """Count what `dump` has written, and return the fields that it had."""
        held = orjson.loads(dumped)
        self._place(name for name, *_ in held["fields"])
        fields = []
        for name, kind, in_text, votes in held["fields"]:
            fields.append(Field(name, _column(name), kind, in_text))
            self._votes[name].update(votes)
            if in_text:
                self._in_text.add(name)
        return Contents(tuple(fields), held["complete"])


def _column(name: str) -> str:
    return f"data_{name}" if name.lower() in _RESERVED else name


def _majority(votes: Counter[FieldType]) -> FieldType:
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
            typed = {key: _json_type(kind) for key, kind in keys.items()}
            catalogue.add(typed, count, in_text=False)


def count_pairs(catalogue: Catalogue, shapes: Iterable[tuple[int, list[str]]]) -> None:
    """Count the answer to `pairs_sql`."""
    for number, (count, samples) in enumerate(shapes):
        if number == MAX_SHAPES:
            catalogue.complete = False
            break
        for text in samples:
            typed = {key: _text_type(value) for key, value in _TEXT_FIELD.findall(text)}
            catalogue.add(typed, max(1, count // len(samples)), in_text=True)


def _json_type(kind: object) -> FieldType | None:
    return None if kind == "NULL" else _TYPES.get(kind, "JSON") if isinstance(kind, str) else "JSON"


def _text_type(value: str) -> FieldType:
    return "DOUBLE" if _NUMBER.fullmatch(value) else "VARCHAR"


def quoted(name: str) -> str:
    """Write a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def lines_sql(paths: Sequence[str], compressed: str) -> str:
    """Select the records of files of lines, with the columns of `RECORD`.

    Lines that are no records are left out, also the last one of a file that is being written.

    Args:
        paths: files that are compressed alike.
        compressed: `""`, `.gz` or `.zst`.
    """
    compression = {"": "none", ".gz": "gzip", ".zst": "zstd"}[compressed]
    read = {name: kind for name, kind in RECORD.items() if name != "kind"}
    read["event_time"] = "TIMESTAMPTZ"  # it may have an offset; TIMESTAMP would drop it
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in read.items())
    # A null of JSON is read as NULL, but it is data too.
    return f"""
        SELECT time, device, seq,
            CASE WHEN text IS NOT NULL THEN 'text' WHEN raw IS NOT NULL THEN 'raw' ELSE 'data' END
                AS kind,
            event_time AT TIME ZONE 'UTC' AS event_time, tag, chunk, text,
            CASE WHEN text IS NULL AND raw IS NULL THEN coalesce(data, 'null'::JSON) END AS data,
            raw
        FROM read_json([{", ".join(map(literal, paths))}], format = 'newline_delimited',
            compression = '{compression}', ignore_errors = true, columns = {{{columns}}})
        WHERE time IS NOT NULL AND device IS NOT NULL AND seq IS NOT NULL"""


def documents_sql(source: str) -> str:
    """Select `(shape, count)`: which keys of which types the frames that are objects have."""
    return f"""
        SELECT json_structure({_DOCUMENT})::VARCHAR AS shape, count(*) AS count
        FROM ({source}) WHERE {_DOCUMENT} IS NOT NULL
        GROUP BY shape ORDER BY count DESC, shape LIMIT {MAX_SHAPES + 1}"""


def pairs_sql(source: str) -> str:
    """Select `(count, samples)` for each set of keys that `key=value` text has."""
    return f"""
        SELECT count(*) AS count, arg_min(text, hash(text), 20) AS samples
        FROM ({source}) WHERE {_IS_PAIRS}
        GROUP BY regexp_replace(text, '=[^ ,;]*', '=', 'g')
        ORDER BY count DESC LIMIT {MAX_SHAPES + 1}"""


_DOCUMENT = (
    "coalesce(data, CASE WHEN starts_with(text, '{') AND json_valid(text) THEN text::JSON END)"
)
_SPACED = "replace(replace(text, ',', ' '), ';', ' ')"
_IS_PAIRS = f"contains(text, '=') AND regexp_full_match(text, {literal(_PAIRS)})"


def parquet_sql(source: str, contents: Contents) -> str:
    """Select what a Parquet file stores of `source`."""
    spelled = _spelled(contents.fields)
    columns = [
        f"CASE WHEN kind = 'data' AND data::VARCHAR = {spelled} THEN NULL ELSE data END AS data"
        if name == "data"
        else name
        for name in RECORD
    ]
    columns += [quoted(field.column) for field in contents.fields]
    return f"SELECT {', '.join(columns)} FROM ({view_sql(source, None, contents.fields)})"


def view_sql(source: str, stored: Contents | None, wanted: Sequence[Field]) -> str:
    """Select the columns of `RECORD` and the wanted fields from lines or Parquet files.

    Args:
        source: a SELECT of lines, or of Parquet files whose contents are all `stored`.
        stored: None for lines.
        wanted: the fields.
    """
    if stored is None:
        columns, missing = {}, list(wanted)
    else:
        columns = {field.name: field for field in stored.fields}
        missing = [] if stored.complete else [f for f in wanted if f.name not in columns]
        source = _with_data(source, stored)
    if missing:
        source = _with_documents(source, missing)
    found = [_column_sql(field, columns.get(field.name), field in missing) for field in wanted]
    return f"SELECT {', '.join([*RECORD, *found])} FROM ({source})"


def _with_data(source: str, stored: Contents) -> str:
    """Give `data` back to the rows that are stored without."""
    spelled = f"({_spelled(stored.fields)})::JSON"
    columns = [
        f"CASE WHEN kind = 'data' THEN coalesce(data, {spelled}) END AS data"
        if name == "data"
        else name
        for name in RECORD
    ]
    columns += [quoted(field.column) for field in stored.fields]
    return f"SELECT {', '.join(columns)} FROM ({source})"


def _with_documents(source: str, fields: Sequence[Field]) -> str:
    """Add what the fields are taken from; a field's name can't begin with `$`."""
    structure = literal(orjson.dumps({field.name: field.type for field in fields}).decode())
    pairs = f"CASE WHEN {_IS_PAIRS} THEN ' ' || {_SPACED} END"
    return f"""
        SELECT *, json_transform({_DOCUMENT}, {structure}) AS "$fields", {pairs} AS "$pairs"
        FROM ({source})"""


def _column_sql(field: Field, stored: Field | None, missing: bool) -> str:
    if stored is not None:
        column = quoted(stored.column)
        value = column if stored.type == field.type else _converted(column, field.type)
    elif missing:
        value = f'"$fields".{quoted(field.name)}'
        if field.in_text and field.type != "JSON":
            # To search for a literal takes a third of the time of a regular expression.
            behind = f'split_part("$pairs", {literal(f" {field.name}=")}, 2)'
            text = f"nullif(split_part({behind}, ' ', 1), '')"
            value = f"coalesce({value}, {_converted(text, field.type)})"
    else:
        value = f"NULL::{field.type}"
    return f"{value} AS {quoted(field.column)}"


def _converted(value: str, kind: FieldType) -> str:
    return f"to_json({value})" if kind == "JSON" else f"TRY_CAST({value} AS {kind})"


def _spelled(fields: Sequence[Field]) -> str:
    """Spell an object from its columns as the listener does; what is NULL is left out."""
    pairs = []
    for field in fields:
        column = quoted(field.column)
        value = f"to_json({column})" if field.type == "VARCHAR" else column
        pairs.append(f"{literal(orjson.dumps(field.name).decode() + ':')} || {value}::VARCHAR")
    return f"'{{' || concat_ws(',', {', '.join(pairs)}) || '}}'" if pairs else "'{}'"
