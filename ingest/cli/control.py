"""`ingest rotate`, `hold`, `release` and `status`: a word with the running listener."""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ingest.layout import Layout
from ingest.ops.control import ControlError, ask
from ingest.units import format_size


@click.command()
@click.pass_obj
def rotate(layout: Layout) -> None:
    """Close the log file now and begin a new one."""
    closed = _ask(layout, "rotate")
    click.echo(f"rotated to {layout.log_folder / closed}" if closed else "the log file is empty")


@click.command()
@click.pass_obj
def hold(layout: Layout) -> None:
    """Let the log file stand still, until `ingest release` or for a minute.

    For a program that copies and then cuts the file, such as logrotate with copytruncate. Devices
    wait meanwhile: nothing is acknowledged and nothing is lost.
    """
    seconds = _ask(layout, "hold")
    click.echo(f"nothing is written to the log for at most {seconds:g} s; go on: ingest release")


@click.command()
@click.pass_obj
def release(layout: Layout) -> None:
    """Write to the log again after `ingest hold`."""
    _ask(layout, "release")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, for a program.")
@click.pass_obj
def status(layout: Layout, as_json: bool) -> None:
    """Show the running listener's health, connections and books.

    The exit code is 0 while the disk takes records, and 2 while it does not.
    """
    answer = _ask(layout, "status")
    if as_json:
        click.echo(json.dumps(answer))
    else:
        _show(answer)
    if answer["health"] != "ok":
        raise SystemExit(2)


def _show(answer: dict[str, Any]) -> None:
    total = answer["total"]
    table = Table("", "frames", "bytes", box=None)
    table.add_row("received", f"{total['received_frames']:,}", format_size(total["received_bytes"]))
    table.add_row("written", f"{total['written_frames']:,}", format_size(total["written_bytes"]))
    table.add_row("waiting", f"{total['waiting_frames']:,}", format_size(answer["waiting_bytes"]))
    table.add_row("acknowledged", f"{total['acknowledged_frames']:,}", "")
    for reason, count in sorted(total["refused_frames"].items()):
        table.add_row(f"refused: {reason}", f"{count:,}", "")
    health = answer["health"] + (f" ({answer['reason']})" if answer["reason"] else "")
    click.echo(
        f"health: {health}; {answer['devices_connected']} devices connected,"
        f" {answer['connections']} connections"
    )
    Console(highlight=False).print(table)


def _ask(layout: Layout, command: str) -> Any:
    try:
        return ask(layout.control, command)
    except ControlError as error:
        raise click.ClickException(str(error)) from error
