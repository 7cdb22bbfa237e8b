"""The device's power may fail at any instant: the order of writes, syncs and sends shows it.

A frame and the place of its file's name must be on the disk before it is sent, and before `send`
returns; so must the number under which it is sent. What a torn write leaves is in test_queues.py.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import run_tool
from tests.support.scripted_server import Server

COUNT = 30

_PROGRAM = """
import asyncio, sys
from ingest.client import AsyncClient, Client
kind, port, spool, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def told(number):
    open("/dev/null", "w").write(f"returned-{number:05d}")

async def main():
    async with AsyncClient("127.0.0.1", port, "sensor-1", "secret", spool=spool) as client:
        for number in range(count):
            await client.send(f"frame-{number:05d}")
            told(number)

if kind == "asyncio":
    asyncio.run(main())
else:
    with Client("127.0.0.1", port, "sensor-1", "secret", spool=spool) as client:
        for number in range(count):
            client.send(f"frame-{number:05d}")
            told(number)
"""


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_what_is_sent_and_what_send_returns_from_is_on_the_disk(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = "trace=openat,pwrite64,write,fdatasync,fsync,sendto"
    with Server() as server:
        run_tool("strace", "-f", "-qq", "-s", "300", "-o", trace, "-e", calls, sys.executable, "-c",
            _PROGRAM, kind, str(server.port), tmp_path / "spool", str(COUNT))  # fmt: skip
        assert server.stored == [b"frame-%05d" % number for number in range(COUNT)]
    lines = trace.read_text().splitlines()

    def find(start: int, holds: Callable[[str], bool]) -> int:
        return next(at for at in range(start, len(lines)) if holds(lines[at]))

    def ended(call: str) -> Callable[[str], bool]:
        return lambda line: call in line and line.endswith("= 0")

    for number in range(COUNT):
        name = f"frame-{number:05d}"
        written = find(0, lambda line: "pwrite64(" in line and name in line)  # noqa: B023
        synced = find(written, ended("fdatasync"))
        if number == 0:
            synced = find(synced, ended("fsync"))  # the folder, which holds the file's name
        sent = find(0, lambda line: "sendto(" in line and name in line)  # noqa: B023
        returned = find(0, lambda line: f"returned-{number:05d}" in line)  # noqa: B023
        assert synced < sent, lines[written : sent + 1]
        assert synced < returned, lines[written : returned + 1]
    first = find(0, lambda line: "sendto(" in line and "frame-" in line)
    opened = find(0, lambda line: "OK device" in line or "AUTH PLAIN" in line)
    state = find(opened, lambda line: re.search(r"pwrite64\(.*, 4096( <|\))", line) is not None)
    assert state < find(state, ended("fdatasync")) < first, lines[opened : first + 1]
