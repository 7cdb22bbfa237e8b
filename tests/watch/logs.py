"""Data folders whose log is closed, compressed and converted in every way."""

from pathlib import Path

import orjson

from ingest.layout import Layout
from ingest.log.files import LogFile, log_files, rotated_name
from ingest.watch.columns import MEMORY, convert
from ingest.watch.query import Limits, Result, run_query
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Snapshot, columns_path
from ingest.watch.view import LogView, connect
from tests.log.logs import at, line, write
from tests.support.waiting import PATIENCE

LIMITS = Limits(seconds=10 * PATIENCE, rows=None)
"""A query lets all others go first: on a busy machine it is long under way."""


def data_line(seq: int, value: object, device: str = "a") -> bytes:
    """A record of a msgpack frame, written as the listener writes it."""
    return line(seq, f'"data":{orjson.dumps(value).decode()}', device)


def text_line(seq: int, text: str, device: str = "a") -> bytes:
    """A record of a text frame."""
    return line(seq, f'"text":{orjson.dumps(text).decode()}', device)


def close(layout: Layout, seconds: float, *lines: bytes, suffix: str = "") -> LogFile:
    """Write a file that was closed `seconds` after the log's begin, compressed to `suffix`."""
    path = layout.log_folder / (rotated_name(at(seconds), None) + suffix)
    write(path, *lines)
    return LogFile(path, suffix)


def convert_all(layout: Layout) -> list[Path]:
    """Convert the closed files here and now."""
    made = []
    for file in log_files(layout.log_folder):
        if file.closed:
            target = columns_path(layout, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            convert(file, target, layout.columns_folder / "spill", threads=2, memory=MEMORY)
            made.append(target)
    return made


def look(layout: Layout, sql: str) -> tuple[list[tuple[str, str]], list[tuple[object, ...]]]:
    """Run a query in this process, without what confines it: its columns, and its rows."""
    with connect(threads=2, memory=1 << 29) as connection, Snapshot(layout) as snapshot:
        view = LogView(connection, snapshot)
        view.create(Scope(), snapshot.pieces)
        relation = connection.sql(sql)
        columns = list(zip(relation.columns, map(str, relation.types), strict=True))
        return columns, relation.fetchall()


def ask(layout: Layout, sql: str, scope: Scope = Scope(), limits: Limits = LIMITS) -> Result:  # noqa: B008
    """Run a query that has a result."""
    return run_query(layout, sql, scope=scope, limits=limits)


def rows(layout: Layout, sql: str, scope: Scope = Scope()) -> list[tuple[object, ...]]:  # noqa: B008
    """Return the rows of a query."""
    return ask(layout, sql, scope).rows
