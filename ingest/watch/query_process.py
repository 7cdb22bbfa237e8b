"""The process that runs one query: it reads a request, answers with rows, and ends.

The request is a line of JSON on standard input, which stays open as long as somebody waits. The
rows leave on standard output as an Arrow stream, the outcome as JSON on standard error. `query`
is the other side of it.
"""

import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import orjson
from pyarrow import ArrowException, RecordBatch, ipc

from ingest.layout import Layout
from ingest.log.files import LogFile, describe_damage, find_damage
from ingest.units import format_size
from ingest.watch import confinement
from ingest.watch.checking import RefusedError, check
from ingest.watch.query import TYPES, Limits, column_types, json_rows
from ingest.watch.schema import literal
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Piece, Snapshot
from ingest.watch.view import SOUGHT, LogView, Plan, connect

_NICE = 5
_BATCH = 8192  # rows
_UNKNOWN = re.compile(
    r'Referenced (?:column|table) "([^"]*)" not found|does not have a column named "([^"]*)"'
)
_SLACK = 1 << 30
"""Bytes of address space beyond DuckDB's own limit: stacks, arenas and what it does not count."""


def main() -> None:
    """Run the query that standard input asks for."""
    request = orjson.loads(sys.stdin.buffer.readline())
    confinement.end_with_parent()
    os.nice(_NICE)
    outcome: dict[str, object]
    try:
        truncated, damaged = _answer(request)
        outcome = {"truncated": truncated, "damaged": damaged}
    except RefusedError as refused:
        outcome = {"error": str(refused), "position": refused.position}
    except OSError as error:
        where = error.filename or request["data"]
        text = f"can't read the log in {where}: {error.strerror}; is --data right?"
        outcome = {"error": text, "position": None}
    except (MemoryError, duckdb.OutOfMemoryException):
        size = format_size(request["limits"]["memory"])
        text = f"the query needs more memory than it may take, {size}"
        outcome = {"error": text, "position": None}
    os.write(2, orjson.dumps(outcome))
    # DuckDB's own end could wait for a thread that is out of memory.
    os._exit(0)


def _answer(request: dict[str, Any]) -> tuple[bool, list[str]]:
    """Write the rows; return whether some were left out, and what could be read in part only."""
    limits = Limits(**request["limits"])
    since, until = (_moment(request["scope"][name]) for name in ("since", "until"))
    scope = Scope(since, until, request["scope"]["device"])
    confinement.allow_open_files()
    layout = Layout(Path(request["data"]))
    with Snapshot(layout) as snapshot:
        # First of all: what the kernel forbids a thread it forbids those that the thread starts
        # later, and DuckDB starts some at once.
        seconds = (limits.seconds + 1) * limits.threads
        confinement.limit_use(memory=limits.memory + _SLACK, seconds=seconds)
        confinement.allow_only(piece.fd for piece in snapshot.pieces)
        try:
            batches = _run(layout, snapshot, request["sql"], scope, limits)
            _WRITERS[request["form"]](batches, request)
            sys.stdout.buffer.flush()
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise RefusedError(_text(error)) from error
        if snapshot.was_cut():
            raise RefusedError("the log was cut by another program meanwhile; ask again")
        return batches.truncated, batches.damaged


def _run(layout: Layout, snapshot: Snapshot, sql: str, scope: Scope, limits: Limits) -> "_Batches":
    connection = connect(threads=limits.threads, memory=limits.memory)
    names = check(connection, sql)
    view = LogView(connection, snapshot)
    # From here on what the query says is worked on: constants are folded when it is planned.
    lock(connection, layout)
    plan = _plan(view, sql, names, snapshot.between(scope.since, scope.until))
    since, until = _latest(scope.since, plan.since), _earliest(scope.until, plan.until)
    pieces = snapshot.between(since, until)
    view.create(scope, pieces, plan.used)
    return _Batches(connection.sql(sql), limits, pieces)


def _plan(view: LogView, sql: str, names: Iterable[str], pieces: Iterable[Piece]) -> Plan:
    """Plan a query, if need be after a search for the fields that it names.

    Raises:
        RefusedError: it does not fit the view.
    """
    try:
        try:
            return view.plan(sql)
        except duckdb.BinderException as error:
            if not _UNKNOWN.search(str(error)):
                raise
        if not view.look_for(names, pieces):
            raise RefusedError(f"the query names more than {SOUGHT} columns that are not there")
        return view.plan(sql)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        text = _binder_text(error, view.columns)
        raise RefusedError(text, view.find_mistake(sql)) from error


def lock(connection: duckdb.DuckDBPyConnection, layout: Layout) -> None:
    """Shut DuckDB in: it can read the log and its Parquet, and write nothing.

    It asks where a descriptor's file lies now. That may be another name than when it was opened,
    so it gets the folders.
    """
    confinement.forbid_writing()
    folders = [layout.log_folder.resolve(), layout.columns_folder.resolve()]
    allowed = ", ".join(literal(str(folder)) for folder in folders)
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET allowed_configs = ['disabled_optimizers']")  # for `LogView.plan`
    connection.execute("SET lock_configuration = true")


class _Batches:
    """The rows of a query as long as its limits let them pass.

    Attributes:
        schema: of the rows.
        truncated: whether some were left out, once all are gone through.
    """

    def __init__(
        self, relation: duckdb.DuckDBPyRelation, limits: Limits, pieces: Collection[Piece]
    ) -> None:
        self._pieces = pieces
        types = orjson.dumps([str(kind) for kind in relation.types])
        self._reader = relation.to_arrow_reader(_BATCH)
        self.schema = self._reader.schema.with_metadata({TYPES: types})
        self.truncated = False
        self._rows = sys.maxsize if limits.rows is None else limits.rows
        self._size = sys.maxsize if limits.size is None else limits.size

    def __iter__(self) -> Iterator[RecordBatch]:
        rows, size = self._rows, self._size
        while (batch := self._next()) is not None:
            if batch.num_rows > rows or batch.nbytes > size:
                self.truncated = True
                yield batch.slice(0, rows if batch.nbytes <= size else 0)
                return
            yield batch
            rows -= batch.num_rows
            size -= batch.nbytes

    @cached_property
    def damaged(self) -> list[str]:
        """What could be read in part only: a sentence for each compressed file."""
        return [
            describe_damage(piece.file.path, why)
            for piece in self._pieces
            if not piece.parquet
            and (why := find_damage(LogFile(Path(piece.path), piece.compressed)))
        ]

    def _next(self) -> RecordBatch | None:
        """Fetch the next rows; None at the end. What fails in DuckDB comes as an error of Arrow."""
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None
        except (ArrowException, OSError) as error:
            if "Out of Memory Error" in str(error):
                raise MemoryError from error
            raise RefusedError(_text(error)) from error


def _write_arrow(batches: _Batches, request: dict[str, Any]) -> None:  # noqa: ARG001
    with ipc.new_stream(sys.stdout.buffer, batches.schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def _write_json(batches: _Batches, request: dict[str, Any]) -> None:
    """Write what `Query.json` returns."""
    write = sys.stdout.buffer.write
    named = zip(batches.schema.names, column_types(batches.schema), strict=True)
    columns = [{"name": name, "type": kind} for name, kind in named]
    write(b'{"columns":%b,"rows":[' % orjson.dumps(columns))
    between = b""
    for batch in batches:
        if rows := orjson.dumps(list(json_rows(batches.schema, [batch])))[1:-1]:
            write(between + rows)
            between = b","
    end: dict[str, object] = {"truncated": batches.truncated}
    if batches.damaged:
        end["damaged"] = batches.damaged
    end["seconds"] = round(time.monotonic() - request["begun"], 3)
    write(b"]," + orjson.dumps(end)[1:])


_WRITERS = {"arrow": _write_arrow, "json": _write_json}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _latest(*moments: datetime | None) -> datetime | None:
    return max(filter(None, moments), default=None)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min(filter(None, moments), default=None)


def _binder_text(error: duckdb.Error, columns: Collection[str]) -> str:
    """Explain a name that is wrong, with the names that there are."""
    text = _text(error)
    if "JSON" in text and "No function matches" in text:
        return f'{text}\nA key of an object is a column with a type: "fields.temp", in quotes'
    if not _UNKNOWN.search(text):
        return text
    return (
        f"{text}\nNo frame has such a field. The columns of log are: {', '.join(columns)}\n"
        "All that a frame has is in data too: data->>'/any key/within it'"
    )


def _text(error: Exception) -> str:
    """Return what DuckDB says, without the name of its error, and with the names of files."""
    text = re.sub(r"/proc/self/fd/[0-9]+", lambda path: str(Path(path[0]).readlink()), str(error))
    return re.sub(r"^[A-Z][\w ]{0,40} Error: ", "", text).strip()
