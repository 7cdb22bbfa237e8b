"""The view `log` in a DuckDB connection: Parquet and lines, as one table."""

import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import orjson

from ingest.log.decompressing import DAMAGED
from ingest.log.files import LogFile, open_log
from ingest.watch.checking import characters
from ingest.watch.columns import METADATA, count_fields
from ingest.watch.schema import (
    RECORD,
    Catalogue,
    Contents,
    Field,
    fields_called,
    literal,
    quoted,
)
from ingest.watch.scope import Scope
from ingest.watch.seeking import Source, find_fractions, find_types
from ingest.watch.selecting import lines_sql, view_sql
from ingest.watch.snapshot import Piece, Snapshot

_SAMPLED_FILES = 20
SOUGHT = 100
"""How many names are looked for in all of the log."""
_STRETCHES = 16
_STRETCH = 64 << 10  # bytes
_TICK = timedelta(microseconds=1)

_LIMIT = r"\(time (>=|>|<=|<|=) '([0-9 :.-]+)'::TIMESTAMP\)"
_LIMITS = re.compile(rf"\(?{_LIMIT}(?: AND {_LIMIT})*\)?")


def connect(*, threads: int, memory: int) -> duckdb.DuckDBPyConnection:
    """Open DuckDB: in memory, with no folder of its own, and `now()` in UTC as `time` is."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory}B",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,  # it goes by the path, and ours are numbers
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    connection.execute("SET enable_progress_bar = false")  # it would stand among the rows
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE MACRO now() AS get_current_timestamp() AT TIME ZONE 'UTC'")
    return connection


class Plan(NamedTuple):
    """What of the log a query asks about.

    Attributes:
        since: from when on, aware; None where there is no limit.
        until: before when.
        used: columns, those that it needs among them.
    """

    since: datetime | None
    until: datetime | None
    used: frozenset[str]


class LogView:
    """What one snapshot of the log holds, and the view `log` of it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> None:
        """Find out which fields there are.

        Args:
            connection: where the view is to be made.
            snapshot: must stay open as long as the view is used.

        Raises:
            OSError: a file can't be read.
            duckdb.Error: a Parquet file can't be read.
        """
        self._connection = connection
        self._snapshot = snapshot
        catalogue = self._sample()
        self._stored = self._read_stored(catalogue)
        fields = catalogue.contents().fields
        taken = [*RECORD, *(field.column for field in fields)]
        self.fields = fields + catalogue.nested(taken)

    @property
    def columns(self) -> dict[str, str]:
        """The names of the view's columns, and their types."""
        return {**RECORD, **{field.column: field.type for field in self.fields}}

    def plan(self, sql: str) -> Plan:
        """Check a query against the view's columns, and tell what of the log it asks about.

        DuckDB says which conditions it can check while it reads a table. What it says of an empty
        table with the view's columns holds for the view.

        Raises:
            duckdb.Error: the query does not fit the view.
        """
        with self._empty_table():
            self._connection.sql(sql)  # its errors are about `sql` itself
            ((_, plan),) = self._connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
        scans = [_limits(filters) for filters in _scan_filters(orjson.loads(plan))]
        since = min((begin for begin, _ in scans), default=datetime.min)
        until = max((end for _, end in scans), default=datetime.max)
        # A column that is read is named in the plan; one that is merely named there does no harm.
        said = (sql + plan).lower()
        return Plan(
            None if since == datetime.min else since.replace(tzinfo=UTC),
            None if until == datetime.max else until.replace(tzinfo=UTC),
            frozenset(name for name in self.columns if _names(said, name.lower())),
        )

    def look_for(self, names: Iterable[str], pieces: Iterable[Piece]) -> bool:
        """Add the fields of these names that occur nowhere but where nobody has looked yet.

        That is in lines that no sample showed, and in frames that Parquet has no column for.

        Args:
            names: what may be columns.
            pieces: the files that are searched, all of each.

        Returns:
            False if so many names are unknown that none was looked for.

        Raises:
            duckdb.Error: a file can't be read.
        """
        known = {name.lower() for name in self.columns}
        unknown = dict.fromkeys(name for name in names if name.lower() not in known)
        if len(unknown) > SOUGHT:
            return False
        candidates = [field for name in unknown for field in fields_called(name)]
        sources = [
            source for source in self._sources(pieces, None, ()) if source.may_have(candidates)
        ]
        self.fields += find_types(self._connection, sources, candidates)
        return True

    def find_mistake(self, sql: str) -> int | None:
        """Tell where in a query that `plan` refused the mistake is.

        Returns:
            The position in characters from 0; None if DuckDB does not say.
        """
        with self._empty_table():
            ((position,),) = self._connection.execute(
                "SELECT json_serialize_plan(?) ->> 'position'", [sql]
            ).fetchall()
        return None if position is None else characters(sql, int(position))

    @contextmanager
    def _empty_table(self) -> Iterator[None]:
        """Have an empty table with the columns of the view, and its name."""
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in self.columns.items())
        self._connection.execute(f"CREATE TABLE log ({columns})")
        # It would find out that an empty table gives nothing, and leave its scan out.
        self._connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        try:
            yield
        finally:
            self._connection.execute("RESET disabled_optimizers")
            self._connection.execute("DROP TABLE log")

    def create(
        self,
        scope: Scope,
        pieces: Iterable[Piece],
        used: Collection[str] | None = None,
        in_order: bool = False,
    ) -> None:
        """Make the view `log`.

        Args:
            scope: which records it has.
            pieces: those files of the snapshot that are to be read.
            used: the columns that are asked for; others of the fields may be NULL. None for all.
            in_order: whether its rows are to stand in the order of the files, with all columns.
        """
        pieces = list(pieces)
        fields = self._proved(pieces, used)
        sources = (
            self._sources_in_order(pieces) if in_order else self._sources(pieces, used, fields)
        )
        selects = [
            f"SELECT * FROM ({view_sql(source.sql, source.stored, fields)}) WHERE {scope.condition}"
            for source in sources
        ]
        self._connection.execute(f"CREATE VIEW log AS {' UNION ALL '.join(selects) or self._empty}")

    def _sources(
        self, pieces: Iterable[Piece], used: Collection[str] | None, fields: Sequence[Field]
    ) -> Iterator[Source]:
        """Put files together that are read alike."""
        alike: dict[Contents | str, list[str]] = {}
        for piece in pieces:
            alike.setdefault(self._reading(piece, used, fields), []).append(piece.path)
        yield from itertools.starmap(_source, alike.items())

    def _sources_in_order(self, pieces: Iterable[Piece]) -> Iterator[Source]:
        """Put files together that are read alike and follow each other."""
        for reading, run in itertools.groupby(pieces, lambda each: self._reading(each, None, ())):
            yield _source(reading, [piece.path for piece in run])

    def _reading(
        self, piece: Piece, used: Collection[str] | None, fields: Sequence[Field]
    ) -> Contents | str:
        """Tell how a file is read: what its Parquet has, or how its lines are compressed."""
        if piece.parquet:
            return _narrowed(self._stored[piece.path], used, fields)
        return piece.compressed

    def _proved(self, pieces: Iterable[Piece], used: Collection[str] | None) -> tuple[Field, ...]:
        """Return the fields; one whose numbers were whole in the samples may have others too."""
        whole = {
            field.name
            for field in self.fields
            if field.type == "BIGINT" and (used is None or field.column in used)
        }
        guessed = [piece for piece in pieces if piece.path in self._guessed]
        found = find_fractions(guessed, whole) if whole else set()
        return tuple(
            replace(field, type="DOUBLE") if field.name in found else field for field in self.fields
        )

    @property
    def _empty(self) -> str:
        columns = (f"NULL::{kind} AS {quoted(name)}" for name, kind in self.columns.items())
        return f"SELECT {', '.join(columns)} WHERE false"

    def _read_stored(self, catalogue: Catalogue) -> dict[str, Contents]:
        paths = [piece.path for piece in self._snapshot.pieces if piece.parquet]
        if not paths:
            return {}
        found = self._connection.execute(
            "SELECT file_name, decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?",
            [paths, METADATA],
        ).fetchall()
        stored = {path: catalogue.load(dumped) for path, dumped in found}
        for path in set(paths) - set(stored):
            raise OSError(
                0, "it is none of ours: remove it, and it is made again", str(Path(path).readlink())
            )
        return stored

    def _sample(self) -> Catalogue:
        """Look for fields in what is not converted yet: in stretches of the youngest files."""
        pieces = [piece for piece in self._snapshot.pieces if not piece.parquet]
        young = pieces[-_SAMPLED_FILES:]
        wholly = {piece.path for piece in young if _is_small(piece)}
        self._guessed = {piece.path for piece in pieces} - wholly
        fd = os.memfd_create("sample")
        try:
            for piece in young:
                for stretch in _stretches(piece):
                    os.write(fd, stretch)
            return count_fields(self._connection, lines_sql([f"/proc/self/fd/{fd}"], ""))
        finally:
            os.close(fd)


def _names(text: str, name: str) -> bool:
    """Tell whether a name stands in a query or its plan, which write some signs otherwise."""
    if '"' in name or "\\" in name:
        return True
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _narrowed(stored: Contents, used: Collection[str] | None, fields: Sequence[Field]) -> Contents:
    """Leave out the columns that nobody asks for: files that differ in them are alike then."""
    if used is None or "data" in used or not stored.complete:
        return stored
    nested = tuple(field for field in stored.nested if field in fields and field.column in used)
    inner = [field for field in fields if field.path and field.column in used]
    roots = {field.path[0] for field in inner if field not in nested}
    if roots and (stored.odd or any(f.name in roots and f.type != "JSON" for f in stored.fields)):
        return stored  # what these paths lead to is in `data`
    kept = (field for field in stored.fields if field.column in used or field.name in roots)
    return Contents(tuple(kept), nested=nested)


def _is_small(piece: Piece) -> bool:
    """Tell whether the sample of a file is all of it."""
    return not piece.compressed and piece.size <= _STRETCHES * _STRETCH


def _source(reading: Contents | str, paths: list[str]) -> Source:
    if isinstance(reading, Contents):
        return Source(f"SELECT * FROM {_read_parquet(paths)}", reading)
    return Source(lines_sql(paths, reading), None)


def _read_parquet(paths: list[str]) -> str:
    return f"read_parquet([{', '.join(map(literal, paths))}])"


def _stretches(piece: Piece) -> list[bytes]:
    """Take whole lines from all over a file, or from the start of a compressed one."""
    size = _STRETCHES * _STRETCH
    if piece.compressed:
        with suppress(*DAMAGED), open_log(LogFile(Path(piece.path), piece.compressed)) as stream:
            return [_whole(b"\n" + stream.read(size))]
        return []
    if _is_small(piece):
        return [_whole(b"\n" + os.pread(piece.fd, piece.size, 0))]
    step = (piece.size - _STRETCH) // (_STRETCHES - 1)
    return [_whole(os.pread(piece.fd, _STRETCH, step * place)) for place in range(_STRETCHES)]


def _whole(stretch: bytes) -> bytes:
    """Cut off what stands before the first LF and behind the last."""
    return stretch[stretch.find(b"\n") + 1 : stretch.rfind(b"\n") + 1]


def _scan_filters(plan: list[dict[str, object]]) -> list[list[str]]:
    """List what each scan of the table in a plan of DuckDB checks."""
    found: list[list[str]] = []
    for node in plan:
        extra = node["extra_info"]
        assert isinstance(extra, dict)
        if "Table" in extra:
            filters = extra.get("Filters", [])
            found.append([filters] if isinstance(filters, str) else filters)
        children = node["children"]
        assert isinstance(children, list)
        found += _scan_filters(children)
    return found


def _limits(filters: list[str]) -> tuple[datetime, datetime]:
    """Read the first and the last moment that one scan lets through; a wider span is no mistake."""
    since, until = datetime.min, datetime.max
    for text in filters:
        if not _LIMITS.fullmatch(text):
            continue
        for compare, moment in re.findall(_LIMIT, text):
            with suppress(ValueError, OverflowError):  # a year beyond Python's
                if compare not in {"<", "<="}:
                    since = max(since, datetime.fromisoformat(moment))
                if compare not in {">", ">="}:
                    until = min(until, datetime.fromisoformat(moment) + _TICK)
    return since, until
