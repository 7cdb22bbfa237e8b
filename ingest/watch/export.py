"""The log, or a part of it, as one file for other programs: Parquet, CSV or Arrow."""

import os
import sys
from pathlib import Path
from typing import Literal, TypeAlias

import duckdb
from pyarrow import ipc

from ingest.layout import Layout
from ingest.watch import confinement
from ingest.watch.schema import literal
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Snapshot
from ingest.watch.view import LogView, connect

Format: TypeAlias = Literal["parquet", "csv", "arrow"]

_BATCH = 65_536  # rows
_MEMORY = 1 << 30  # bytes


def export(layout: Layout, scope: Scope, form: Format, target: Path | None) -> int:
    """Write the records of the view `log`, all columns.

    Args:
        layout: the data folder.
        scope: which records.
        form: how.
        target: the file, which appears whole or not at all; None for standard output, which
            takes CSV and Arrow (a stream there, else a file).

    Returns:
        How many records were written.

    Raises:
        OSError: the log can't be read, or the file can't be written.
        duckdb.Error: the same, seen by DuckDB.
    """
    confinement.allow_open_files()
    with (
        connect(threads=os.cpu_count() or 1, memory=_MEMORY) as connection,
        Snapshot(layout) as snapshot,
    ):
        view = LogView(connection, snapshot)
        view.create(scope, snapshot.between(scope.since, scope.until), in_order=True)
        if target is None:
            return _write(connection, form, None)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            records = _write(connection, form, temporary)
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
        return records


def _write(connection: duckdb.DuckDBPyConnection, form: Format, target: Path | None) -> int:
    if form == "arrow":
        return _write_arrow(connection, target)
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}[form]
    path = literal("/dev/stdout" if target is None else str(target))
    ((records,),) = connection.execute(
        f"COPY (FROM log) TO {path} ({options}, USE_TMP_FILE false)"
    ).fetchall()
    return int(records)


def _write_arrow(connection: duckdb.DuckDBPyConnection, target: Path | None) -> int:
    reader = connection.sql("FROM log").to_arrow_reader(_BATCH)
    sink = sys.stdout.buffer if target is None else str(target)
    records = 0
    with (ipc.new_stream if target is None else ipc.new_file)(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            records += batch.num_rows
    return records
