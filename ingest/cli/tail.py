"""`ingest tail`: the end of the log, or all of it from a moment on, and what is added to it."""

import re
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click
import orjson

from ingest.cli.common import TIMES, moment
from ingest.cli.output import Output, printable, printable_json, warn_of_left_out
from ingest.layout import Layout
from ingest.log.decompressing import DAMAGED
from ingest.log.files import describe_damage
from ingest.log.following import follow as follow_lines
from ingest.log.listing import list_log
from ingest.log.log import LinesMissingError
from ingest.log.reading import Filter, last, lines
from ingest.record import Record, parse

_POLL_INTERVAL = 0.2  # seconds
_COLOURS = {"text": None, "data": None, "raw": "magenta"}


def _regex(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> re.Pattern[bytes] | None:
    try:
        return None if text is None else re.compile(text.encode())
    except (re.error, UnicodeEncodeError) as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}") from error


@click.command(short_help="Show the last records of the log.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    help="How many of the last records.  [default: 10; all with --since or --until]",
)
@click.option("--device", metavar="GLOB", help="Only devices named so; * and ? stand for others.")
@click.option(
    "--since",
    metavar="TIME",
    callback=moment,
    help=f"Only from then on: {TIMES}.",
)
@click.option("--until", metavar="TIME", callback=moment, help="Only before then.")
@click.option("--grep", metavar="REGEX", callback=_regex, help="Only lines in which this is found.")
@click.option(
    "--json/--pretty",
    "as_json",
    default=None,
    help="The lines as they are, or for a person.  [default: --pretty on a terminal]",
)
@click.option("--alerts", is_flag=True, help="The alerts of ingest-watch, instead of records.")
@click.pass_obj
def tail(
    layout: Layout,
    follow: bool,
    count: int | None,
    device: str | None,
    since: datetime | None,
    until: datetime | None,
    grep: re.Pattern[bytes] | None,
    as_json: bool | None,
    alerts: bool,
) -> None:
    """Show the last records of the log, over all its files: closed, compressed and active.

    \b
    Examples:
      ingest tail -f --device 'sensor-*'
      ingest tail --since 10m --grep 'temp=2[0-9]'
      ingest tail --since 1d --json | jq -r '.text // empty'
    """
    folder = layout.alerts_folder if alerts else layout.log_folder
    if alerts and layout.data.is_dir() and not folder.is_dir():
        raise click.ClickException(
            f"there are no alerts in {folder}: twistd ingest-watch --rules FILE writes them"
        )
    if count is None and since is None and until is None:
        count = 10
    wanted = Filter(device, since, until, grep)
    out = Output()
    try:
        found = _found(folder, wanted, count, out if follow else None)
        pretty = out.is_terminal if as_json is None else not as_json
        _write(_reading(folder, found), out, pretty)
    except KeyboardInterrupt:
        click.get_current_context().exit(130)


def _found(folder: Path, wanted: Filter, count: int | None, out: Output | None) -> Iterator[bytes]:
    warn_of_left_out(list_log(folder).left_out)
    if out is not None:

        def wait() -> None:
            out.flush()
            time.sleep(_POLL_INTERVAL)

        yield from follow_lines(folder, wanted, first=count, wait=wait, missing=_warn)
    else:
        damaged: list[Path] = []

        def tell(path: Path, error: Exception) -> None:
            damaged.append(path)
            click.echo(f"Warning: {printable(describe_damage(path, error))}", err=True)

        if count is None:
            yield from lines(folder, wanted, tell)
        else:
            yield from last(folder, count, wanted, tell)
        if damaged:
            click.get_current_context().exit(1)


def _warn(error: LinesMissingError) -> None:
    click.echo(f"Warning: {printable(str(error))}", err=True)


def _reading(folder: Path, found: Iterable[bytes]) -> Iterator[bytes]:
    """Say in one line why the log can't be read."""
    try:
        yield from found
    except DAMAGED as error:
        raise click.ClickException(
            f"a compressed file in {folder} is damaged ({error}); find it with: ingest verify"
        ) from error
    except OSError as error:
        if error.filename is None or Path(error.filename) == folder:
            what = f"can't read the log in {folder}: {error.strerror}; is --data right?"
        else:
            what = f"can't read {printable(str(error.filename))}: {error.strerror}"
        raise click.ClickException(what) from error


def _write(found: Iterable[bytes], out: Output, pretty: bool) -> None:
    show = _as_is
    if pretty:
        show = _coloured if out.is_terminal else _plain
    elif out.is_terminal:
        show = printable_json
    for line in found:
        out.write(show(line) + b"\n")
    out.flush()


def _as_is(line: bytes) -> bytes:
    return line


def _coloured(line: bytes) -> bytes:
    return _pretty(line).encode()


def _plain(line: bytes) -> bytes:
    return click.unstyle(_pretty(line)).encode()


def _pretty(line: bytes) -> str:
    try:
        record = parse(line)
    except ValueError:
        return click.style(printable(line.decode(errors="backslashreplace")), fg="red")
    columns = [
        click.style(printable(record.time), dim=True),
        click.style(printable(record.device), fg="cyan"),
        click.style(str(record.seq), fg="yellow"),
    ]
    if record.event_time is not None:
        columns.append(click.style(printable(record.event_time), dim=True))
    if record.tag is not None:
        columns.append(click.style(printable(record.tag), fg="green"))
    return " ".join([*columns, click.style(_value(record), fg=_COLOURS[record.kind])])


def _value(record: Record) -> str:
    value = record.value if record.kind == "text" else orjson.dumps(record.value).decode()
    return printable(str(value))
