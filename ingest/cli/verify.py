"""`ingest verify`: prove that no record of the log is missing, repeated or torn."""

import io
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ingest.cli.output import Output, printable, warn_of_left_out
from ingest.layout import Layout
from ingest.log.listing import list_log
from ingest.log.verifying import Report
from ingest.log.verifying import verify as verify_log
from ingest.units import format_size


@click.command(short_help="Prove that no line is torn, missing or repeated.")
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
    out = Output()
    try:
        # Positions first: the log may grow while it is read, and they must not be ahead of it.
        positions = _positions(layout.positions)
        started = time.perf_counter()
        report = _verify(layout.log_folder, positions)
    except OSError as error:
        raise click.ClickException(f"can't read {error.filename}: {error.strerror}") from error
    _print(report, time.perf_counter() - started, out)
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
    files, left_out = list_log(folder)
    warn_of_left_out(left_out)
    total = sum(_size(file.path) for file in files)
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(str(folder), total=total)
        return verify_log(folder, positions, lambda size: bar.advance(task, size))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # compressed or removed by retention meanwhile
        return 0


def _print(report: Report, seconds: float, out: Output) -> None:
    table = Table("files", "lines", "devices", "bytes", "MB/s", "breaches")
    table.add_row(
        f"{report.files:,}",
        f"{report.lines:,}",
        f"{len(report.last):,}",
        f"{report.bytes:,} ({format_size(report.bytes)})",
        f"{report.bytes / 1e6 / seconds:.0f}",
        f"{report.breach_count:,}",
    )
    text = io.StringIO()  # rich must not meet an output that fails
    Console(file=text, force_terminal=out.is_terminal).print(table)
    text.writelines(f"{line}\n" for line in _notes(report))
    out.write(text.getvalue().encode())
    out.flush()


def _notes(report: Report) -> Iterator[str]:
    for breach in report.breaches:
        path = printable(str(breach.path))
        yield f"{path}: line {breach.line}, byte {breach.offset}: {printable(breach.what)}"
    if report.breach_count > len(report.breaches):
        yield f"and {report.breach_count - len(report.breaches):,} more breaches"
    if report.jumps:
        places = f"{report.jumps:,} place" + "s" * (report.jumps > 1)
        yield (
            f"in {places} numbers were left out on purpose: the listener found the end of its log"
            " missing and noted where it went on; that is no breach"
        )
    if report.unfinished:
        yield (
            f"ingest.log ends in {report.unfinished:,} bytes of a line without an end: it is being"
            " written, or a crash left it and the next start cuts it off"
        )
