"""`ingest send`: push lines as a device does."""

import json
import os
import re
import select
import ssl
import stat
import sys
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.client import (
    Client,
    ClientError,
    Connected,
    Event,
    ServerError,
    SpoolError,
    Stopped,
)
from ingest.names import RULE, is_device_name

DEFAULT_PORT = 7650
_ADDRESS = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?")
_CHUNK = 1 << 16
_MAX_LINE = 1 << 22  # bytes; a file that has no LF at all must not fill the memory
_HINTS = {
    "auth-failed": "; on the listener's host `ingest device show {name}` tells whether it is there"
    " and enabled",
    "plaintext-refused": "; prove the token without showing it, with --scram, or use --tls",
}


class Address(NamedTuple):
    """Where the listener is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST`, `HOST:PORT` or `[IPv6]:PORT`; the default port is 7650.

    Raises:
        click.BadParameter: it is none of these.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[3] or DEFAULT_PORT) < 65536:
        raise click.BadParameter(f"{text!r} is not HOST:PORT, such as 127.0.0.1:7650 or [::1]:7650")
    return Address(match[1] or match[2], int(match[3] or DEFAULT_PORT))


def _device_name(text: str) -> str:
    if not is_device_name(text):
        raise click.BadParameter(f"{text!r} is no device name: {RULE}")
    return text


@click.command(short_help="Push lines as the device NAME.")
@click.argument("name", type=_device_name)
@click.option(
    "--to",
    "address",
    type=parse_address,
    default=f"127.0.0.1:{DEFAULT_PORT}",
    metavar="HOST:PORT",
    show_default=True,
    help="Where the listener is.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file that holds the token.  [else: $INGEST_TOKEN, or asked for]",
)
@click.option("--scram", is_flag=True, help="Prove the token without showing it to the network.")
@click.option("--tls", is_flag=True, help="Connect over TLS, and check the listener's certificate.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Trust the PEM certificates of FILE, and no others.  [implies --tls]",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PATH",
    help="A folder that keeps each line on this disk until the listener has it.",
)
@click.option("--msgpack", is_flag=True, help="Send the JSON value on each line as msgpack.")
@click.argument("file", type=click.File("rb"), default="-")
def send(
    name: str,
    address: Address,
    token_file: Path | None,
    scram: bool,
    tls: bool,
    ca: Path | None,
    spool: Path | None,
    msgpack: bool,
    file: BufferedReader,
) -> None:
    """Push the lines of FILE, or of standard input as they come, as the device NAME.

    Each line is one frame. A broken connection is resumed where it broke, however long the
    listener is away. The exit code is 0 only when the listener has acknowledged every frame.

    With --spool the lines are kept in a folder first, so the listener need not be there: what it
    has not acknowledged when FILE has ended, or when this command is killed, is sent by the next
    `ingest send` with the same folder, once and in order.

    \b
    Examples:
      echo temp=20.5 | INGEST_TOKEN=s3cr3t ingest send sensor-1
      ingest send sensor-1 readings.txt --token-file token --scram --to logs.example.com
      tail -F app.log | ingest send app --token-file token --ca ca.pem --spool spool \\
          --to logs.example.com:7651
    """
    token = _read_token(token_file)
    try:
        client = Client(
            *address,
            name,
            token,
            mechanism="SCRAM-SHA-256" if scram else "PLAIN",
            dialect="msgpack" if msgpack else "text",
            tls=tls or ca is not None,
            ca=ca,
            spool=spool,
            on_event=_Teller(spool),
        )
    except (SpoolError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or ca or spool}: {error.strerror}") from error
    push = _Push(client, file, parse_json if msgpack else bytes, must_connect=spool is None)
    try:
        with client:
            push.run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (OSError, ClientError) as error:
        waiting = ""
        if spool is not None and client.unacknowledged:
            count = client.unacknowledged
            verb = "waits" if count == 1 else "wait"
            waiting = f"; {_plural(count, 'frame')} {verb} in {spool} for the next run"
        raise click.ClickException(_explain(error, name, address) + waiting) from error
    if push.problem:
        raise click.ClickException(push.problem)
    if client.rejected:
        refused = _plural(client.rejected, "frame")
        raise click.ClickException(f"{refused} set aside, as told above: {address} takes no such")


class _Teller:
    """Tells what happens meanwhile, but for what ends the command, and so is told at its end."""

    def __init__(self, spool: Path | None) -> None:
        """Make it; without a spool an outage counts only after there has been a connection."""
        self._goes_on = spool is not None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._goes_on = True
        elif not isinstance(event, Stopped) and self._goes_on:
            click.echo(f"{event}", err=True)


def _read_token(token_file: Path | None) -> str:
    if token_file is not None:
        try:
            token = token_file.read_text("utf-8").strip("\r\n")
        except ValueError:
            raise click.ClickException(f"{token_file}: it is not UTF-8 text") from None
        if not token:
            raise click.ClickException(f"{token_file}: it is empty; put the device's token there")
        return token
    from_environment = os.environ.get("INGEST_TOKEN")
    if from_environment:
        return from_environment
    if not sys.stdin.isatty():
        raise click.UsageError("no token: give --token-file FILE, or set INGEST_TOKEN")
    return str(click.prompt("Token", hide_input=True, err=True))


def parse_json(line: bytes) -> object:
    """Read one line of JSON (RFC 8259: no NaN, no Infinity).

    Raises:
        ValueError: it is something else; the message says what and at which column.
    """
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno} is not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class _Push:
    """One file on its way to the listener.

    Attributes:
        problem: what is wrong with the line at which it stopped; empty when it took all.
    """

    def __init__(
        self,
        client: Client,
        file: BufferedReader,
        parse: Callable[[bytes], object],
        *,
        must_connect: bool,
    ) -> None:
        """Prepare it.

        Args:
            client: as which device, and where to.
            file: what to send.
            parse: makes a frame of a line.
            must_connect: whether to stop at once if there is no listener that lets us in.
        """
        self.problem = ""
        self._client = client
        self._file = file
        self._parse = parse
        self._must_connect = must_connect
        self._line = 0
        self._empty = 0
        self._earlier = client.unacknowledged

    def run(self) -> None:
        """Send every line, until one that is no frame; wait for its ACK, and tell how it went."""
        started = time.monotonic()
        if self._must_connect:
            self._client.connect()
        try:
            with _make_progress() as progress:
                self._send(progress)
        finally:
            empty = f"; {_plural(self._empty, 'empty line')} skipped" if self._empty else ""
            earlier = (
                f"; {_plural(self._earlier, 'frame')} of earlier runs" if self._earlier else ""
            )
            took = time.monotonic() - started
            click.echo(f"{self._counts()}{earlier}, in {took:.1f} s{empty}")

    def _send(self, progress: Progress) -> None:
        task = progress.add_task("", total=_size(self._file))
        for lines, size in self._read():
            try:
                self._client.send_many(self._frames(lines))
            except (TypeError, ValueError) as error:
                self.problem = f"{self._file.name}:{self._line}: {error}"
                break
            if self._must_connect and not _has_more(self._file):
                self._client.wait()  # the next line may be an hour away
            progress.update(task, description=self._counts(), advance=size)
        if not self._client.connected and self._client.unacknowledged:
            self._client.connect()
        self._client.wait()

    def _counts(self) -> str:
        sent = self._client.taken
        done = sent + self._earlier - self._client.unacknowledged - self._client.rejected
        acknowledged = max(0, min(sent, done))
        return f"sent {_plural(sent, 'frame')}, {acknowledged:,} acknowledged"

    def _read(self) -> Iterator[tuple[list[bytes], int]]:
        """Give the lines that each read completes, and its size in bytes."""
        rest = b""
        while data := self._file.read1(_CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            yield lines, len(data)
            if len(rest) > _MAX_LINE:
                break
        if rest:
            yield [rest], 0

    def _frames(self, lines: list[bytes]) -> Iterator[object]:
        for line in lines:
            self._line += 1
            if len(line) > _MAX_LINE:
                raise ValueError(f"more than {_MAX_LINE:,} bytes without an end of line")
            content = line.removesuffix(b"\r")
            if content:
                yield self._parse(content)
            else:
                self._empty += 1


def _size(file: BufferedReader) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _has_more(file: BufferedReader) -> bool:
    return bool(select.select([file], [], [], 0)[0])


def _make_progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _explain(error: OSError | ClientError, name: str, address: Address) -> str:
    if isinstance(error, ServerError):
        return f"{address} refused {name}: {error}{_HINTS.get(error.code, '').format(name=name)}"
    if isinstance(error, ClientError):
        return f"{address}: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"can't push to {address}: its certificate is not trusted: {error.verify_message}; "
            "give the one to trust by --ca FILE, and the host as it is named there"
        )
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"can't push to {address}: no TLS is spoken there; is that the port of TLS?"
    reason = error.strerror or str(error)
    return f"can't push to {address}: {reason}; is the listener running there?"
