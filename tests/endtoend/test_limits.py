"""What a listener does not put up with for ever, and how it says good-bye."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from scramp import ScramClient

from tests.support.devices import Device, PackedDevice, TextDevice, pack
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

Dialect = type[Device]

SHORT = ("--handshake-timeout", "400ms", "--idle-timeout", "400ms")


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """A listener without patience."""
    with Listener(tmp_path_factory.mktemp("limits") / "data", *SHORT) as listener:
        yield listener


def test_auth_timeout(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as silent, dialect(listener.addresses[0]) as slow:
        slow.send(slow.plain(name)[:-1])
        assert slow.last_words() == "auth-timeout"
        # Who never said a byte has no dialect yet: it is told in text.
        assert silent.socket.recv(100).startswith(b"ERR auth-timeout ")
        silent.send(silent.plain(name), silent.frame("late"))
        assert silent.reply() == ("end", None)
    assert listener.frames(name) == []


def test_auth_timeout_within_scram(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.begin_scram(name)
        assert device.last_words() == "auth-timeout"


def test_auth_timeout_although_bytes_trickle_in(listener: Listener) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.socket.setblocking(False)

        def trickle() -> bytes:
            device.socket.send(b"A")
            time.sleep(0.02)  # they come one by one
            with suppress(BlockingIOError):
                return device.socket.recv(1000)
            return b""

        assert wait_for(trickle, "the time-out").startswith(b"ERR auth-timeout ")


def test_idle_timeout(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.push("a")
        assert device.replies() == [("ack", 1), ("err", "idle-timeout"), ("end", None)]
    assert listener.frames(name) == ["a"]


def test_keep_alives_keep_a_connection(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device, TextDevice(listener.addresses[0]) as idle:
        device.log_in(name)
        for _ in range(20):
            device.send(device.keep_alive)
            time.sleep(0.05)
        device.push_all("a", last=1)
        assert idle.reply() == ("err", "auth-timeout")  # time has passed indeed


def test_a_vanished_device_leaves_nothing(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all("a", last=1)
        wait_for(lambda: listener.status()["connections"] == 0, "the connection's end")
        assert device.last_words() == "idle-timeout"


def test_too_many_connections(tmp_path: Path, dialect: Dialect) -> None:
    with Listener(tmp_path / "data", "--max-connections", "2") as listener:
        listener.add("a", "b", "c")
        address = listener.addresses[0]
        with dialect(address) as first, dialect(address) as second:
            first.log_in("a")
            second.log_in("b")
            with dialect(address) as third:
                third.send(third.plain("c"), third.frame("lost"))
                assert third.replies() == [("err", "busy"), ("end", None)]
            first.push_all("x", last=1)
            second.push_all("y", last=1)
            first.close_side()
            assert first.replies() == [("end", None)]
        wait_for(lambda: listener.status()["connections"] == 0, "the devices' end")
        with dialect(address) as third:
            assert third.log_in("c") == 1


def test_too_many_failed_attempts(tmp_path: Path, dialect: Dialect) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("good")
        with TextDevice(listener.addresses[0]) as bystander:
            bystander.log_in("good")
            codes = []
            for _ in range(400):
                with dialect(listener.addresses[0]) as device:
                    device.send(device.plain("good", "wrong"))
                    codes.append(device.last_words())
                    if codes[-1] == "busy":
                        break
            assert set(codes[:-1]) == {"auth-failed"}
            assert codes[-1] == "busy"
            bystander.push_all("x", last=1)
        assert listener.output.count("authentication failed") < 10


def test_too_many_failed_attempts_by_scram(tmp_path: Path) -> None:
    """They count for the name that was tried, so that no other at that address is kept out."""
    with Listener(tmp_path / "data") as listener:
        listener.add("good", "other")
        address = listener.addresses[0]
        for _ in range(400):
            with TextDevice(address) as device:
                client = ScramClient(["SCRAM-SHA-256"], "good", "wrong")
                device.send(device.auth("SCRAM-SHA-256", client.get_client_first().encode()))
                kind, challenge = device.reply()
                if kind == "err":
                    break
                client.set_server_first(challenge.decode())
                device.send(device.response(client.get_client_final().encode()))
                assert device.last_words() == "auth-failed"
        assert (kind, challenge) == ("err", "busy")
        assert "auth-failed: 'good' at 127.0.0.1" in listener.output
        with TextDevice(address) as other:
            assert other.log_in("other") == 1


def test_shutting_down(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("text", "packed", "sleeper")
        address = listener.addresses[0]
        with (
            TextDevice(address) as text,
            PackedDevice(address) as packed,
            TextDevice(address) as new,
        ):
            text.log_in("text")
            packed.log_in("packed")
            text.push(*["x"] * 1000)
            packed.send(pack("y"), pack("cut")[:-1])
            packed.wait_for_ack(1)
            listener.stop()
            *_, acknowledged, error, end = text.replies()
            assert (error, end) == (("err", "shutting-down"), ("end", None))
            assert acknowledged == ("ack", len(listener.frames("text")))
            assert packed.replies() == [("err", "shutting-down"), ("end", None)]
            assert new.replies() == [("err", "shutting-down"), ("end", None)]


def test_a_restart_goes_on(tmp_path: Path) -> None:
    for following in (1, 2):
        with Listener(tmp_path / "data") as listener:
            if following == 1:
                listener.add("a")
            with TextDevice(listener.addresses[0]) as device:
                assert device.log_in("a") == following
                device.push_all("x", last=following)
    assert listener.frames("a") == ["x"] * 2
