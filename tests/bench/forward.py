"""What Fluent Forward costs a listener: PackedForward, each chunk acknowledged when it is on disk.

    python -m tests.bench.forward [--messages 10000] [--events 100] [--connections 4]

The figure to compare is frames per second of the listener's CPU time; the load takes some of the
machine's own.
"""

import argparse
import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack

from tests.support.devices import Address
from tests.support.listeners import Listener

_TICKS = os.sysconf("SC_CLK_TCK")
_WINDOW = 64
"""Chunks that a client has under way at once."""


def event(number: int) -> bytes:
    """Write one event of about 60 bytes, with an EventTime."""
    stamp = msgpack.ExtType(0, (1_795_347_540).to_bytes(4, "big") + number.to_bytes(4, "big"))
    packed: bytes = msgpack.packb([stamp, {"log": "x" * 30, "n": number, "level": "info"}])
    return packed


def messages(client: int, number: int, events: int) -> list[bytes]:
    """Write the messages of one client; each has an id of its own."""
    payload = b"".join(map(event, range(events)))
    return [
        msgpack.packb(["app.log", payload, {"chunk": f"{client:08}{index:016}", "size": events}])
        for index in range(number)
    ]


def push(address: Address, data: list[bytes]) -> None:
    """Send messages, `_WINDOW` of them ahead of their acknowledgements."""
    assert isinstance(address, tuple)
    with socket.create_connection(address, timeout=60) as connection:
        acks = msgpack.Unpacker()
        sent = acked = 0
        while acked < len(data):
            ahead = min(len(data), acked + _WINDOW)
            if ahead > sent:
                connection.sendall(b"".join(data[sent:ahead]))
                sent = ahead
            acks.feed(connection.recv(1 << 16))
            acked += sum(1 for _ in acks)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--connections", type=int, default=4)
    options = parser.parse_args()
    clients = range(options.connections)
    each = options.messages // options.connections
    work = [messages(client, each, options.events) for client in clients]
    listen = ("--listen", "forward=tcp:0:interface=127.0.0.1")
    named = ("--listen-option", "device=app", "--listen-option", "unregistered=accept")
    with (
        tempfile.TemporaryDirectory() as folder,
        Listener(Path(folder) / "data", *listen, *named, listen=()) as listener,
        ThreadPoolExecutor(options.connections) as threads,
    ):
        before, begun = cpu_seconds(listener.pid), time.monotonic()
        list(threads.map(push, [listener.addresses[0]] * len(work), work))
        seconds = time.monotonic() - begun
        cpu = cpu_seconds(listener.pid) - before
    total = each * options.connections * options.events
    print(
        f"{total:,} events in {seconds:.2f} s: {total / seconds:,.0f}/s;"
        f" listener {cpu / total * 1e6:.2f} µs CPU an event, {total / cpu:,.0f} per CPU second"
    )


if __name__ == "__main__":
    main()
