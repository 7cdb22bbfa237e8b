"""`ingest query`: ask the log in SQL."""

import csv
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from ingest.cli.common import TIMES, moment, needs_watch, to_seconds, to_size
from ingest.cli.output import printable
from ingest.layout import Layout

if TYPE_CHECKING:
    import pyarrow

_TABLE_ROWS = 1000
_EXAMPLES = """
Ask the log in SQL. There is one table, log, with a row for each record:

\b
  time        when the listener read the frame; TIMESTAMP in UTC, as now() is here
  device      the device's name
  seq         its number
  kind        text, data or raw: which of these three columns has the frame
  text        a text frame
  data        a msgpack frame, as JSON: data->>'$.pos.lat'
  raw         a text frame that is not UTF-8, in base64
  event_time, tag, chunk   what some protocols say beside the frame

and a column for each field of the frames: the keys of msgpack maps, of JSON text and of
key=value text. What is nested has dots, and double quotes around it: "fields.temp", "tags.place".
DESCRIBE log lists those that samples of the log show; a rarer one is found when it is asked for.
A field whose name is taken, such as time, is data_time. data->>'/any key/within it' reads all.

The query can read the log and do nothing else. It may be one SELECT, in the dialect of DuckDB.

\b
Examples:
  ingest query "SELECT device, count(*), max(time) FROM log GROUP BY device"
  ingest query "SELECT device, date_trunc('hour', time) AS hour, avg(temp) AS temp
                FROM log GROUP BY ALL ORDER BY ALL" --since 1d --plot temp.png
  ingest query 'SELECT "tags.place", max("fields.temp") FROM log GROUP BY 1'
  ingest query "FROM log WHERE temp > 30 ORDER BY time DESC LIMIT 20" --device 'sensor-*'
  ingest query "SELECT tag, text FROM log WHERE time > now() - INTERVAL 10 MINUTE" --format json
  ingest query "DESCRIBE log"
  ingest query - < saved.sql
"""


@click.command(help=_EXAMPLES)
@click.argument("sql")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "arrow"]),
    default="table",
    show_default=True,
    help="For a person, an object a line, CSV with a header, or an Arrow IPC stream.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw the rows in place of printing them. The first column of times, or else of numbers,"
    " goes to the right. Each further column of numbers is a curve, one for each text beside it.",
)
@click.option(
    "--since", metavar="TIME", callback=moment, help=f"Only records from then on: {TIMES}."
)
@click.option("--until", metavar="TIME", callback=moment, help="Only records before then.")
@click.option("--device", metavar="GLOB", help="Only devices named so; * and ? stand for others.")
@click.option(
    "--timeout",
    metavar="DURATION",
    default="5m",
    type=to_seconds,
    show_default=True,
    help="End a query that takes longer.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    default="1GiB",
    callback=to_size,
    show_default=True,
    help="End a query that needs more.",
)
@click.pass_obj
@needs_watch
def query(
    layout: Layout,
    sql: str,
    form: str,
    plot: Path | None,
    since: datetime | None,
    until: datetime | None,
    device: str | None,
    timeout: float,
    memory: int,
) -> None:
    """Ask the log in SQL."""
    from ingest.watch.query import Limits, Query, QueryError  # noqa: PLC0415
    from ingest.watch.scope import Scope  # noqa: PLC0415

    if sql == "-":
        sql = sys.stdin.read()
    if form == "arrow" and plot is None and sys.stdout.isatty():
        raise click.UsageError("an Arrow stream is not for a terminal: add > FILE.arrow")
    try:
        scope = Scope(since, until, device)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from error
    limits = Limits(timeout, memory, rows=None, size=None, threads=os.cpu_count() or 1)
    try:
        with Query(layout, sql, scope=scope, limits=limits) as running:
            reader = running.open()
            if plot is not None:
                _plot(reader, plot)
            else:
                _WRITERS[form](reader)
            running.finish()
            for warning in running.damaged:
                click.echo(f"Warning: {printable(warning)}", err=True)
    except QueryError as error:
        raise click.ClickException(_explained(str(error), sql, error.position)) from error
    except KeyboardInterrupt:
        click.get_current_context().exit(130)
    except BrokenPipeError:
        # The reader has gone. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(text: str, sql: str, position: int | None) -> str:
    """Show below the text where in the SQL the mistake is."""
    if position is None:
        return text
    before, behind = sql[:position], sql[position:]
    line = before.rpartition("\n")[2] + behind.partition("\n")[0]
    column = len(before) - before.rfind("\n") - 1
    where = f"line {before.count(chr(10)) + 1}, column {column + 1}"
    return f"{where}: {text}\n  {line}\n  {' ' * column}^"


def _plot(reader: "pyarrow.RecordBatchReader", path: Path) -> None:
    from ingest.cli.plot import PlotError, draw  # noqa: PLC0415 - it takes half a second

    try:
        draw(reader.schema, reader, path)
    except PlotError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--plot") from error
    except OSError as error:
        raise click.ClickException(f"can't write {path}: {error.strerror}") from error


def _write_table(reader: "pyarrow.RecordBatchReader") -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from ingest.watch.query import plain_rows  # noqa: PLC0415

    table = Table()
    for field in reader.schema:
        numeric = _is_number(field.type)
        table.add_column(Text(printable(field.name)), justify="right" if numeric else "left")
    rows = 0
    for batch in reader:
        for row in plain_rows(reader.schema, [batch.slice(0, max(0, _TABLE_ROWS - rows))]):
            table.add_row(*(Text(printable(_cell(value))) for value in row))
        rows += batch.num_rows
    # Nothing is cut off where no terminal's width says how much there is room for.
    console = Console(width=None if sys.stdout.isatty() else 1 << 16)
    console.print(table)
    more = f", the first {_TABLE_ROWS:,} of them shown; --format csv shows all"
    noun = "row" if rows == 1 else "rows"
    click.echo(f"{rows:,} {noun}{more if rows > _TABLE_ROWS else ''}", err=True)


def _write_json(reader: "pyarrow.RecordBatchReader") -> None:
    from ingest.watch.query import json_rows  # noqa: PLC0415

    names = reader.schema.names
    for row in json_rows(reader.schema, reader):
        line = orjson.dumps(dict(zip(names, row, strict=True)))
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def _write_csv(reader: "pyarrow.RecordBatchReader") -> None:
    from ingest.watch.query import plain_rows  # noqa: PLC0415

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(reader.schema.names)
    for row in plain_rows(reader.schema, reader):
        writer.writerow(map(_cell, row))
    sys.stdout.flush()


def _write_arrow(reader: "pyarrow.RecordBatchReader") -> None:
    from pyarrow import ipc  # noqa: PLC0415

    with ipc.new_stream(sys.stdout.buffer, reader.schema) as stream:
        for batch in reader:
            stream.write_batch(batch)
    sys.stdout.buffer.flush()


_WRITERS = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
    "arrow": _write_arrow,
}


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _is_number(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types  # noqa: PLC0415

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
