"""`ingest tail`: the end of the log, or all of it from a moment on, and what is added to it."""

import os
import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click
import orjson

from ingest.layout import Layout
from ingest.log.files import DAMAGED
from ingest.log.following import follow as follow_lines
from ingest.log.reading import Filter, last, lines
from ingest.record import Record, parse
from ingest.units import parse_duration

_POLL_INTERVAL = 0.2  # seconds
_COLOURS = {"text": None, "data": None, "raw": "magenta"}


def _time(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    """Read an RFC 3339 time, a date, or a duration before now. Without an offset it is UTC."""
    try:
        return None if text is None else _moment(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is not a time; write 2026-11-22T11:39:00Z, 2026-11-22,"
            " or 10m for ten minutes ago"
        ) from error


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _regex(
    _ctx: click.Context, _param: click.Parameter, text: str | None
) -> re.Pattern[bytes] | None:
    try:
        return None if text is None else re.compile(text.encode())
    except (re.error, UnicodeEncodeError) as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}") from error


@click.command()
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
    callback=_time,
    help="Only from then on: 2026-11-22T11:39:00Z, or 10m ago.",
)
@click.option("--until", metavar="TIME", callback=_time, help="Only before then.")
@click.option("--grep", metavar="REGEX", callback=_regex, help="Only lines in which this is found.")
@click.option(
    "--json/--pretty",
    "as_json",
    default=None,
    help="The lines as they are, or for a person.  [default: --pretty on a terminal]",
)
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
) -> None:
    """Show the last records of the log."""
    if count is None and since is None and until is None:
        count = 10
    wanted = Filter(device, since, until, grep)
    out = sys.stdout.buffer
    try:
        found = _found(layout.log_folder, wanted, count, out if follow else None)
        _write(found, out, sys.stdout.isatty() if as_json is None else not as_json)
    except KeyboardInterrupt:
        click.get_current_context().exit(130)
    except BrokenPipeError:
        # The reader has gone. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    except DAMAGED as error:
        raise click.ClickException(
            f"a compressed file in {layout.log_folder} is damaged ({error});"
            " find it with: ingest verify"
        ) from error
    except OSError as error:
        raise click.ClickException(
            f"can't read the log in {layout.log_folder}: {error.strerror}; is --data right?"
        ) from error


def _found(
    folder: Path, wanted: Filter, count: int | None, out: BinaryIO | None
) -> Iterable[bytes]:
    if out is not None:

        def wait() -> None:
            out.flush()
            time.sleep(_POLL_INTERVAL)

        return follow_lines(folder, wanted, first=count, wait=wait)
    return lines(folder, wanted) if count is None else last(folder, count, wanted)


def _write(found: Iterable[bytes], out: BinaryIO, pretty: bool) -> None:
    if pretty:
        colours = sys.stdout.isatty()
        for line in found:
            text = _pretty(line)
            out.write((text if colours else click.unstyle(text)).encode() + b"\n")
    else:
        for line in found:
            out.write(line + b"\n")
    out.flush()


def _pretty(line: bytes) -> str:
    try:
        record = parse(line)
    except ValueError:
        return click.style(_printable(line.decode(errors="backslashreplace")), fg="red")
    return " ".join(
        (
            click.style(record.time, dim=True),
            click.style(record.device, fg="cyan"),
            click.style(str(record.seq), fg="yellow"),
            click.style(_value(record), fg=_COLOURS[record.kind]),
        )
    )


def _value(record: Record) -> str:
    value = record.value if record.kind == "text" else orjson.dumps(record.value).decode()
    return _printable(str(value))


def _printable(text: str) -> str:
    """Escape what could move the cursor or turn the text of the terminal around."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
