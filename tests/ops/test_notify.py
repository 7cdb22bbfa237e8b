"""What systemd hears, over a real socket."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from ingest.ops.notify import Notifier
from ingest.ops.status import Summary
from ingest.service.systemd import Systemd
from tests.support.waiting import PATIENCE


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of who started us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        yield manager


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_what_is_said(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready("all is there")
    assert heard(manager) == ["READY=1", "STATUS=all is there"]
    with notifier.reloading(lambda: "read again"):
        word, since = heard(manager)
    assert word == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=") and since.partition("=")[2].isdigit()
    assert heard(manager) == ["READY=1", "STATUS=read again"]
    notifier.alive()
    assert heard(manager) == ["WATCHDOG=1"]
    notifier.stopping("so long")
    assert heard(manager) == ["STOPPING=1", "STATUS=so long"]


def test_a_status_is_one_line(manager: socket.socket) -> None:
    Notifier({"NOTIFY_SOCKET": manager.getsockname()}).status("bad\nREADY=1\r\nnews")
    assert heard(manager) == ["STATUS=bad READY=1 news"]


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0ingest-test-{os.getpid()}")
        manager.settimeout(PATIENCE)
        Notifier({"NOTIFY_SOCKET": f"@ingest-test-{os.getpid()}"}).alive()
        assert heard(manager) == ["WATCHDOG=1"]


def test_nobody_listens(tmp_path: Path) -> None:
    Notifier({}).ready("")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready("")


def test_who_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(queue + 3):
        notifier.alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog(environment: dict[str, str], seconds: float) -> None:
    assert Notifier(environment).watchdog == seconds


def test_a_start_is_told_though_nobody_can_say_how_things_are(manager: socket.socket) -> None:
    def fail() -> Summary:
        raise ZeroDivisionError

    class Reactor(Clock):
        def callWhenRunning(self, call: Callable[[], None]) -> None:
            call()

    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    systemd = Systemd(notifier, fail, lambda: ("ok", ""), Reactor())  # type: ignore[arg-type]
    systemd.startService()
    assert heard(manager)[0] == "READY=1"
    with systemd.reloading():
        assert heard(manager)[0] == "RELOADING=1"
    assert heard(manager)[0] == "READY=1"


@pytest.mark.parametrize(
    ("health", "is_fed"), [("ok", True), ("disk-failing", True), ("writer-failed", False)]
)
def test_the_watchdog_starves_where_only_a_restart_helps(
    manager: socket.socket, health: str, is_fed: bool
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"})
    systemd = Systemd(notifier, Clock, lambda: (health, ""), Clock())  # type: ignore[arg-type]
    systemd.feed_watchdog()
    notifier.status("end")
    assert heard(manager) == (["WATCHDOG=1"] if is_fed else ["STATUS=end"])
    assert [(chore.name, chore.every) for chore in systemd.chores()][1] == ("watchdog", 0.5)
