"""What systemd hears of the page, over a real socket."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listeners import Listener
from tests.support.waiting import PATIENCE
from tests.watch.pages import Page

RULE = '[[rule]]\nname = "hot"\nwhen = "temp > 30"\n'


class Manager:
    """Who started the page, and hears what it says."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        self.environment = (f"NOTIFY_SOCKET={path}", "WATCHDOG_USEC=100000")

    def hear(self, pattern: str) -> list[str]:
        """Wait for a message whose lines match a pattern; return the lines."""
        while True:
            message = self._socket.recv(4096).decode()
            if re.fullmatch(pattern, message):
                return message.split("\n")

    def hears_nothing(self, seconds: float) -> bool:
        """Tell whether nothing more comes for so long, once all is heard that has come."""
        self._socket.settimeout(seconds)
        try:
            self.hear("never")
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_systemd_hears_of_the_page(tmp_path: Path, manager: Manager) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULE)
    data = tmp_path / "data"
    with (
        Listener(data) as listener,
        Page(
            data, "--rules", rules, under=("env", *manager.environment),
            pauses={"ingest.watch.systemd._SHOW": 0.1, "ingest.watch.repeated._REGISTRY": 0.1},
        ) as page,
    ):  # fmt: skip
        manager.hear(r"READY=1\nSTATUS=.+; \d+ devices?")
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        listener.add("sensor-1")
        manager.hear("STATUS=ok; 1 device")
        os.kill(page.pid, signal.SIGHUP)
        manager.hear(r"RELOADING=1\nMONOTONIC_USEC=\d+")
        manager.hear(r"READY=1\nSTATUS=ok; 1 device")
        listener.stop()
        manager.hear("STATUS=down: no listener answers .+; 1 device")
        page.stop()
        manager.hear(r"STOPPING=1\nSTATUS=stopping: .+")


def test_a_page_that_is_stuck_feeds_no_watchdog(tmp_path: Path, manager: Manager) -> None:
    with Page(tmp_path / "data", under=("env", *manager.environment)) as page:
        manager.hear("WATCHDOG=1")
        os.kill(page.pid, signal.SIGSTOP)
        try:
            assert manager.hears_nothing(1.0), "ten times what the watchdog gives it"
        finally:
            os.kill(page.pid, signal.SIGCONT)
        manager.hear("WATCHDOG=1")
