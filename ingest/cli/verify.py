"""`ingest verify`: prove that no record of the log is missing, repeated or torn."""

import sqlite3
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ingest.layout import Layout
from ingest.log.files import log_files
from ingest.log.verifying import Report
from ingest.log.verifying import verify as verify_log
from ingest.units import format_size


@click.command()
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Prove the log: whole lines, valid records, no number missing or repeated.

    Ends with 0 if all is well, with 1 if a promise is broken, with 2 if there is no log.
    The listener may run meanwhile.
    """
    layout: Layout = ctx.obj
    if not layout.log_folder.is_dir():
        click.echo(f"Error: there is no log in {layout.log_folder}; is --data right?", err=True)
        ctx.exit(2)
    try:
        # Positions first: the log may grow while it is read, and they must not be ahead of it.
        positions = _positions(layout.positions)
        started = time.perf_counter()
        report = _verify(layout.log_folder, positions)
    except OSError as error:
        raise click.ClickException(f"can't read {error.filename}: {error.strerror}") from error
    _print(report, time.perf_counter() - started)
    ctx.exit(1 if report.breach_count else 0)


def _positions(path: Path) -> dict[str, int]:
    # sqlite3 and the rest of the journal are not needed to show --help.
    from ingest.journal.positions import read_positions  # noqa: PLC0415

    try:
        return read_positions(path)
    except sqlite3.Error as error:
        raise click.ClickException(
            f"can't read {path}: {error}; remove it, the listener makes it anew"
        ) from error


def _verify(folder: Path, positions: dict[str, int]) -> Report:
    total = sum(_size(file.path) for file in log_files(folder))
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(str(folder), total=total)
        return verify_log(folder, positions, lambda size: bar.advance(task, size))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # compressed or removed by retention meanwhile
        return 0


def _print(report: Report, seconds: float) -> None:
    table = Table("files", "lines", "devices", "bytes", "MB/s", "breaches")
    table.add_row(
        f"{report.files:,}",
        f"{report.lines:,}",
        f"{len(report.last):,}",
        f"{report.bytes:,} ({format_size(report.bytes)})",
        f"{report.bytes / 1e6 / seconds:.0f}",
        f"{report.breach_count:,}",
    )
    Console().print(table)
    for breach in report.breaches:
        click.echo(f"{breach.path}: line {breach.line}, byte {breach.offset}: {breach.what}")
    if report.breach_count > len(report.breaches):
        click.echo(f"and {report.breach_count - len(report.breaches):,} more breaches")
    if report.unfinished:
        click.echo(
            f"ingest.log ends in {report.unfinished:,} bytes of a line without an end: it is being"
            " written, or a crash left it and the next start cuts it off"
        )
