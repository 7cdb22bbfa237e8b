"""Fluent Forward, as clients speak it: to a real listener, which is killed now and then."""

import gzip
import json
import socket
from hashlib import sha512
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack
import pytest
from fluent.sender import FluentSender

from tests.endtoend.test_options import START
from tests.support.listeners import Listener
from tests.support.processes import run
from tests.support.waiting import PATIENCE, wait_for

KEY = "s3cr3t"
LISTEN = ("--listen", "forward=tcp:0:interface=127.0.0.1")


def option(*pairs: str) -> tuple[str, ...]:
    return (*LISTEN, *(word for pair in pairs for word in ("--listen-option", pair)))


OPEN = option("device=app")
KEYED = option(f"shared-key={KEY}")


class Client:
    """A client that logs in as `host` if it has a key."""

    def __init__(self, listener: Listener, host: str = "web-1", key: str = "") -> None:
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self._unpacker = msgpack.Unpacker()
        self.pong: list[Any] = []
        if key:
            nonce = self.read()[1]["nonce"]
            proof = sha512(b"salt" + host.encode() + nonce + key.encode()).hexdigest()
            self.send(["PING", host, "salt", proof, "", ""])
            self.pong = self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.socket.close()

    def send(self, *messages: object) -> None:
        self.socket.sendall(b"".join(map(msgpack.packb, messages)))

    def read(self) -> Any:
        """Return the next message; None when the listener has closed its side."""
        while True:
            for message in self._unpacker:
                return message
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self._unpacker.feed(data)

    def push(self, *messages: list[Any]) -> None:
        """Send chunks and wait for their acknowledgements."""
        self.send(*messages)
        for message in messages:
            assert self.read() == {"ack": message[-1]["chunk"]}


def chunk(name: str, *numbers: int) -> list[Any]:
    packed = b"".join(msgpack.packb([5, {"n": number}]) for number in numbers)
    return ["t", packed, {"chunk": name, "size": len(numbers)}]


def numbers(listener: Listener, device: str) -> list[int]:
    return [json.loads(line)["data"]["n"] for line in listener.lines(device)]


def test_a_handshake_and_chunks(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *KEYED, listen=()) as listener:
        listener.add("web-1")
        with Client(listener, key=KEY) as client:
            assert client.pong[:2] == ["PONG", True]
            client.push(chunk("a", 1, 2), chunk("b", 3))
            packed = gzip.compress(msgpack.packb([5, {"n": 4}]))
            client.push(["t", packed, {"chunk": "c", "compressed": "gzip"}])
        assert numbers(listener, "web-1") == [1, 2, 3, 4]
        assert listener.status()["total"]["acknowledged_frames"] == 4


@pytest.mark.parametrize(("host", "key"), [("web-1", "wrong"), ("web-2", KEY), ("off", KEY)])
def test_who_is_not_let_in(tmp_path: Path, host: str, key: str) -> None:
    with Listener(tmp_path / "data", *KEYED, listen=()) as listener:
        listener.add("web-1", "off")
        listener.ingest("device", "disable", "off")
        with Client(listener, host, key) as client:
            assert client.pong[:2] == ["PONG", False]
            assert client.read() is None


def test_too_many_wrong_keys(tmp_path: Path) -> None:
    """They count for the name that was tried, so that no other at that address is kept out."""
    with Listener(tmp_path / "data", *KEYED, listen=()) as listener:
        listener.add("web-1", "web-2")
        for _ in range(400):
            with Client(listener, key="wrong") as client:
                reason = client.pong[2]
                if reason != "shared key mismatch":
                    break
        assert reason == "too many failed attempts from your address"
        assert "auth-failed: 'web-1' at 127.0.0.1" in listener.output
        with Client(listener, "web-2", KEY) as other:
            other.push(chunk("a", 1))


def test_a_device_that_is_revoked_is_cut(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *KEYED, listen=()) as listener:
        listener.add("web-1")
        with Client(listener, key=KEY) as first, Client(listener, key=KEY) as second:
            first.push(chunk("a", 1))
            second.push(chunk("b", 2))
            listener.ingest("device", "disable", "web-1")
            assert first.read() is None and second.read() is None


def test_connections_of_one_device_go_on_side_by_side(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
        listener.add("app")
        with Client(listener) as first, Client(listener) as second, Client(listener):
            for number in range(20):
                first.push(chunk(f"a{number}", number))
                second.push(chunk(f"b{number}", 100 + number))
        stored = numbers(listener, "app")
        assert sorted(stored) == [*range(20), *range(100, 120)]
        assert [number for number in stored if number < 100] == list(range(20))
        wait_for(lambda: listener.status()["connections"] == 0, "the end of all connections")
        listener.ingest("verify")


def test_a_chunk_that_is_sent_again_after_a_kill_is_stored_once(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
        listener.add("app")
        with Client(listener) as client:
            client.push(chunk("a", 1, 2, 3))
            client.send(chunk("b", 4, 5, 6))
            client.read()
        listener.kill()
    # As a crash within a write leaves it: the last chunk is there in part, its last line torn.
    log = tmp_path / "data" / "log" / "ingest.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    (tmp_path / "data" / "state" / "intent").unlink(missing_ok=True)
    with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
        with Client(listener) as client:
            client.push(chunk("b", 4, 5, 6), chunk("a", 1, 2, 3), chunk("c", 7))
        assert numbers(listener, "app") == [1, 2, 3, 4, 5, 6, 7]


def test_a_chunk_whose_answer_is_lost_again_and_again(tmp_path: Path) -> None:
    """The listener is killed while a chunk is under way, until it has answered all of them."""
    pushed = 0
    for _ in range(8):
        with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
            if not pushed:
                listener.add("app")
            with Client(listener) as client:
                for _ in range(3):
                    client.push(chunk(f"c{pushed}", *range(3 * pushed, 3 * pushed + 3)))
                    pushed += 1
                client.send(chunk(f"c{pushed}", *range(3 * pushed, 3 * pushed + 3)))
                listener.kill()
    with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
        with Client(listener) as client:
            client.push(chunk(f"c{pushed}", *range(3 * pushed, 3 * pushed + 3)))
        assert numbers(listener, "app") == list(range(3 * pushed + 3))


def test_heartbeats_of_fluentd(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *KEYED, listen=()) as listener:
        listener.add("web-1")
        with Client(listener, key=KEY) as client:
            for _ in range(50):
                with Client(listener, key=KEY) as beat:
                    assert beat.pong[1] is True
            client.push(chunk("a", 1))


def test_fluent_logger_python(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *OPEN, listen=()) as listener:
        listener.add("app")
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        host, port = address
        sender = FluentSender("web", host=host, port=port, nanosecond_precision=True)
        for number in range(100):
            assert sender.emit("access", {"n": number}), sender.last_error
        sender.close()
        wait_for(lambda: len(listener.lines("app")) == 100, "the events")
        record = json.loads(listener.lines("app")[-1])
        assert record["tag"] == "web.access" and record["data"] == {"n": 99}
        assert record["event_time"][:13] == record["time"][:13]
        assert "event_time" in listener.ingest("tail", "--device", "app", "--json")
        listener.ingest("verify")


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ((), "shared-key"),
        (("shared-key=k", "networks=10.0.0.0/8"), "networks"),
        (("device=app", "user=x"), "there is no option 'user'; did you mean users?"),
        (("shared-key-file=/nowhere",), "/nowhere"),
    ],
)
def test_what_does_not_start(tmp_path: Path, pairs: tuple[str, ...], what: str) -> None:
    result = run(*START, "--data", tmp_path / "data", *option(*pairs), cwd=tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode != 0 and what in line and "Traceback" not in result.stdout
