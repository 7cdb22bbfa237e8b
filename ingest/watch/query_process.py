"""The process that runs one query: it reads a request, answers with rows, and ends.

The request is a line of JSON on standard input, which stays open as long as somebody waits. The
rows leave on standard output as an Arrow stream, the outcome as JSON on standard error. `query`
is the other side of it.
"""

import os
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
from pyarrow import ipc

from ingest.layout import Layout
from ingest.log.files import LogFile, describe_damage, find_damage
from ingest.units import format_size
from ingest.watch import confinement
from ingest.watch.checking import RefusedError, check
from ingest.watch.query import TYPES, Limits
from ingest.watch.schema import literal
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Piece, Snapshot
from ingest.watch.view import LogView, connect

_NICE = 5
_BATCH = 8192  # rows
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
            answered = _run(layout, snapshot, request["sql"], scope, limits)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise RefusedError(_text(error)) from error
        if snapshot.was_cut():
            raise RefusedError("the log was cut by another program meanwhile; ask again")
        return answered


def _run(
    layout: Layout, snapshot: Snapshot, sql: str, scope: Scope, limits: Limits
) -> tuple[bool, list[str]]:
    connection = connect(threads=limits.threads, memory=limits.memory)
    check(connection, sql)
    view = LogView(connection, snapshot)
    # From here on what the query says is worked on: constants are folded when it is planned.
    lock(connection, layout)
    try:
        plan = view.plan(sql)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        text = _binder_text(error, view.columns)
        raise RefusedError(text, view.find_mistake(sql)) from error
    since, until = _latest(scope.since, plan.since), _earliest(scope.until, plan.until)
    pieces = snapshot.between(since, until)
    view.create(scope, pieces, plan.used)
    truncated = _send(connection.sql(sql), limits)
    sys.stdout.buffer.flush()
    return truncated, _damaged(pieces)


def _damaged(pieces: Iterable[Piece]) -> list[str]:
    """Say of which compressed files only the first part was read."""
    return [
        describe_damage(piece.file.path, why)
        for piece in pieces
        if not piece.parquet and (why := find_damage(LogFile(Path(piece.path), piece.compressed)))
    ]


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


def _send(relation: duckdb.DuckDBPyRelation, limits: Limits) -> bool:
    types = orjson.dumps([str(kind) for kind in relation.types])
    reader = relation.to_arrow_reader(_BATCH)
    schema = reader.schema.with_metadata({TYPES: types})
    rows = sys.maxsize if limits.rows is None else limits.rows
    size = sys.maxsize if limits.size is None else limits.size
    with ipc.new_stream(sys.stdout.buffer, schema) as stream:
        for batch in reader:
            if batch.num_rows > rows or batch.nbytes > size:
                stream.write_batch(batch.slice(0, rows if batch.nbytes <= size else 0))
                return True
            stream.write_batch(batch)
            rows -= batch.num_rows
            size -= batch.nbytes
    return False


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _latest(*moments: datetime | None) -> datetime | None:
    return max(filter(None, moments), default=None)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min(filter(None, moments), default=None)


def _binder_text(error: duckdb.Error, columns: Iterable[str]) -> str:
    """Explain a name that is wrong, with the names that there are."""
    text = _text(error)
    if "not found" not in text:
        return text
    return f"{text}\nThe columns of log are: {', '.join(columns)}"


def _text(error: Exception) -> str:
    """Return what DuckDB says, without the name of its error, and with the names of files."""
    text = re.sub(r"/proc/self/fd/[0-9]+", lambda path: str(Path(path[0]).readlink()), str(error))
    return re.sub(r"^[A-Z][\w ]{0,40} Error: ", "", text).strip()


if __name__ == "__main__":
    main()
