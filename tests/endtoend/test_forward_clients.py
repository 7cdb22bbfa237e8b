"""Node's clients of Fluent Forward, as npm has them, to a real listener that is killed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.tools import has_node_module, needs
from tests.support.certificates import make_certificate
from tests.support.listeners import Listener
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE, wait_for

CLIENT = Path(__file__).with_name("fluent_client.js")
NEW, OLD = "@fluent-org/logger", "fluent-logger"
SECURITY = {"clientHostname": "web-1", "sharedKey": "k", "username": "ann", "password": "pa"}

needs_clients = needs(has_node_module(NEW) and has_node_module(OLD), f"{NEW} or {OLD}")


def command(library: str, port: int, count: int, options: dict[str, Any]) -> list[str | Path]:
    address = {"host": "127.0.0.1", "port": port}
    given = options | (address if library == OLD else {"socket": address})
    return ["node", CLIENT, library, json.dumps(given), str(count)]


def listen(port: int, *options: str, endpoint: str = "tcp:{}:interface=127.0.0.1") -> list[str]:
    words = ["--listen", f"forward={endpoint.format(port)}"]
    return [*words, *(word for option in options for word in ("--listen-option", option))]


def numbers(listener: Listener, device: str) -> list[int]:
    return [json.loads(line)["data"]["n"] for line in listener.lines(device)]


@needs_clients
@pytest.mark.parametrize(
    ("library", "mode", "options", "device"),
    [
        (NEW, "Message", ("device=app",), "app"),
        (NEW, "Forward", ("device=app",), "app"),
        (NEW, "PackedForward", ("shared-key=k",), "web-1"),
        (NEW, "CompressedPackedForward", ("shared-key=k", "users=ann:pa"), "ann"),
        (OLD, "Message", ("shared-key=k", "users=ann:pa"), "ann"),
        (OLD, "PackedForward", ("shared-key=k",), "web-1"),
        (OLD, "CompressedPackedForward", ("device=app",), "app"),
    ],
)
def test_each_mode(
    tmp_path: Path, library: str, mode: str, options: tuple[str, ...], device: str
) -> None:
    port = free_port()
    with Listener(tmp_path / "data", *listen(port, *options), listen=()) as listener:
        listener.add(device)
        given = {"eventMode": mode} | ({} if "device=app" in options else {"security": SECURITY})
        subprocess.run(command(library, port, 100, given), check=True, timeout=2 * PATIENCE)
        assert numbers(listener, device) == list(range(100))
        assert listener.status()["total"]["acknowledged_frames"] == 100
        record = json.loads(listener.lines(device)[0])
        assert record["tag"] == "app.n" and record["event_time"] and record["chunk"]
        listener.ingest("verify")


@needs_clients
def test_over_tls(tmp_path: Path) -> None:
    port = free_port()
    make_certificate(tmp_path / "cert.pem")
    certificate = f"ssl:{{}}:interface=127.0.0.1:privateKey={tmp_path}/cert.pem"
    words = listen(port, "shared-key=k", endpoint=certificate)
    with Listener(tmp_path / "data", *words, listen=()) as listener:
        listener.add("web-1")
        _, begin, certificate = (tmp_path / "cert.pem").read_text().partition("-----BEGIN CERT")
        tls = {"ca": begin + certificate}
        given = {"security": SECURITY, "tls": True, "tlsOptions": tls}
        subprocess.run(command(OLD, port, 20, given), check=True, timeout=2 * PATIENCE)
        assert numbers(listener, "web-1") == list(range(20))


@needs_clients
@pytest.mark.parametrize(
    ("library", "mode"), [(NEW, "PackedForward"), (NEW, "Message"), (OLD, "Message")]
)
def test_killed_again_and_again(tmp_path: Path, library: str, mode: str) -> None:
    """Nothing that is acknowledged is lost; these clients may send again what they sent before.

    They do so as another chunk, which no listener can tell from a new event.
    """
    port, count = free_port(), 1500
    words = listen(port, "shared-key=k")
    listener = Listener(tmp_path / "data", *words, listen=())
    listener.add("web-1")
    given = {"eventMode": mode, "security": SECURITY}
    pushing = list(map(str, command(library, port, count, given)))
    with listener, subprocess.Popen(pushing, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for line in client.stdout:
            if int(line) in {200, 600, 1000}:
                listener.kill()
                assert set(range(int(line))) <= set(numbers(listener, "web-1"))
                listener.start()
        assert client.wait(PATIENCE) == 0
        stored = numbers(listener, "web-1")
        assert set(stored) == set(range(count))
        assert len(stored) < count + 3 * 40
        wait_for(lambda: listener.status()["connections"] == 0, "the end of the connection")
        listener.ingest("verify")
