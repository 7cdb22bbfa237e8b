"""`ingest bench`: put load on a listener, and see what it makes of it."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.bench import local
from ingest.bench.crew import LoadError
from ingest.bench.plan import Device, Dialect, Mechanism, Pattern, Plan
from ingest.bench.report import Report, as_json, as_lines
from ingest.bench.run import Watch, measure
from ingest.devices.csvfile import parse_devices
from ingest.layout import Layout
from ingest.units import parse_duration, parse_size

_SIZES: dict[Dialect, int] = {"text": 50, "msgpack": 56}
_SECONDS = 10.0
_KEPT = "--keep-bytes=4GiB"  # at full speed a minute makes 20 GB of log


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The command line."""

    to: tuple[str, int] | None
    local: bool
    token_file: Path | None
    devices: int
    rate: float | None
    frames: int | None
    seconds: float | None
    dialect: Dialect
    size: int | None
    ack: str
    scram: bool
    idle: bool
    pattern: Pattern
    tls: bool
    processes: int
    as_json: bool

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: with what to do.
        """
        if self.local and self.to:
            raise click.UsageError("--local and --to exclude each other")
        if self.to and not self.token_file:
            raise click.UsageError("--to needs --token-file FILE, a CSV with the header name,token")
        if self.token_file and not self.to:
            raise click.UsageError(
                "--token-file is for --to; a local listener makes its own tokens"
            )
        if self.idle and (self.frames is not None or self.rate is not None):
            raise click.UsageError("--idle sends no frames: leave out --frames and --rate")

    def plan(self, address: tuple[str, int], devices: list[Device], trusted: Path | None) -> Plan:
        """Make the plan of the load."""
        host, port = address
        mechanism: Mechanism = "SCRAM-SHA-256" if self.scram else "PLAIN"
        seconds = _SECONDS if self.seconds is None and self.frames is None else self.seconds
        return Plan(
            host=host,
            port=port,
            devices=devices,
            dialect=self.dialect,
            size=_SIZES[self.dialect] if self.size is None else self.size,
            mechanism=mechanism,
            acks=self.ack == "durable",
            pattern="idle" if self.idle else self.pattern if self.rate is None else "paced",
            rate=self.rate or 0.0,
            frames=self.frames,
            seconds=seconds,
            tls=self.tls,
            trusted=None if trusted is None else str(trusted),
        )


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(_: click.Context, __: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _parse_rate(text: str) -> float | None:
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise ValueError(f"{text!r} is neither max nor a number of frames a second")
    return rate


def _parse_frame_size(text: str) -> int:
    size = parse_size(text)
    if not 1 <= size <= 1 << 24:
        raise ValueError(f"{text!r} is not a size from 1 to 16MiB")
    return size


@click.command()
@click.option(
    "--to",
    metavar="HOST:PORT",
    callback=_parsed(_parse_address),
    help="Put the load on this listener.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Put it on a listener started for it, in a temporary folder.  [default]",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --to: a CSV with the header name,token; its first rows connect.",
)
@click.option(
    "--devices",
    type=click.IntRange(1, 1_000_000),
    default=10,
    show_default=True,
    help="How many devices connect.",
)
@click.option(
    "--rate",
    metavar="PER_DEVICE|max",
    default="max",
    show_default=True,
    callback=_parsed(_parse_rate),
    help="Frames a second that each device sends.",
)
@click.option(
    "--frames",
    type=click.IntRange(1),
    metavar="M",
    help="Stop when all devices together have sent so many.",
)
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=_parsed(parse_duration),
    help="Stop after so long: 10s, 1m.  [default: 10s, without --frames]",
)
@click.option(
    "--dialect",
    type=click.Choice(["text", "msgpack"]),
    default="text",
    show_default=True,
    help="How the devices speak.",
)
@click.option(
    "--size",
    metavar="BYTES",
    callback=_parsed(_parse_frame_size),
    help="The size of a frame.  [default: 50 in text, 56 in msgpack]",
)
@click.option(
    "--ack",
    type=click.Choice(["durable", "none"]),
    default="durable",
    show_default=True,
    help="Whether the devices want ACKs.",
)
@click.option("--scram", is_flag=True, help="Authenticate by SCRAM-SHA-256 instead of PLAIN.")
@click.option(
    "--idle",
    is_flag=True,
    help="Connect, authenticate and send nothing: what does a connection weigh?",
)
@click.option(
    "--pattern",
    type=click.Choice(["stream", "single"]),
    default="stream",
    show_default=True,
    help="At full speed: as many frames per write as the socket takes,"
    " or one frame of each device in turn.",
)
@click.option("--tls", is_flag=True, help="Speak TLS.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes the load takes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures for a program.")
def bench(**options: Any) -> None:
    """Put load on a listener and measure it.

    Over loopback, load and listener share one machine: give each a core of its own, and see from
    the figure for the load whether it was the load that could do no more.

    \b
    Examples:
      ingest bench --local --devices 5000 --pattern single --processes 2
      ingest bench --devices 10000 --rate 1 --for 1m
      ingest bench --to logs.example.com:7650 --token-file tokens.csv --scram
    """
    given = _Options(**options)
    given.check()
    try:
        report = _on_local(given) if given.to is None else _on_remote(given, given.to)
    except (local.StartError, LoadError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    _print(report, as_json_=given.as_json)
    if not report.connected:
        raise SystemExit(1)


def _on_local(given: _Options) -> Report:
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as folder:
        layout = Layout(Path(folder) / "data")
        certificate = Path(folder) / "certificate.pem" if given.tls else None
        devices = local.make_devices(given.devices)
        local.register(layout, devices)
        port = local.free_port()
        with local.listener(layout, port, tls=certificate, options=(_KEPT,)) as process:
            plan = given.plan((local.HOST, port), devices, certificate)
            with _progress(plan) as watch:
                return measure(plan, process, given.processes, watch)


def _on_remote(given: _Options, address: tuple[str, int]) -> Report:
    assert given.token_file is not None
    devices = _read_devices(given.token_file, given.devices)
    plan = given.plan(address, devices, None)
    with _progress(plan) as watch:
        return measure(plan, None, given.processes, watch)


def _read_devices(path: Path, count: int) -> list[Device]:
    entries, problems = parse_devices(path.read_bytes())
    if problems:
        raise click.ClickException(f"{path}:{problems[0].line}: {problems[0].reason}")
    devices = [Device(entry.name, entry.token) for entry in entries[:count] if entry.token]
    if len(devices) < count:
        raise click.ClickException(
            f"{path} has names and tokens of {len(devices)} devices: give it {count}, or set"
            " --devices lower"
        )
    return devices


@contextmanager
def _progress(plan: Plan) -> Iterator[Watch]:
    """Show a bar on a terminal: of the devices that connect, then of the frames."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        connecting = bar.add_task("connecting", total=len(plan.devices))
        sending = bar.add_task("sending", total=plan.frames, start=False)

        def watch(step: str, count: int) -> None:
            if step == "connecting":
                bar.update(connecting, completed=count, description=f"{count:,} devices connected")
                return
            bar.start_task(sending)
            bar.update(sending, completed=count, description=f"{count:,} frames sent")

        yield watch


def _print(report: Report, *, as_json_: bool) -> None:
    if as_json_:
        click.echo(json.dumps(as_json(report)))
        return
    for name, words in as_lines(report):
        click.echo(f"{name:<12}  {words}")
