"""How `ingest device list` and `show` print devices, and what the listener adds to them."""

import json
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypedDict

import click
from rich.console import Console
from rich.table import Table

from ingest.cli.control import ask_listener
from ingest.cli.output import printable
from ingest.devices.device import Device
from ingest.journal.positions import read_positions
from ingest.layout import Layout

_COLUMNS = ("name", "enabled", "created", "last seen", "last peer", "next number", "format")


class Connection(TypedDict):
    """What the running listener says of a device that is connected."""

    device: str
    is_proved: bool
    peer: str
    connected_s: float
    heard_s_ago: float


def ask_connections(layout: Layout) -> dict[str, Connection]:
    """Ask the running listener who is connected, from where, and when each was heard.

    Raises:
        ClickException: no listener answers.
    """
    answer: list[Connection] = ask_listener(layout, "connections")
    # Who only claims a name is not that device.
    return {each["device"]: each for each in answer if each["is_proved"]}


def positions_of(layout: Layout) -> dict[str, int]:
    """Return each device's last number.

    Raises:
        ClickException: the file can't be read.
    """
    try:
        return read_positions(layout.positions)
    except sqlite3.Error as error:
        raise click.ClickException(f"can't read {layout.positions}: {error}") from error


def as_heard(device: Device, connection: Connection | None, now: datetime) -> Device:
    """Return the device as its connection has it, which is newer than what the registry has."""
    if connection is None:
        return device
    heard = now - timedelta(seconds=connection["heard_s_ago"])
    seen = heard.strftime("%Y-%m-%dT%H:%M:%SZ")
    return replace(device, last_seen=seen, last_peer=connection["peer"])


@dataclass(frozen=True)
class Listed:
    """A device as it is printed."""

    device: Device
    positions: Mapping[str, int]

    @property
    def next(self) -> int:
        """The number that its next frame gets."""
        return self.positions.get(self.device.name, 0) + 1

    def is_silent_since(self, moment: datetime) -> bool:
        """Tell whether it was never heard, or not after `moment`."""
        seen = self.device.last_seen
        return seen is None or datetime.fromisoformat(seen) <= moment

    def as_json(self) -> dict[str, str | bool | int | None]:
        return {
            "name": self.device.name,
            "enabled": self.device.enabled,
            "created": self.device.created,
            "note": self.device.note,
            "last_seen": self.device.last_seen,
            "last_peer": self.device.last_peer,
            "next": self.next,
            "format": self.device.line_format,
        }

    def cells(self) -> tuple[str, ...]:
        return (
            self.device.name,
            "yes" if self.device.enabled else "no",
            self.device.created,
            self.device.last_seen or "-",
            printable(self.device.last_peer or "-"),
            str(self.next),
            printable(self.device.line_format or "-"),
        )


def print_listed(listed: Sequence[Listed], *, as_json: bool) -> None:
    """Print devices: as JSON, as a table on a terminal, else in columns for a program."""
    if as_json:
        click.echo(_json([each.as_json() for each in listed]))
    elif sys.stdout.isatty():
        _print_table([each.cells() for each in listed])
    else:
        _print_columns([_COLUMNS, *(each.cells() for each in listed)])


def print_one(listed: Listed, *, as_json: bool) -> None:
    """Print one device with its note: as JSON, or a line for each field."""
    if as_json:
        click.echo(_json(listed.as_json()))
        return
    note = printable(listed.device.note) or "-"
    for label, cell in zip((*_COLUMNS, "note"), (*listed.cells(), note), strict=True):
        click.echo(f"{label:11}  {cell}")


def _json(value: object) -> str:
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")  # a control character in ASCII


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    table = Table()
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "right" if column == "next number" else "left"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)


def _print_columns(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
