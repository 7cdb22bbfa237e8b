"""`ingest export`: the log as Parquet, CSV or Arrow."""

import sys
from datetime import datetime
from pathlib import Path
from typing import cast

import click

from ingest.cli.common import TIMES, moment, needs_watch
from ingest.layout import Layout

_HELP = """
Write the log, or a part of it, for other programs: a row for each record, with the columns that
`ingest query` has, a column for each field among them.

The rows stand in the order of the files; within a closed file, by device and time. Each
device's records are in the order of their numbers.

\b
Examples:
  ingest export --format parquet --since 2026-11-01 --until 2026-12-01 --output november.parquet
  ingest export --format csv --device 'sensor-*' --since 1d > day.csv
  ingest export --format arrow --output log.arrow
"""


@click.command(short_help="Write the log as Parquet, CSV or Arrow.", help=_HELP)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "arrow"]),
    required=True,
    help="Parquet (zstd), CSV with a header, or Arrow IPC.",
)
@click.option(
    "--since", metavar="TIME", callback=moment, help=f"Only records from then on: {TIMES}."
)
@click.option("--until", metavar="TIME", callback=moment, help="Only records before then.")
@click.option("--device", metavar="GLOB", help="Only devices named so; * and ? stand for others.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to; it appears when it is whole.  [default: standard output; not for Parquet]",
)
@click.pass_obj
@needs_watch
def export(
    layout: Layout,
    form: str,
    since: datetime | None,
    until: datetime | None,
    device: str | None,
    output: Path | None,
) -> None:
    """Write the log for other programs."""
    import duckdb  # noqa: PLC0415 - an extra

    from ingest.watch.export import Format  # noqa: PLC0415
    from ingest.watch.export import export as write  # noqa: PLC0415
    from ingest.watch.scope import Scope  # noqa: PLC0415

    if output is None and form == "parquet":
        raise click.UsageError("Parquet needs a file: add --output FILE.parquet")
    if output is None and form == "arrow" and sys.stdout.isatty():
        raise click.UsageError("an Arrow stream is not for a terminal: add --output FILE.arrow")
    try:
        scope = Scope(since, until, device)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from error
    try:
        records = write(layout, scope, cast(Format, form), output)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    except duckdb.Error as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{records:,} records{f' in {output}' if output else ''}", err=True)
