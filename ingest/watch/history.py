"""Curves from the log's files, by DuckDB: what is older than memory, or finer than it.

A field may be a column of the view `log`, or something that only `fields_of` finds: a nested
value, a column of CSV, a field of an Influx line. So there are two questions: the buckets of the
column, if there is one; and the frames in which that column has no value although the field may
be there, which are looked at one by one.
"""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import orjson
import pyarrow

from ingest.layout import Layout
from ingest.watch.fields import fields_in, needle
from ingest.watch.query import Limits, QueryError, run_query
from ingest.watch.schema import RECORD, literal, quoted
from ingest.watch.scope import Scope
from ingest.watch.series import Buckets

_LIMITS: Final = Limits(seconds=30.0, rows=500_000, size=128 << 20)
_COLUMNS: Final = ("tick", "low", "high", "total", "count")
_NO_COLUMN: Final = "Referenced column"  # what DuckDB says of a column that no file has


def read_history(
    layout: Layout, device: str, field: str, since: float, until: float, width: float
) -> tuple[Buckets, bool]:
    """Read a field of a device from the log; blocks.

    Args:
        layout: the data folder.
        device: its name.
        field: as `fields_of` names it.
        since: seconds since 1970.
        until: seconds since 1970.
        width: seconds of a bucket.

    Returns:
        The buckets, and whether some records are missing in them because there are too many.

    Raises:
        QueryError: the log can't be read, or it takes too long.
    """
    scope = Scope(_moment(since), _moment(until), device)
    column = quoted(f"data_{field}" if field in RECORD else field)
    number = (
        f"CASE WHEN typeof({column}) IN ('BIGINT', 'DOUBLE') THEN try_cast({column} AS DOUBLE) END"
    )
    try:
        table = run_query(layout, _of_column(number, width), scope=scope, limits=_LIMITS).table
        found = _from_table(table, width)
    except QueryError as error:
        if not str(error).startswith(_NO_COLUMN):
            raise
        number, found = "NULL", Buckets.none(width)
    frames = run_query(layout, _of_frames(field, number), scope=scope, limits=_LIMITS)
    return found.joined(_from_frames(frames.table, field, width)), frames.truncated


def _of_column(number: str, width: float) -> str:
    return (
        "SELECT tick, min(number) AS low, max(number) AS high, sum(number) AS total,"
        f" count(*) AS count FROM (SELECT floor(epoch(time) / {width!r}) AS tick,"
        f" {number} AS number FROM log) WHERE isfinite(number) GROUP BY tick ORDER BY tick"
    )


def _of_frames(field: str, number: str) -> str:
    """Ask for the frames that may have the field although the column has no value."""
    frame = "coalesce(text, CAST(data AS VARCHAR))"
    conditions = [f"{number} IS NULL", "kind <> 'raw'"]
    if part := needle(field):
        conditions.append(
            f"(contains({frame}, {literal(part.decode())}) OR contains({frame}, '\\u'))"
        )
    return (
        f"SELECT epoch(time) AS time, kind, {frame} AS frame FROM log"
        f" WHERE {' AND '.join(conditions)} ORDER BY time"
    )


def _from_table(table: pyarrow.Table, width: float) -> Buckets:
    columns = [table.column(name).to_numpy().astype(np.float64) for name in _COLUMNS]
    tick, low, high, total, count = columns
    return Buckets(width, tick * width, low, high, total, count.astype(np.int64))


def _from_frames(table: pyarrow.Table, field: str, width: float) -> Buckets:
    times: list[float] = []
    values: list[float] = []
    for time, kind, frame in zip(*(column.to_pylist() for column in table.columns), strict=True):
        value = fields_in(kind, orjson.loads(frame) if kind == "data" else frame).get(field)
        if type(value) is float:
            times.append(time)
            values.append(value)
    return Buckets.of(width, np.array(times), np.array(values))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
