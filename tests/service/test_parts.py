"""The small services of which the listener is made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ingest.layout import Layout
from ingest.ops.monotonic import use_monotonic_time
from ingest.service.hangup import Hangup
from ingest.service.housekeeping import Chore, Housekeeping
from ingest.service.inorder import InOrder
from ingest.service.process import FolderLock, StartError
from ingest.service.reload import changes
from ingest.service.settings import Listen, Settings
from tests.support.waiting import PATIENCE


class Noted(Service):
    """Notes when it starts and stops; stops when it is let."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.title = name
        self.notes = notes
        self.stopped: Deferred[None] = Deferred()

    def startService(self) -> None:
        super().startService()
        self.notes.append(f"start {self.title}")

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.notes.append(f"stop {self.title}")
        return self.stopped


class TestInOrder:
    def test_services_start_in_order_and_stop_in_the_reverse_one_by_one(self) -> None:
        notes: list[str] = []
        services = [Noted(name, notes) for name in "abc"]
        parent = InOrder()
        for service in services:
            service.setServiceParent(parent)
        parent.startService()
        done: list[object] = []
        parent.stopService().addCallback(done.append)
        assert notes == ["start a", "start b", "start c", "stop c"]
        services[2].stopped.callback(None)
        services[1].stopped.errback(ValueError("b does not stop well"))
        assert notes[4:] == ["stop b", "stop a"]
        assert not done
        services[0].stopped.callback(None)
        assert done == [None]

    def test_what_never_started_is_not_stopped(self) -> None:
        notes: list[str] = []
        parent = InOrder()
        first, second = Noted("a", notes), Noted("b", notes)
        first.setServiceParent(parent)
        second.setServiceParent(parent)
        first.startService()
        parent.stopService()
        assert notes == ["start a", "stop a"]


class TestHousekeeping:
    def test_each_chore_has_its_own_pace(self) -> None:
        clock, done = Clock(), []
        service = Housekeeping(
            clock,
            [
                Chore("often", 1.0, lambda: done.append("often")),
                Chore("rarely", 3.0, lambda: done.append("rarely")),
            ],
        )
        service.startService()
        clock.pump([1.0] * 6)
        assert (done.count("often"), done.count("rarely")) == (6, 2)
        service.stopService()
        clock.advance(10)
        assert len(done) == 8

    def test_a_chore_that_fails_is_tried_again(self) -> None:
        clock, calls = Clock(), []

        def fail_once() -> None:
            calls.append(clock.seconds())
            if len(calls) == 1:
                raise ValueError("once")

        service = Housekeeping(clock, [Chore("clumsy", 1.0, fail_once)])
        service.startService()
        clock.pump([0.5] * 12)
        assert calls[:3] == [1.0, 3.0, 4.0]

    def test_a_chore_is_not_begun_again_before_it_has_ended(self) -> None:
        clock, calls = Clock(), []
        slow: Deferred[None] = Deferred()

        def task() -> Deferred[None]:
            calls.append(clock.seconds())
            return slow

        service = Housekeeping(clock, [Chore("slow", 1.0, task)])
        service.startService()
        clock.pump([1.0] * 5)
        assert calls == [1.0]


class TestProcess:
    def test_a_reactor_on_a_clock_that_nobody_sets(self) -> None:
        clock: Any = Clock()
        clock.rightNow = time.time()
        called: list[str] = []
        waiting = clock.callLater(5.0, called.append, "early")
        use_monotonic_time(clock)
        assert abs(clock.seconds() - time.monotonic()) < 1.0
        assert 4.0 < waiting.getTime() - time.monotonic() <= 5.1

    def test_one_listener_for_a_folder(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        layout.create()
        lock = FolderLock(layout)
        with pytest.raises(StartError, match="in use by another listener"):
            FolderLock(layout)
        lock.release()
        FolderLock(layout).release()


def test_what_a_reload_says() -> None:
    old = Settings()
    new = Settings(listen=(Listen("tcp:1"),), rotate_size=1 << 30, keep_days=7, durability="os")
    assert list(changes(old, new)) == [
        "listen: tcp:7650 becomes tcp:1 after a restart",
        "rotate-size: 256.0 MiB becomes 1.0 GiB from now on",
        "keep-days: 0 becomes 7 from now on",
        "durability: fsync becomes os after a restart",
    ]
    assert new.with_those_of_the_start(old).listen == old.listen
    assert new.with_those_of_the_start(old).keep_days == 7


class TestHangup:
    @pytest.fixture
    def hangup(self) -> Any:
        before = signal.getsignal(signal.SIGHUP)
        hangup = Hangup()
        hangup.install()
        yield hangup
        signal.signal(signal.SIGHUP, before)

    def test_one_that_comes_early_is_acted_on_later(self, hangup: Hangup) -> None:
        acts: list[str] = []
        os.kill(os.getpid(), signal.SIGHUP)
        hangup.act(lambda: acts.append("now"))
        assert acts == ["now"]
        os.kill(os.getpid(), signal.SIGHUP)
        assert acts == ["now", "now"]

    def test_after_the_end_it_is_harmless(self, hangup: Hangup) -> None:
        hangup.act(None)
        os.kill(os.getpid(), signal.SIGHUP)


_STOP_TWICE = """
import os, signal, sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from ingest.service.hangup import HANGUP
from ingest.service.signals import Signals
HANGUP.install()
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
hurried = []
def hurry():
    hurried.append(1)
    if len(hurried) == 1:
        done.callback(None)
signals = Signals(reactor, lambda: print("reload"), hurry)
from twisted.internet.defer import Deferred
done = Deferred()
reactor.addSystemEventTrigger("before", "shutdown", lambda: done)
signals.startService()
def send():
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)
    reactor.callLater(0.1, stop)
def stop():
    for _ in range(3):
        os.kill(os.getpid(), signal.{signal})
reactor.callLater(0.1, send)
reactor.run()
print("hurried", len(hurried) >= 1)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_stopping_signals_in_a_row(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STOP_TWICE.replace("{signal}", name)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == -getattr(signal, name) or "hurried True" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("reload") == 1
    assert f"{name} again" in done.stdout
