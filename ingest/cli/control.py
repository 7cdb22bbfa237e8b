"""`ingest rotate`, `hold`, `release` and `status`: a word with the running listener."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ingest.cli.output import printable
from ingest.layout import Layout
from ingest.ops.control import SOON, ControlError, ask, ask_patiently
from ingest.units import format_count, format_duration, format_size


@click.command()
@click.pass_obj
def rotate(layout: Layout) -> None:
    """Close the log file now and begin a new one.

    While the log is held it can't be: `ingest release` ends that.
    """
    closed = _order(layout, "rotate")
    click.echo(f"rotated to {layout.log_folder / closed}" if closed else "the log file is empty")


@click.command(short_help="Let the log file stand still for a minute.")
@click.pass_obj
def hold(layout: Layout) -> None:
    """Let the log file stand still, until `ingest release` or for a minute.

    For a program that copies and then cuts the file, such as logrotate with copytruncate. Devices
    wait meanwhile: nothing is acknowledged and nothing is lost.
    """
    seconds = _order(layout, "hold")
    click.echo(f"nothing is written to the log for at most {seconds:g} s; go on: ingest release")


@click.command()
@click.pass_obj
def release(layout: Layout) -> None:
    """Write to the log again after `ingest hold`."""
    _order(layout, "release")


@click.command(short_help="Show the running listener's health and books.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, for a program.")
@click.pass_obj
def status(layout: Layout, as_json: bool) -> None:
    """Show the running listener's health, connections, rates, disk, books and settings.

    The exit code is 0 while all is well, 2 while something is not, such as a disk that takes no
    records, and 1 if no listener answers within 5 seconds.
    """
    answer = ask_listener(layout, "status")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        _show(answer)
    if answer["health"] != "ok":
        raise SystemExit(2)


def _show(answer: Mapping[str, Any]) -> None:
    health = answer["health"] + (f" ({printable(answer['reason'])})" if answer["reason"] else "")
    click.echo(
        f"health: {health}; {format_count(answer['devices_connected'], 'device')} connected,"
        f" {format_count(answer['connections'], 'connection')}"
    )
    for label, text in _facts(answer):
        click.echo(f"{label}: {text}")
    Console(highlight=False).print(_books(answer))
    settings = answer.get("settings")
    if settings:
        click.echo("settings in force:")
        for name, value in sorted(settings.items()):
            click.echo(f"  {name} = {printable(value)}")


def _facts(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a listener says of itself; an older one says less."""
    known = {name: value for name, value in answer.items() if value is not None}
    if known.get("listening"):
        yield "listening on", " ".join(known["listening"])
    if "uptime_s" in known:
        text = f"up for {format_duration(known['uptime_s'])}"
        if "version" in known:
            text = f"version {known['version']}, {text}"
        yield "listener", text + (f", pid {known['pid']}" if "pid" in known else "")
    if "frames_per_s" in known:
        size = format_size(known.get("bytes_per_s", 0))
        yield "rate", f"{known['frames_per_s']:,.1f} frames/s, {size}/s"
    if latency := known.get("ack_latency_s"):
        times = ", ".join(f"{name} {1000 * seconds:,.1f} ms" for name, seconds in latency.items())
        yield "acknowledged after", times
    if (dialled := known.get("dialled")) and dialled["devices"]:
        yield (
            "dialled",
            f"{format_count(dialled['devices'], 'device')}, {dialled['down']:,} of them down;"
            f" {format_count(dialled['calls'], 'call')}, {dialled['failures']:,} failed",
        )
    if known.get("oldest_silence_device"):
        device = printable(known["oldest_silence_device"])
        yield "longest silence", f"{format_duration(known['oldest_silence_s'])}, {device}"
    if "disk_free_bytes" in known:
        left = known.get("disk_full_in_s")
        full = f"; full in {format_duration(left)} at this rate" if left is not None else ""
        yield "disk", f"{format_size(known['disk_free_bytes'])} free{full}"
    if known.get("holding_until_s"):
        left = format_duration(known["holding_until_s"])
        yield "log", f"held for another {left}; go on: ingest release"


def _books(answer: Mapping[str, Any]) -> Table:
    total = answer["total"]
    table = Table("", "frames", "bytes", box=None)
    table.add_row("received", f"{total['received_frames']:,}", format_size(total["received_bytes"]))
    table.add_row("written", f"{total['written_frames']:,}", format_size(total["written_bytes"]))
    table.add_row("waiting", f"{total['waiting_frames']:,}", format_size(answer["waiting_bytes"]))
    table.add_row("acknowledged", f"{total['acknowledged_frames']:,}", "")
    if total.get("unparsed_frames"):
        table.add_row("not in their format", f"{total['unparsed_frames']:,}", "")
    for reason, count in sorted(total["refused_frames"].items()):
        table.add_row(f"refused: {reason}", f"{count:,}", "")
    for field, label in (("errors", "ended by"), ("handshakes", "handshakes")):
        for name, count in sorted((answer.get(field) or {}).items()):
            table.add_row(f"{label}: {name}", f"{count:,}", "")
    return table


def ask_listener(layout: Layout, question: str) -> Any:
    """Ask the running listener what it knows, and return its answer.

    Raises:
        ClickException: no listener answers, or it says no.
    """
    with _in_words():
        return ask(layout.control, question, SOON)


def _order(layout: Layout, command: str) -> Any:
    """Let the running listener do something, and return its answer.

    Raises:
        ClickException: no listener answers, or it says no.
    """
    words = f"the listener is there, and waits for its disk; waiting for {command} ..."
    then = "is given up" if command == "hold" else "is done when it does, so do not ask again"
    with _in_words():
        return ask_patiently(
            layout.control, command, lambda: click.echo(words, err=True), then=then
        )


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except ControlError as error:
        raise click.ClickException(str(error)) from error
