"""Looks through all of the log for what samples of it can not tell.

A sample shows neither a field that is rare nor the only number with a fraction. Both are asked for
seldom: the first by a name that no sample has, the second where all sampled numbers are whole.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
import re2

from ingest.log.decompressing import DAMAGED
from ingest.log.files import LogFile, open_log
from ingest.watch.schema import Contents, Field, FieldType, json_type, literal, majority
from ingest.watch.selecting import DOCUMENT, SPACED_PAIRS, pair_sql, pointer, view_sql
from ingest.watch.snapshot import Piece

if TYPE_CHECKING:
    import duckdb

_CHUNK = 4 << 20  # bytes
_OVERLAP = 512  # bytes: a key, and the begin of its number


@dataclass(frozen=True)
class Source:
    """Files of the log that are read alike.

    Attributes:
        sql: a SELECT of them.
        stored: what they have as columns, if they are Parquet; None for lines.
    """

    sql: str
    stored: Contents | None

    def may_have(self, fields: Iterable[Field]) -> bool:
        """Tell whether one of the fields, none of which is a column, may occur in them."""
        if self.stored is None or not self.stored.complete or self.stored.odd:
            return True
        objects = {field.name for field in self.stored.fields}
        return any(len(field.path) > 1 and field.path[0] in objects for field in fields)


def find_types(
    connection: "duckdb.DuckDBPyConnection", sources: Sequence[Source], candidates: Sequence[Field]
) -> tuple[Field, ...]:
    """Find out which fields occur, and as what; of one column the most frequent.

    Args:
        connection: which reads the sources.
        sources: where to look.
        candidates: fields with paths; their types do not count.
    """
    votes = {field: Counter[str | None]() for field in candidates}
    kinds = ", ".join(_kind_sql(field) for field in candidates)
    for source in sources if candidates else ():
        frames = view_sql(source.sql, source.stored, ())
        found = connection.execute(f"""
            SELECT {kinds}, count(*) FROM (SELECT *, {SPACED_PAIRS} AS "$pairs" FROM ({frames})
            WHERE {_mentions(candidates)}) GROUP BY ALL""").fetchall()
        for *row, count in found:
            for field, kind in zip(candidates, row, strict=True):
                votes[field][kind] += count
    occurring: dict[str, Field] = {}
    for field in sorted(candidates, key=lambda field: -_frequency(votes[field])):
        if _frequency(votes[field]):
            typed = replace(field, type=_type(votes[field], field))
            occurring.setdefault(field.column.lower(), typed)
    return tuple(occurring.values())


def _frequency(votes: Counter[str | None]) -> int:
    return sum(count for kind, count in votes.items() if json_type(kind))


def _type(votes: Counter[str | None], field: Field) -> FieldType:
    """Choose the type of a field that occurs; within objects, numbers are doubles."""
    kinds = Counter[FieldType]()
    for kind, count in votes.items():
        if (found := json_type(kind)) is not None:
            kinds["DOUBLE" if len(field.path) > 1 and found == "BIGINT" else found] += count
    return majority(kinds)


def _kind_sql(field: Field) -> str:
    """Select the type of a field in a frame, as JSON has it; NULL without the field."""
    pair = pair_sql('"$pairs"', field.name)
    return f"""
        coalesce(json_type({DOCUMENT}, {pointer(field.path)}), CASE WHEN {pair} IS NULL THEN NULL
            WHEN TRY_CAST({pair} AS DOUBLE) IS NULL THEN 'VARCHAR' ELSE 'DOUBLE' END)"""


def _mentions(fields: Iterable[Field]) -> str:
    """Let those frames pass, without parsing them, in which a field's last key stands."""
    frame = "coalesce(text, data::VARCHAR)"
    keys = {field.path[-1] for field in fields}
    needles = [orjson.dumps(key).decode()[1:-1] for key in keys]
    # In JSON text, letters may be escaped.
    return " OR ".join(f"contains({frame}, {literal(each)})" for each in [*needles, "\\u"])


def find_fractions(pieces: Iterable[Piece], names: Collection[str]) -> set[str]:
    """Find the fields that have a number with a fraction somewhere in lines.

    Args:
        pieces: files of lines. One that is damaged is read as far as it can be.
        names: the fields.
    """
    unknown = sorted(names)
    for piece in pieces:
        for chunk in _chunks(piece):
            while unknown and (hit := _fraction(tuple(unknown)).search(chunk)):
                unknown.pop(hit.lastindex - 1)
    return set(names) - set(unknown)


@cache
def _fraction(names: tuple[str, ...]) -> Any:
    """Make what finds one of these fields with a fraction; the group tells which."""
    keys = "|".join(f"({re2.escape(orjson.dumps(name).decode()[1:-1])})" for name in names)
    return re2.compile(rf'"(?:{keys})\\?"\s*:\s*-?[0-9]+[.eE]'.encode())


def _chunks(piece: Piece) -> Iterator[bytes]:
    """Read the lines of a file; each chunk begins with the end of the one before."""
    kept = b""
    with suppress(*DAMAGED), _opened(piece) as stream:
        while chunk := stream.read(_CHUNK):
            yield kept + chunk
            kept = chunk[-_OVERLAP:]


def _opened(piece: Piece) -> BinaryIO:
    if piece.compressed:
        return open_log(LogFile(Path(piece.path), piece.compressed))
    return Path(piece.path).open("rb")
