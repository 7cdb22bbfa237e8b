"""The SQL that makes the view's columns of lines and of Parquet, and Parquet of lines.

See `schema` for what the columns are.
"""

from collections.abc import Sequence

import orjson

from ingest.watch.schema import (
    MAX_SHAPES,
    NUMBERS,
    PAIRS,
    RECORD,
    Contents,
    Field,
    FieldType,
    literal,
    quoted,
)


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
        SELECT json_structure({DOCUMENT})::VARCHAR AS shape, count(*) AS count
        FROM ({source}) WHERE {DOCUMENT} IS NOT NULL
        GROUP BY shape ORDER BY count DESC, shape LIMIT {MAX_SHAPES + 1}"""


def pairs_sql(source: str) -> str:
    """Select `(count, samples)` for each set of keys that `key=value` text has."""
    return f"""
        SELECT count(*) AS count, arg_min(text, hash(text), 20) AS samples
        FROM ({source}) WHERE {_IS_PAIRS}
        GROUP BY regexp_replace(text, '=[^ ,;]*', '=', 'g')
        ORDER BY count DESC LIMIT {MAX_SHAPES + 1}"""


DOCUMENT = (
    "coalesce(data, CASE WHEN starts_with(text, '{') AND json_valid(text) THEN text::JSON END)"
)
"""The frame as JSON, if it is any."""
_IS_PAIRS = f"contains(text, '=') AND regexp_full_match(text, {literal(PAIRS)})"
_SPACED = """CASE WHEN contains(text, ',') OR contains(text, ';')
    THEN replace(replace(text, ',', ' '), ';', ' ') ELSE text END"""
SPACED_PAIRS = f"CASE WHEN {_IS_PAIRS} THEN ' ' || {_SPACED} || ' ' END"
"""Text that is nothing but `key=value`, with a space before each key and behind each value."""


def parquet_sql(source: str, contents: Contents) -> str:
    """Select what a Parquet file stores of `source`."""
    spelled = _spelled(contents.fields)
    columns = [
        f"CASE WHEN kind = 'data' AND data::VARCHAR = {spelled} THEN NULL ELSE data END AS data"
        if name == "data"
        else name
        for name in RECORD
    ]
    stored = contents.fields + contents.nested
    columns += [quoted(field.column) for field in stored]
    return f"SELECT {', '.join(columns)} FROM ({view_sql(source, None, stored)})"


def unspelled_sql(parquet: str, contents: Contents) -> str:
    """Select `text` and `data` of those frames that the columns may not spell.

    Text that is `key=value` has as many columns as it has `=`; where a key is no column, or a
    value is not of its column's type, it has fewer.

    Args:
        parquet: the file.
        contents: what it has as columns.
    """
    columns = [quoted(field.column) for field in contents.fields if field.may_be_in_text]
    found = " + ".join(["0", *(f"({column} IS NOT NULL)::INTEGER" for column in columns)])
    return f"""
        SELECT text, data FROM read_parquet({literal(parquet)})
        WHERE data IS NOT NULL OR starts_with(text, '{{')
            OR len(text) - len(replace(text, '=', '')) <> {found}"""


def view_sql(source: str, stored: Contents | None, wanted: Sequence[Field]) -> str:
    """Select the columns of `RECORD` and the wanted fields from lines or Parquet files.

    Args:
        source: a SELECT of lines, or of Parquet files whose contents are all `stored`.
        stored: None for lines.
        wanted: the fields.
    """
    columns = {field.name: field for field in stored.fields} if stored else {}
    nested = stored.nested if stored else ()
    missing = [
        field
        for field in wanted
        if field.name not in columns
        and (stored is None or not stored.complete or (stored.odd and field.path))
    ]
    if stored is not None:
        source = _with_data(source, stored)
    source = _with_documents(source, missing)
    found = [_column_sql(field, columns, nested, field in missing) for field in wanted]
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
    columns += [quoted(field.column) for field in stored.fields + stored.nested]
    return f"SELECT {', '.join(columns)} FROM ({source})"


def _with_documents(source: str, missing: Sequence[Field]) -> str:
    """Add what the fields are taken from; a field's name can't begin with `$`."""
    structure = {
        field.name: "JSON" if field.type in NUMBERS else field.type
        for field in missing
        if not field.path
    }
    added = []
    if structure:
        spelled = literal(orjson.dumps(structure).decode())
        added.append(f'json_transform({DOCUMENT}, {spelled}) AS "$fields"')
    if any(field.may_be_in_text for field in missing):
        added.append(f'{SPACED_PAIRS} AS "$pairs"')
    return f"SELECT {', '.join(['*', *added])} FROM ({source})" if added else source


def _column_sql(
    field: Field, columns: dict[str, Field], nested: Sequence[Field], is_missing: bool
) -> str:
    """Select one field.

    Args:
        field: the field.
        columns: those that are stored, by name.
        nested: those that are stored of fields within objects.
        is_missing: whether it has to be looked for in the frame.
    """
    stored = columns.get(field.name)
    if field in nested:
        value = quoted(field.column)
    elif field.path:
        value = _nested(field, columns.get(field.path[0]), is_missing)
    elif stored is not None:
        value = _stored(stored, field.type)
    elif is_missing:
        value = f'"$fields".{quoted(field.name)}'
        if field.type in NUMBERS:
            value = _number(value, field.type)
    else:
        value = f"NULL::{field.type}"
    if is_missing and field.may_be_in_text:
        pair = pair_sql('"$pairs"', field.name)
        value = f"coalesce({value}, {_converted(pair, field.type)})"
    return f"{value} AS {quoted(field.column)}"


def _nested(field: Field, root: Field | None, is_missing: bool) -> str:
    """Select what stands at the end of a path: in the column of its first key, if there is one."""
    if root is not None and root.type == "JSON" and len(field.path) > 1:
        document, path = quoted(root.column), field.path[1:]
    elif root is not None or is_missing:
        document, path = DOCUMENT, field.path
    else:
        return f"NULL::{field.type}"
    if field.type == "JSON":
        return f"json_extract({document}, {pointer(path)})"
    if field.type in NUMBERS:
        return _number(f"json_extract({document}, {pointer(path)})", field.type)
    value = f"json_extract_string({document}, {pointer(path)})"
    return value if field.type == "VARCHAR" else f"TRY_CAST({value} AS {field.type})"


def _number(value: str, kind: FieldType) -> str:
    """Read JSON that is a number: `true` and `"5"`, which DuckDB would take for one, are none."""
    return f"TRY_CAST({value}::VARCHAR AS {kind})"


def _stored(stored: Field, kind: FieldType) -> str:
    """Read a column of Parquet as another type; what is no number in its frame becomes none."""
    column = quoted(stored.column)
    if stored.type == kind:
        return column
    if kind not in NUMBERS or stored.type in NUMBERS:
        return _converted(column, kind)
    if stored.type == "VARCHAR":  # the 5 of `n=5` is a number, and that of `{"n":"5"}` is text
        return _converted(f"CASE WHEN NOT starts_with(text, '{{') THEN {column} END", kind)
    return _number(column, kind) if stored.type == "JSON" else f"NULL::{kind}"


def pointer(path: Sequence[str]) -> str:
    """Write a path as a JSON pointer (RFC 6901), in SQL: it has room for every key."""
    keys = (key.replace("~", "~0").replace("/", "~1") for key in path)
    return literal("".join(f"/{key}" for key in keys))


def pair_sql(pairs: str, name: str) -> str:
    """Select the value of a key in what `SPACED_PAIRS` makes; NULL if it has none.

    To search for literals takes a third of the time of a regular expression.
    """
    behind = f"split_part({pairs}, {literal(f' {name}=')}, 2)"
    return f"nullif(substr({behind}, 1, instr({behind}, ' ') - 1), '')"


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
