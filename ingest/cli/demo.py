"""`ingest demo`: a listener and four devices on this machine, to look at."""

import json
import random
import shlex
import shutil
import signal
import socketserver
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from ingest.bench import local
from ingest.cli.common import has_watch_packages, to_seconds
from ingest.client import Client, ClientError
from ingest.devices.registry import Registry
from ingest.devices.verifier import make_token
from ingest.layout import Layout
from ingest.log.following import follow

_BY_HAND = "by-hand"
_RETRY = 5.0  # seconds; the listener is on this machine, or gone
_POLL = 0.1  # seconds


class _Kind(NamedTuple):
    """A device of the demonstration, and what it pushes."""

    name: str
    says: str
    make_client: Callable[..., Client]
    read: Callable[[], object]


_KINDS = (
    _Kind(
        "thermometer",
        "lines of text",
        Client,
        lambda: f"temp={random.gauss(20, 1):.1f}",
    ),
    _Kind(
        "power-meter",
        "msgpack",
        partial(Client, dialect="msgpack"),
        lambda: {"watts": random.randint(200, 2000), "volts": [230.1, 229.8, 231.0]},
    ),
    _Kind(
        "front-door",
        "lines of text, after SCRAM-SHA-256",
        partial(Client, mechanism="SCRAM-SHA-256"),
        lambda: random.choice(["opened", "closed"]),
    ),
)


_BOILER = "boiler"


class _Boiler(socketserver.ThreadingTCPServer):
    """A device that only answers: a small TCP server, which the listener calls.

    Attributes:
        port: where it listens.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__((local.HOST, 0), _Answer)
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def settings(self) -> str:
        """The table by which the listener calls it."""
        return (
            f'[[dial]]\ndevice = "{_BOILER}"\nconnect = "tcp:{local.HOST}:{self.port}"\n'
            'send = "Hello, IoT!"\nuntil = "\\n"\nevery = "1s"\nformat = "logfmt"\n'
        )


class _Answer(socketserver.BaseRequestHandler):
    """Answers one question."""

    def handle(self) -> None:
        with suppress(OSError):
            self.request.recv(1024)
            self.request.sendall(f"temp={random.gauss(60, 2):.1f} bar=1.4\n".encode())


class _Device(threading.Thread):
    """Pushes a reading about once a second until `ending` is set.

    Attributes:
        sent: how many frames the client took.
        problem: what ended it too early.
    """

    def __init__(self, client: Client, read: Callable[[], object], ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.problem: OSError | ClientError | None = None
        self._client = client
        self._read = read
        self._ending = ending

    @property
    def acknowledged(self) -> int:
        """How many of them are on the listener's disk."""
        return self.sent - self._client.unacknowledged

    def run(self) -> None:
        """Push, then wait for the last acknowledgement."""
        try:
            with self._client as client:
                while not self._ending.wait(random.uniform(0.5, 1.5)):
                    client.send(self._read())
                    self.sent += 1
        except (OSError, ClientError) as error:
            self.problem = error
            self._ending.set()


class _Drained(Exception):  # noqa: N818 - the end of the log, not an error
    """All is stopped, and the log was read to its end."""


@click.command(short_help="Show it: a listener, four devices and the page.")
@click.option(
    "--for", "duration", type=to_seconds, metavar="DURATION", help="Stop after so long: 10s, 1m."
)
def demo(duration: float | None) -> None:
    """Run a listener and four devices, and show the log as it grows, until Ctrl-C.

    Three push to the listener; the fourth only answers when the listener asks. It works in a
    temporary folder, which it removes at the end.
    """
    ending = threading.Event()
    with tempfile.TemporaryDirectory(prefix="ingest-demo-") as folder, _signals_set(ending):
        layout = Layout(Path(folder))
        layout.create()
        tokens = _register(layout)
        port = local.free_port()
        with (
            _Boiler() as boiler,
            _listener(layout, port, boiler) as process,
            _page(layout) as page,
        ):
            click.echo(_heading(layout, port, tokens[_BY_HAND], page))
            devices = _start_devices(port, tokens, ending)
            deadline = time.monotonic() + (threading.TIMEOUT_MAX if duration is None else duration)
            lines = _show_log(layout, _Stopping(process, devices, ending, deadline))
    _conclude(devices, lines)


@contextmanager
def _signals_set(ending: threading.Event) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: ending.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _register(layout: Layout) -> dict[str, str]:
    tokens = {name: make_token() for name in (*(kind.name for kind in _KINDS), _BOILER, _BY_HAND)}
    with Registry(layout.devices) as registry:
        for name, token in tokens.items():
            registry.add(name, token)
    return tokens


@contextmanager
def _listener(layout: Layout, port: int, boiler: _Boiler) -> Iterator[local.Process]:
    settings = layout.data / "ingest.toml"
    settings.write_text(boiler.settings)
    try:
        with local.listener(layout, port, options=("--config", str(settings))) as process:
            yield process
    except local.StartError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _page(layout: Layout) -> Iterator[str]:
    """Serve the page if its packages are there; say where it is, or what is to be done."""
    if not has_watch_packages():
        yield "A page with curves of all this needs more packages: pip install 'ingest[watch]'"
        return
    port = local.free_port()
    try:
        with local.page(layout, port):
            yield f"Look at it: http://{local.HOST}:{port}/"
    except local.StartError as error:
        raise click.ClickException(f"the page: {error}") from error


def _called() -> str:
    """Write how this command is called from another terminal, where no venv may be active."""
    program = Path(sys.argv[0]).absolute()
    is_found = program.name != "ingest" or shutil.which("ingest") == str(program)
    return "ingest" if is_found else shlex.quote(str(program))


def _heading(layout: Layout, port: int, token: str, page: str) -> str:
    auth = b64encode(f"\0{_BY_HAND}\0{token}".encode()).decode()
    says = [(kind.name, kind.says) for kind in _KINDS]
    says.append((_BOILER, "only answers: the listener asks it every second"))
    devices = "\n".join(f"  {name:<12} {what}" for name, what in says)
    return f"""\
A listener on {local.HOST}:{port} keeps {layout.log_folder}/ingest.log. These are its devices:
{devices}
{page}
Push to it yourself, from another terminal, in one of these ways:
  printf 'AUTH PLAIN {auth}\\nhello\\n' | nc -N {local.HOST} {port}
  echo hello | INGEST_TOKEN={token} {_called()} send {_BY_HAND} --to {local.HOST}:{port}
Ctrl-C stops everything. This is the log:
"""


def _start_devices(port: int, tokens: dict[str, str], ending: threading.Event) -> list[_Device]:
    devices = []
    for name, _, make_client, read in _KINDS:
        client = make_client(local.HOST, port, name, tokens[name], retry=_RETRY)
        devices.append(_Device(client, read, ending))
        devices[-1].start()
    return devices


class _Stopping:
    """What is done while the log has nothing new: wait, and in the end stop everything."""

    def __init__(
        self,
        process: local.Process,
        devices: list[_Device],
        ending: threading.Event,
        deadline: float,
    ) -> None:
        self._process = process
        self._devices = devices
        self._ending = ending
        self._deadline = deadline
        self._stopped = False

    def __call__(self) -> None:
        """Wait for a moment.

        Raises:
            _Drained: all was stopped by the call before.
        """
        if self._stopped:
            raise _Drained
        if self._ending.wait(_POLL) or time.monotonic() > self._deadline:
            self._ending.set()
            for device in self._devices:
                device.join()
            self._process.stop()
            self._stopped = True


def _show_log(layout: Layout, wait: Callable[[], None]) -> Counter[str]:
    """Print the lines of the log; return how many each device has."""
    lines: Counter[str] = Counter()
    with suppress(_Drained):
        for line in follow(layout.log_folder, first=None, wait=wait):
            click.echo(line)
            lines[json.loads(line)["device"]] += 1
    return lines


def _conclude(devices: list[_Device], lines_of: Counter[str]) -> None:
    lines = sum(lines_of[kind.name] for kind in _KINDS)
    click.echo(f"\n{_BOILER} answered {lines_of[_BOILER]:,} times; of the devices that push:")
    sent = sum(device.sent for device in devices)
    acknowledged = sum(device.acknowledged for device in devices)
    click.echo(f"{sent:,} frames sent, {acknowledged:,} acknowledged, {lines:,} lines in the log")
    for device in devices:
        if device.problem is not None:
            raise click.ClickException(f"a device stopped: {device.problem}")
    if not sent == acknowledged == lines:
        raise click.ClickException("these numbers must agree")
