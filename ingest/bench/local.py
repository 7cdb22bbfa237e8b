"""A listener for a benchmark or a demonstration, in a folder of its own, and its use of memory."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ingest.bench.certificate import make_certificate
from ingest.bench.plan import Device
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive, make_token
from ingest.layout import Layout

HOST = "127.0.0.1"

_START = 60.0  # seconds that a listener may take to start, and to stop
_POLL = 0.02  # seconds
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Not `-m twisted`, which is `twist`, and not a script whose place depends on the installation.
_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class StartError(Exception):
    """A process did not start; the text has the end of its output."""


class Cpu(NamedTuple):
    """Seconds of a core.

    Attributes:
        main: those of the main thread, which is the reactor's in a listener.
        others: those of all other threads: they write the journal and check tokens.
    """

    main: float
    others: float

    @property
    def all(self) -> float:
        """Those of all threads."""
        return self.main + self.others

    def since(self, before: "Cpu") -> "Cpu":
        """Return what was taken since an earlier look."""
        return Cpu(self.main - before.main, self.others - before.others)


class Process:
    """A process that is measured.

    Attributes:
        pid: its number.
        start: seconds from its start until it answered.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", start: float) -> None:
        self._process = process
        self.pid = process.pid
        self.start = start

    def stop(self) -> None:
        """Stop it in good order, and wait for that; at the end of its block it stops anyway."""
        _stop(self._process)

    def cpu(self) -> Cpu:
        """Return the seconds of a core that it took so far."""
        process = Path(f"/proc/{self.pid}")
        main = _seconds(process / "task" / str(self.pid) / "stat")  # its main thread has its number
        return Cpu(main, _seconds(process / "stat") - main)

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def open_files(self) -> int:
        """Return how many file descriptors it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def _seconds(stat: Path) -> float:
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]  # proc(5): fields 14 and 15
    return (int(user) + int(system)) / _TICK


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def make_devices(count: int) -> list[Device]:
    """Name devices; all have one token, so that one verifier serves for all."""
    token = make_token()
    return [Device(f"bench-{number:07}", token) for number in range(count)]


def register(layout: Layout, devices: Sequence[Device]) -> None:
    """Register devices that `make_devices` named."""
    layout.create()
    verifier = derive(devices[0].token)
    with Registry(layout.devices) as registry:
        registry.add_many((device.name, verifier, "") for device in devices)


@contextmanager
def listener(
    layout: Layout, port: int, *, tls: Path | None = None, options: Iterable[str] = ()
) -> Iterator[Process]:
    """Run `twistd ingest` on a port of 127.0.0.1 while the block lasts.

    Args:
        layout: its data folder, which exists.
        port: where to listen.
        tls: make a certificate for 127.0.0.1 in this file, and listen by TLS with it.
        options: more words of its command line.

    Raises:
        StartError: it does not start.
    """
    endpoint = f"tcp:{port}:interface={HOST}"
    if tls is not None:
        make_certificate(tls)
        endpoint = f"ssl:{port}:interface={HOST}:privateKey={tls}:certKey={tls}"
    command = (*_TWISTD, "-n", "--pidfile=", "ingest", "--data", str(layout.data))
    with running(
        (*command, "--listen", endpoint, *options), port, layout.data / "out.txt"
    ) as process:
        yield process


@contextmanager
def page(layout: Layout, port: int) -> Iterator[Process]:
    """Run `twistd ingest-watch` on a port of 127.0.0.1 while the block lasts.

    Args:
        layout: the data folder of a listener.
        port: where the page is.

    Raises:
        StartError: it does not start.
    """
    endpoint = f"tcp:{port}:interface={HOST}"
    command = (*_TWISTD, "-n", "--pidfile=", "ingest-watch", "--data", str(layout.data))
    with running((*command, "--http", endpoint), port, layout.data / "page.txt") as process:
        yield process


@contextmanager
def running(command: Sequence[str], port: int, output: Path) -> Iterator[Process]:
    """Run a command that listens on a port of 127.0.0.1 while the block lasts.

    Args:
        command: must stay in the foreground, and end at SIGTERM.
        port: where it will answer.
        output: what it prints.

    Raises:
        StartError: it does not start.
    """
    begun = time.monotonic()
    with output.open("wb") as out:
        # In a session of its own, it does not get the Ctrl-C that is meant for us.
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    with process:
        try:
            _wait_for(process, port, output)
            yield Process(process, time.monotonic() - begun)
        finally:
            _stop(process)


def _wait_for(process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
    deadline = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((HOST, port), _START):
            return
        time.sleep(_POLL)
    last = "\n".join(output.read_text(errors="replace").splitlines()[-15:])
    raise StartError(f"the listener did not start; the end of its output:\n{last}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()  # nothing, if it has ended
    try:
        process.wait(_START)
    except subprocess.TimeoutExpired:
        process.kill()
