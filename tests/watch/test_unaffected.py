"""Whatever becomes of the page, the listener's books balance and devices are acknowledged."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ingest.client import Client
from tests.support.devices import TOKEN
from tests.support.listeners import Listener
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.pages import Page

DEVICES = [f"device-{number}" for number in range(4)]
BATCH = 100
BATCHES = 60


class Pusher(threading.Thread):
    """Pushes numbered readings, and goes on only when they are acknowledged."""

    def __init__(self, listener: Listener, name: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged = 0
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        self._address = address
        self._name = name

    def run(self) -> None:
        with Client(*self._address, self._name, TOKEN) as client:
            for batch in range(BATCHES):
                first = batch * BATCH + 1
                client.send_many(f"value={number}" for number in range(first, first + BATCH))
                client.wait()
                self.acknowledged += BATCH


@contextmanager
def frozen(page: Page) -> Iterator[None]:
    """Freeze the page while the block lasts."""
    os.kill(page.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(page.pid, signal.SIGCONT)


@contextmanager
def killed(page: Page) -> Iterator[None]:
    """Kill the page."""
    page.kill()
    yield


@contextmanager
def flooded(page: Page) -> Iterator[None]:
    """Ask the page for more than it can answer while the block lasts."""
    command = [sys.executable, "-m", "tests.watch.flood", page.url, DEVICES[0], "value"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flood:
        yield
        wait_for(lambda: page.get("status")["watcher"]["tails"] > 10, "the flood")
        said, _ = flood.communicate(timeout=PATIENCE)
    counts = json.loads(said)
    assert counts["tail"] and counts["status"], counts


@pytest.mark.parametrize("how", [frozen, killed, flooded])
def test_the_books_balance_and_all_is_acknowledged(
    tmp_path: Path, how: Callable[[Page], AbstractContextManager[None]]
) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add(*DEVICES)
        pushers = [Pusher(listener, name) for name in DEVICES]
        with Page(listener.data) as page:
            wait_for(lambda: page.get("status")["health"] == "ok", "the page")
            for pusher in pushers:
                pusher.start()
            wait_for(lambda: all(pusher.acknowledged for pusher in pushers), "the devices")
            with how(page):
                for pusher in pushers:
                    pusher.join(PATIENCE)
            assert [pusher.acknowledged for pusher in pushers] == [BATCH * BATCHES] * len(DEVICES)
        total = listener.status()["total"]
        every = BATCH * BATCHES * len(DEVICES)
        assert (total["received_frames"], total["written_frames"]) == (every, every)
        assert (total["waiting_frames"], total["refused_frames"]) == (0, {})
        assert listener.status()["errors"] == {}
        for name in DEVICES:
            expected = [f"value={number}" for number in range(1, BATCH * BATCHES + 1)]
            assert listener.frames(name) == expected
        listener.ingest("verify")


def test_who_never_reads_a_tail_takes_no_memory(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener, Page(listener.data) as page:
        listener.add("a")
        host, _, port = page.url.removeprefix("http://").rstrip("/").partition(":")
        tails = []
        for _ in range(20):
            tail = socket.create_connection((host, int(port)), PATIENCE)
            tail.sendall(f"GET /api/tail HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            tails.append(tail)
        wait_for(lambda: page.get("status")["watcher"]["tails"] == len(tails), "the tails")
        before = page.resident
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        with Client(*address, "a", TOKEN) as client:
            for _ in range(30):
                client.send_many(["x" * 1000] * 1000)
            client.wait()
        wait_for(lambda: page.device("a")["next"] == 30_001, "the page to follow")
        assert page.resident - before < 100 << 20, "that of 20 times 30 MB"
        for tail in tails:
            tail.close()
        wait_for(lambda: page.get("status")["watcher"]["tails"] == 0, "their end")
