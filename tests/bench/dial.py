"""What devices cost that are dialled: 1,000 of them, a third dead, a tenth silent.

    python -m tests.bench.dial [--devices 1000] [--every 10s] [--seconds 60]

A simulated fleet of TCP devices that only answer, in a process of its own; a real listener; and one
device that pushes a frame a time and waits for its acknowledgement, first without the dialled
devices and then beside them. It prints the listener's CPU, what came, and both latencies.
"""

import asyncio
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import click

from ingest.bench import local
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from ingest.ops.control import ask

_TOKEN = "s3cr3t"
_SEND = "Hello, IoT!"
_WARM_UP = 12.0  # seconds: the first calls are spread over ten


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        await reader.read(64)
        writer.write(b'{"temp":20.5,"door":"shut"}\r\n')
        await reader.read(1)
    writer.close()


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while await reader.read(64):
            pass
    writer.close()


def _serve(ports: Connection) -> None:
    """Be the devices: one port for those that answer, one for those that are silent."""

    async def serve() -> None:
        servers = [
            await asyncio.start_server(each, local.HOST, 0, backlog=1024)
            for each in (_answer, _say_nothing)
        ]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    asyncio.run(serve())


def _tables(devices: int, every: str, answering: int, silent: int, unreachable: int) -> str:
    """Write the tables: of 30 devices 17 answer, 3 are silent, 5 refuse, 5 can't be reached."""
    ports = [answering] * 17 + [silent] * 3 + [local.free_port()] * 5 + [unreachable] * 5
    tables = []
    for number in range(devices):
        kind = ports[number % len(ports)]
        tables.append(
            f'[[dial]]\ndevice = "d{number}"\nconnect = "tcp:{local.HOST}:{kind}"\n'
            f'send = "{_SEND}"\nuntil = "\\n"\nevery = "{every}"\nformat = "json"\n'
        )
    return "".join(tables)


@contextmanager
def _unreachable() -> Iterator[int]:
    """Have a port that answers no attempt to connect: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((local.HOST, 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(server.getsockname())
        yield server.getsockname()[1]


def _latencies(port: int, seconds: float) -> list[float]:
    """Push a frame, wait for its ACK, and so on; return how long each took."""
    taken = []
    with socket.create_connection((local.HOST, port)) as device:
        login = b64encode(f"\0pusher\0{_TOKEN}".encode())
        device.sendall(b"AUTH PLAIN " + login + b"\n")
        device.recv(4096)
        end = time.monotonic() + seconds
        while (begun := time.monotonic()) < end:
            device.sendall(b"temp=20.5\n")
            device.recv(4096)
            taken.append(time.monotonic() - begun)
            time.sleep(0.01)
    return taken


def _run(layout: Layout, config: Path, seconds: float) -> tuple[float, list[float], dict[str, int]]:
    port = local.free_port()
    with local.listener(layout, port, options=("--config", str(config))) as process:
        time.sleep(_WARM_UP)
        before, begun = process.cpu(), time.monotonic()
        calls = ask(layout.control, "status", 10)["dialled"]
        time.sleep(seconds)  # its CPU is that of the dialled devices only
        share = process.cpu().since(before).all / (time.monotonic() - begun)
        after = ask(layout.control, "status", 10)
        counts = {name: after["dialled"][name] - calls[name] for name in ("calls", "failures")}
        counts |= {"down": after["dialled"]["down"], "frames": after["total"]["written_frames"]}
        return share, _latencies(port, seconds / 2), counts


@click.command()
@click.option("--devices", default=1000, show_default=True)
@click.option("--every", default="10s", show_default=True)
@click.option("--seconds", default=40.0, show_default=True)
def main(devices: int, every: str, seconds: float) -> None:
    """Measure what dialled devices cost."""
    ours, theirs = multiprocessing.Pipe()
    fleet = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    fleet.start()
    answering, silent = ours.recv()
    try:
        for number in (0, devices):
            with (
                tempfile.TemporaryDirectory(prefix="ingest-dial-") as folder,
                _unreachable() as unreachable,
            ):
                layout = Layout(Path(folder))
                layout.create()
                verifier = derive(_TOKEN)
                names = ["pusher", *(f"d{each}" for each in range(number))]
                with Registry(layout.devices) as registry:
                    registry.add_many((name, verifier, "") for name in names)
                config = Path(folder) / "ingest.toml"
                config.write_text(_tables(number, every, answering, silent, unreachable))
                share, taken, counts = _run(layout, config, seconds)
                cuts = statistics.quantiles(taken, n=100)
                click.echo(
                    f"{number} dialled: {share:.1%} of a core; ACK latency p50"
                    f" {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms; {json.dumps(counts)}"
                )
                subprocess.run(
                    [Path(sys.executable).with_name("ingest"), "--data", folder, "verify"],
                    check=True, stdout=subprocess.DEVNULL,
                )  # fmt: skip
    finally:
        fleet.terminate()


if __name__ == "__main__":
    main()
