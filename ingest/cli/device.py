"""`ingest device`: say who may connect."""

import os
import shlex
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

import click
from rich.console import Console
from rich.progress import Progress

from ingest.cli import Commands
from ingest.cli.listing import (
    Connection,
    Listed,
    as_heard,
    ask_connections,
    positions_of,
    print_listed,
    print_one,
)
from ingest.cli.output import printable
from ingest.cli.pushing import how_to_push
from ingest.devices.csvfile import parse_devices, write_devices, write_tokens
from ingest.devices.device import (
    Device,
    InvalidName,
    InvalidNote,
    check_name,
    check_new_name,
    check_note,
)
from ingest.devices.registry import DeviceExists, Registry, RegistryError, UnknownDevice
from ingest.devices.verifier import InvalidToken, Verifier, clean_token, derive_many, make_token
from ingest.layout import DEFAULT_DATA, Layout
from ingest.names import FORMATS
from ingest.units import format_count, parse_duration

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Group(Commands):
    """Turns what a person can correct into one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UnknownDevice as error:
            raise click.ClickException(_with_hint(ctx.obj, error)) from error
        except (RegistryError, InvalidNote, InvalidToken) as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise  # click ends quietly: `ingest device list | head`
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def _device_name(value: str) -> str:
    return _checked(value, check_name)


def _new_device_name(value: str) -> str:
    return _checked(value, check_new_name)


def _checked(value: str, check: Callable[[str], None]) -> str:
    try:
        check(value)
    except InvalidName as error:
        raise click.BadParameter(str(error)) from error
    return value


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from error


_BY_LISTENER = "listener"


def _format_option(*more: str, required: bool = False) -> Callable[[_Command], _Command]:
    return click.option(
        "--format",
        "line_format",
        type=click.Choice((*FORMATS, *more)),
        required=required,
        help="What its lines of text are. Those of a format are parsed, and stored as data; what is"
        " not in it stays text. Opaque lines are never looked into.",
    )


_token_option = click.option(
    "--token",
    help="What the device will prove that it knows; random if not given, which is safer: a command"
    " line can be read by others.",
)


@click.group(cls=_Group)
def device() -> None:
    """Say who may connect.

    A name that begins with - goes behind --: ingest device remove -- -rf
    """


@device.command()
@click.argument("name", type=_new_device_name)
@_token_option
@click.option("--note", default="", help="One line for people.")
@_format_option()
@click.pass_obj
def add(layout: Layout, name: str, token: str | None, note: str, line_format: str | None) -> None:
    """Register a device and print its token, this once.

    \b
    Examples:
      ingest device add sensor-1
      ingest device add gps-7 --note 'truck 7' --format nmea
    """
    token = make_token() if token is None else clean_token(token)
    is_new = not layout.devices.exists()
    check_note(note)
    with _make_registry(layout) as registry:
        try:
            if registry.get(name) is not None:
                raise DeviceExists(name)
            with _token_printed(name, token):
                registry.add(name, token, note, line_format or "")
        except DeviceExists as error:
            raise click.ClickException(
                f"{error}; give it a new token with: {_command(layout, f'new-token {name}')}"
            ) from error
    _print_use(layout, name, token)
    _say_where(layout, is_new=is_new)


@device.command("set")
@click.argument("names", type=_device_name, metavar="NAME...", nargs=-1, required=True)
@_format_option(_BY_LISTENER, required=True)
@click.pass_obj
def set_(layout: Layout, names: tuple[str, ...], line_format: str) -> None:
    """Say what the lines of text of devices are.

    It counts from the next time that a device connects. With `listener` its lines are what the
    listener says that it connects to, and opaque if that says nothing.
    """
    given = "" if line_format == _BY_LISTENER else line_format
    _change(layout, names, "changed", lambda registry, name: registry.set_format(name, given))


def _say_where(layout: Layout, *, is_new: bool) -> None:
    click.echo(f"The registry is in {layout.data.absolute()}", err=True)
    if is_new:
        click.echo(
            "It is new: no listener has used that folder yet. If yours keeps its data elsewhere,"
            " name its folder: ingest --data DIR device ...",
            err=True,
        )


@device.command("new-token")
@click.argument("name", type=_device_name)
@_token_option
@click.pass_obj
def new_token(layout: Layout, name: str, token: str | None) -> None:
    """Replace a device's token; its connection is cut."""
    token = make_token() if token is None else clean_token(token)
    with _open_registry(layout) as registry:
        if registry.get(name) is None:
            raise UnknownDevice(name)
        with _token_printed(name, token):
            registry.set_token(name, token)
    _print_use(layout, name, token)


# What a script wants is on stdout, a line each; what a person wants besides is on stderr.


@contextmanager
def _token_printed(name: str, token: str) -> Iterator[None]:
    """Print the token before it counts: no device may have one that nobody has read.

    Raises:
        ClickException: the block, in which it is to count, has failed.
    """
    click.echo(f"The token of {name}, which is not shown again:", err=True)
    click.echo(token)
    try:
        yield
    except (DeviceExists, UnknownDevice):
        raise
    except RegistryError as error:
        raise click.ClickException(f"{error}; the token above does not count") from error


def _print_use(layout: Layout, name: str, token: str) -> None:
    response = b64encode(f"\0{name}\0{token}".encode()).decode()
    click.echo("The line with which it opens a connection:", err=True)
    click.echo(f"AUTH PLAIN {response}")
    where, command = how_to_push(layout)
    click.echo(f"To send a frame in its name from this machine, {where}:", err=True)
    click.echo(rf"printf 'AUTH PLAIN {response}\ntemp=20.5\n' | {command}")


@device.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of JSON objects.")
@click.option("--connected", is_flag=True, help="Only those that are connected now.")
@click.option(
    "--silent",
    type=_duration,
    metavar="DURATION",
    help="Only those that have not been heard for so long: 10m, 1h, 7d. Those that were never"
    " seen are among them.",
)
@click.pass_obj
def list_(layout: Layout, as_json: bool, connected: bool, silent: timedelta | None) -> None:
    """Print the devices.

    With --connected or --silent the listener is asked when it heard those that are connected. Of
    others, without these options, or where no listener runs, "last seen" is what the registry has,
    which may be 15 seconds old.
    """
    connections: dict[str, Connection] = {}
    if connected:
        connections = ask_connections(layout)
    elif silent is not None:
        with suppress(click.ClickException):  # no listener: none of them is connected
            connections = ask_connections(layout)
    now = datetime.now(UTC)
    positions = positions_of(layout)
    with _open_registry(layout) as registry:
        listed = [
            Listed(as_heard(device, connections.get(device.name), now), positions)
            for device in registry.devices()
            if not connected or device.name in connections
        ]
    if silent is not None:
        listed = [each for each in listed if each.is_silent_since(now - silent)]
    print_listed(listed, as_json=as_json)


@device.command()
@click.argument("name", type=_device_name)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def show(layout: Layout, name: str, as_json: bool) -> None:
    """Print one device."""
    with _open_registry(layout) as registry:
        found = registry.get(name)
    if found is None:
        raise UnknownDevice(name)
    print_one(Listed(found, positions_of(layout)), as_json=as_json)


@device.command()
@click.argument("names", type=_device_name, metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def disable(layout: Layout, names: tuple[str, ...]) -> None:
    """Refuse devices from now on; their connections are cut."""
    _change(layout, names, "disabled", lambda registry, name: registry.set_enabled(name, False))


@device.command()
@click.argument("names", type=_device_name, metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def enable(layout: Layout, names: tuple[str, ...]) -> None:
    """Let disabled devices connect again, with the same token."""
    _change(layout, names, "enabled", lambda registry, name: registry.set_enabled(name, True))


@device.command()
@click.argument("names", type=_device_name, metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def remove(layout: Layout, names: tuple[str, ...]) -> None:
    """Forget devices; their connections are cut.

    Their records stay in the log, and so does the next number of each.
    """
    _change(layout, names, "removed", Registry.remove)


def _change(
    layout: Layout, names: Iterable[str], done: str, change: Callable[[Registry, str], None]
) -> None:
    unknown = False
    with _open_registry(layout) as registry:
        for name in names:
            try:
                change(registry, name)
                click.echo(f"{done} {name}")
            except UnknownDevice as error:  # the other names are no less urgent
                click.echo(f"Error: {_with_hint(layout, error)}", err=True)
                unknown = True
    if unknown:
        raise click.exceptions.Exit(1)


@device.command("import")
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def import_(layout: Layout, file: BinaryIO) -> None:
    """Register the devices of a CSV file, all or none.

    FILE may be - for standard input. Its first line is the header name,token,note,format in any
    order; all but name may be missing. Blanks around a field are not part of it. Devices that are
    registered already stay as they are. Tokens that are missing are made, and kept in
    <data>/state/tokens-*.csv: hand them out, then delete that file.

    \b
    Example of a FILE:
      name,token,note,format
      sensor-1,,roof,
      gps-7,s3cr3t,truck 7,nmea
    """
    entries, problems = parse_devices(file.read())
    for problem in problems:
        click.echo(f"{file.name}:{problem.line}: {printable(problem.reason)}", err=True)
    if problems:
        raise click.ClickException(f"nothing was imported: correct {file.name} and try again")
    is_new = not layout.devices.exists()
    with _make_registry(layout) as registry:
        new = [entry for entry in entries if registry.get(entry.name) is None]
        made = {entry.name: make_token() for entry in new if not entry.token}
        verifiers = _derive_with_progress([entry.token or made[entry.name] for entry in new])
        with _kept(layout, made) as path:
            added = registry.add_many(
                (
                    (entry.name, verifier, entry.note)
                    for entry, verifier in zip(new, verifiers, strict=True)
                ),
                {entry.name: entry.line_format for entry in new if entry.line_format},
            )
    click.echo(f"{added} imported, {len(entries) - added} registered already")
    _say_where(layout, is_new=is_new)
    if made:
        click.echo(f"{format_count(len(made), 'token')} made here, kept only in {path}")


def _derive_with_progress(tokens: list[str]) -> list[Verifier]:
    console = Console(stderr=True)
    with (
        Progress(console=console, disable=not console.is_terminal) as progress,
        closing(derive_many(tokens)) as verifiers,
    ):
        return list(progress.track(verifiers, total=len(tokens), description="Deriving keys"))


@contextmanager
def _kept(layout: Layout, tokens: dict[str, str]) -> Iterator[Path]:
    """Write the tokens to a file of their own, which stays if the body succeeds.

    They are on disk before the devices: no crash may leave a device whose token nobody has.
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    path = layout.state_folder / f"tokens-{now}Z.csv"
    if not tokens:
        yield path
        return
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        write_tokens(file, tokens.items())
        file.flush()
        os.fsync(file.fileno())
    try:
        yield path
    except BaseException:
        path.unlink()
        raise


@device.command()
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=True), default="-")
@click.pass_obj
def export(layout: Layout, file: TextIO) -> None:
    """Write the devices as CSV, without secrets.

    FILE may be - for standard output, the default. A note that begins with = + - or @ gets an
    apostrophe in front, or a spreadsheet would run it as a formula; ingest device import takes it
    off again.
    """
    with _open_registry(layout) as registry:
        write_devices(
            file,
            (
                replace(device, note=printable(device.note), last_peer=_peer(device))
                for device in registry.devices()
            ),
        )


def _peer(device: Device) -> str | None:
    return device.last_peer and printable(device.last_peer)


def _make_registry(layout: Layout) -> Registry:
    layout.create()
    return Registry(layout.devices)


def _open_registry(layout: Layout) -> Registry:
    if not layout.devices.exists():
        raise click.ClickException(
            f"no devices: {layout.devices.absolute()} does not exist;"
            f" add one with: {_command(layout, 'add NAME')}"
        )
    if not layout.devices.stat().st_size:  # a listener would take what is made of it for the truth
        raise click.ClickException(
            f"no devices: {layout.devices.absolute()} is empty; bring back a backup with"
            f" `ingest restore`, or begin anew with: {_command(layout, 'add NAME')}"
        )
    return Registry(layout.devices, make=False)


def _with_hint(layout: Layout, error: UnknownDevice) -> str:
    return f"{error}; list those that are with: {_command(layout, 'list')}"


def _command(layout: Layout, arguments: str) -> str:
    """Write a command that works when it is pasted."""
    data = "" if layout.data == DEFAULT_DATA else f"--data {shlex.quote(str(layout.data))} "
    return f"ingest {data}device {arguments}"
