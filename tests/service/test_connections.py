"""The connections as a service: it stops, whatever goes wrong meanwhile."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.task import Clock

from ingest.journal.memory import MemoryJournal
from ingest.layout import Layout
from ingest.listener.admission import Admission, Limits
from ingest.listener.connection import Connection
from ingest.listener.factory import ConnectionFactory
from ingest.listener.phases import Phase
from ingest.service.parts import DRAIN, Connections, Devices, Records
from ingest.wire.ingest1.session import make_converse
from ingest.wire.options import Options
from tests.listener.parts import LOOPBACK, Listener, Transport, lose


class Reactor(Clock):
    """Has no sockets to watch."""

    def addReader(self, reader: object) -> None: ...

    def removeReader(self, reader: object) -> None: ...


class Broken(Exception):  # noqa: N818 - it is no error of anything
    """What is injected."""


def fail(*_: object) -> None:
    raise Broken


class Stopping:
    """Connections of which one is there when they are told to stop.

    Attributes:
        service: the service.
        connection: the one that is there.
        transport: its transport.
        seen: how often it was told who was seen.
        stopped: what the stop has brought.
    """

    def __init__(self, parts: Listener, folder: Path) -> None:
        self.reactor = Reactor()
        self.seen: list[object] = []
        devices = SimpleNamespace(
            registry=parts.registry,
            authenticator=parts.authenticator,
            record_seen=self.seen.append,
        )
        self.service = Connections(
            Layout(folder),
            cast(Devices, devices),
            cast(Records, SimpleNamespace(journal=MemoryJournal())),
            Admission(Limits()),
            cast(Any, self.reactor),
        )
        self.service.startService()
        fleet = self.service.fleet
        fleet.now = self.reactor.seconds
        factory = ConnectionFactory(fleet, "ingest/1", make_converse(Options()))
        self.connection = cast(Connection, factory.buildProtocol(LOOPBACK))
        self.transport = Transport(peerAddress=LOOPBACK)
        self.connection.makeConnection(self.transport)
        self.stopped: list[object] = []

    def stop(self) -> None:
        self.service.stopService().addBoth(self.stopped.append)

    def wait(self, seconds: float) -> None:
        """Let time pass; a connection that is cut is lost at once."""
        for _ in range(int(2 * seconds)):
            self.reactor.advance(0.5)
            if self.transport.disconnected and self.connection.phase is not Phase.LOST:
                lose(self.connection)


@pytest.fixture
def stopping(tmp_path: Path) -> Iterator[Stopping]:
    parts = Listener()
    yield Stopping(parts, tmp_path)
    parts.close()


def _look_fails(stopping: Stopping) -> tuple[object, str]:
    return stopping.service.fleet.books, "close_durable"


def _count_fails(stopping: Stopping) -> tuple[object, str]:
    return stopping.service.fleet.admission, "count"


@pytest.mark.parametrize("broken", [_look_fails, _count_fails])
def test_who_does_not_close_is_cut_whatever_else_fails(
    broken: Callable[[Stopping], tuple[object, str]],
    stopping: Stopping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*broken(stopping), fail)
    stopping.stop()
    assert not stopping.stopped
    stopping.wait(5)
    assert stopping.stopped == [None]
    assert len(stopping.seen) == 1
    assert not stopping.reactor.getDelayedCalls()


def test_one_that_is_never_lost_is_not_waited_for(stopping: Stopping) -> None:
    stopping.stop()
    stopping.reactor.pump([0.5] * int(2 * DRAIN))
    assert stopping.transport.disconnected
    assert not stopping.stopped
    stopping.reactor.pump([0.5] * 2)
    (failure,) = stopping.stopped
    assert cast(Any, failure).type is LateError
    assert len(stopping.seen) == 1
