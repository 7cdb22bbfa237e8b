"""A host that is gone is found out; one that is there and takes nothing is left in peace."""

import socket
import subprocess
import sys

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


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_host_that_is_gone_is_found_out_and_a_full_one_is_not(kind: str) -> None:
    run_tool("ip", "-V")
    command = ["unshare", "--net", sys.executable, "-c", _VANISHING, kind, str(PEER_TIMEOUT)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        client = Client("127.0.0.1", port, "a", "t", queue=10_000, peer_timeout=PEER_TIMEOUT)
        client.send_many("x" * 60_000 for _ in range(200))
        connection, _ = listening.accept()
        connection.recv(10)
        connection.sendall(b"OK next=1 max_frame=65536\n")
        wait_for(lambda: client.connected, "it is let in")
        # Its window closes, and stays closed for longer than the other client takes to give up.
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        assert told.stdout == "False 1 [Errno 110] the server's host is silent for 8 s\n", told
        assert client.connected
        assert client.last_error is None
        client.abort()
        connection.close()
