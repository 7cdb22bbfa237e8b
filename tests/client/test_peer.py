"""A host that is gone is found out; one that is there and takes nothing is left in peace."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.client import Client
from tests.support.processes import run_tool
from tests.support.waiting import PATIENCE, wait_for

PEER_TIMEOUT = 8.0  # seconds; the least that a client takes

# It runs in a network of its own, whose only interface is then switched off: no reset, no answer.
_VANISHING = """
import os, subprocess, sys
from ingest.client import Client
from tests.support.shells import BlockingAsync
from tests.support.scripted_server import Server
from tests.support.waiting import PATIENCE, wait_for

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
make = {"blocking": Client, "asyncio": BlockingAsync}[sys.argv[1]]
with Server() as server:
    client = make("127.0.0.1", server.port, "sensor-1", "secret", peer_timeout=float(sys.argv[2]))
    client.send("a")
    client.wait(PATIENCE)
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    client.send("b")
    wait_for(lambda: not client.connected)
    print(client.connected, client.unacknowledged, client.last_error)
    sys.stdout.flush()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    client.abort()
    os._exit(0)
"""


KINDS = ("blocking", "asyncio")


@pytest.fixture(scope="module")
def full() -> Iterator[Client]:
    """A client that is let in by a server which then takes nothing: its window closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        client = Client("127.0.0.1", port, "a", "t", queue=10_000, peer_timeout=PEER_TIMEOUT)
        client.send_many("x" * 60_000 for _ in range(200))
        connection, _ = listening.accept()
        with connection:
            connection.recv(10)
            connection.sendall(b"OK next=1 max_frame=65536\n")
            wait_for(lambda: client.connected, "it is let in")
            yield client
            client.abort()


@pytest.fixture(scope="module")
def told(full: Client) -> Mapping[str, subprocess.CompletedProcess[str]]:
    """What clients of both kinds say whose hosts go away; they wait at the same time.

    The window of the other stays closed for longer than they take to give up.
    """
    run_tool("ip", "-V")
    command = ["unshare", "--net", sys.executable, "-c", _VANISHING]

    def vanish(kind: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, kind, str(PEER_TIMEOUT)],
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip

    with ThreadPoolExecutor(len(KINDS)) as pool:
        return dict(zip(KINDS, pool.map(vanish, KINDS), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_that_is_gone_is_found_out_and_a_full_one_is_not(
    told: Mapping[str, subprocess.CompletedProcess[str]], full: Client, kind: str
) -> None:
    said = "False 1 [Errno 110] the server's host is silent for 8 s\n"
    assert told[kind].stdout == said, told[kind]
    assert full.connected
    assert full.last_error is None
