"""When devices that only answer are called, by a clock that a test turns."""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from ingest.listener.dialer import Dial, Dialer
from ingest.wire.poll import Ending, Question
from tests.listener.parts import LOOPBACK, Listener, Transport
from tests.support.waiting import wait_for

EVERY = 10.0
FIRST = {"early": 1.0, "late": 4.0}
"""Seconds after the start at which each device is called first."""


class Devices:
    """Devices that are dialled, and answer at once."""

    def __init__(self, parts: Listener, every: float = EVERY) -> None:
        self._parts = parts
        self._reactor = MemoryReactorClock()
        self._reactor.advance(parts.clock.seconds())
        parts.add(*FIRST)
        Dialer(parts.fleet, self._reactor).dial(
            [
                Dial(f"tcp:{name}:1", Question(name, b"?", Ending(until=b"\n"), 5.0), every)
                for name in FIRST
            ]
        )

    def called_after(self, seconds: float) -> list[str]:
        """Return which are called when so many more seconds are over."""
        self._parts.clock.advance(seconds)
        self._reactor.advance(seconds)
        calls, self._reactor.tcpClients[:] = list(self._reactor.tcpClients), []
        for _, _, factory, *_ in calls:
            protocol = factory.buildProtocol(LOOPBACK)
            assert protocol is not None
            protocol.makeConnection(Transport())
            protocol.dataReceived(b"20.5\n")
            self._parts.journal.commit()
            protocol.connectionLost(Failure(ConnectionDone()))
        return [host for host, *_ in calls]


@pytest.fixture
def devices(parts: Listener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    firsts = iter(FIRST.values())
    monkeypatch.setattr("random.uniform", lambda low, high: next(firsts))
    yield Devices(parts)
    assert next(firsts, None) is None, "a device was called in another way"


def test_devices_are_called_in_time(devices: Devices) -> None:
    calls = [devices.called_after(1.0) for _ in range(15)]
    assert [at for at, called in enumerate(calls, 1) if called == ["early"]] == [1, 11]
    assert [at for at, called in enumerate(calls, 1) if called == ["late"]] == [4, 14]


def test_devices_that_were_called_at_once_are_spread_again(devices: Devices) -> None:
    """After a stop of the process, say, all are due; they must not stay in step from then on."""
    for seconds in (1.0, 3.0):
        assert len(devices.called_after(seconds)) == 1
    assert sorted(devices.called_after(21.0)) == ["early", "late"]
    assert [devices.called_after(1.0) for _ in range(9)] == [*[[]] * 5, ["early"], [], [], ["late"]]


def test_calls_that_are_due_soon_after_each_other_are_made_together(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts = iter([1.01, 1.05])
    monkeypatch.setattr("random.uniform", lambda low, high: next(firsts))
    devices = Devices(parts)
    for pause in (1.055, EVERY - 0.01, EVERY - 0.01):  # they do not come later each time
        assert devices.called_after(pause) == []
        assert sorted(devices.called_after(0.01)) == ["early", "late"]


def test_a_device_that_is_called_often_is_called_on_time(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    devices = Devices(parts, every=0.01)
    devices.called_after(0.0)
    assert [len(devices.called_after(0.01)) for _ in range(10)] == [2] * 10


@pytest.mark.parametrize(
    ("ending", "timeout"), [(Ending(silence=0.2), 1.0), (Ending(until=b"\n"), 0.2)]
)
def test_what_has_arrived_in_time_counts_though_it_is_read_late(
    parts: Listener, ending: Ending, timeout: float
) -> None:
    """After a turn that took long, times that are over come before what is to be read."""
    parts.add("a")
    reactor: Any = EPollReactor()
    reactor.startRunning(installSignalHandlers=False)

    def until(condition: Callable[[], bool]) -> None:
        def holds() -> bool:
            reactor.iterate(0.001)
            return condition()

        wait_for(holds)

    with socket.create_server(("127.0.0.1", 0)) as server:
        dialer = Dialer(parts.fleet, reactor)
        port = server.getsockname()[1]
        dialer.dial([Dial(f"tcp:127.0.0.1:{port}", Question("a", b"?", ending, timeout), 60.0)])
        until(lambda: len(parts.fleet) == 1)
        with server.accept()[0] as device:
            device.sendall(b"20")
            until(lambda: parts.fleet.totals()["dial"].received_bytes == 2)
            device.sendall(b".5\n")
            parts.clock.advance(0.25)  # before the reactor reads
            until(lambda: parts.fleet.totals()["dial"].received_bytes == 5)
            parts.clock.advance(0.25)
        parts.journal.commit()
        until(lambda: len(parts.fleet) == 0)
    assert [json.loads(line)["text"] for line in parts.journal.lines] == ["20.5"]
    assert dialer.counts().failures == 0
    dialer.stop()


@pytest.mark.parametrize(
    ("connect", "host", "seconds"),
    [
        ("tcp:192.0.2.1:7000", "192.0.2.1", 61),
        ("tcp:[2001:db8::1]:7000", "2001:db8::1", 61),
        ("tcp:host=[fe80::1%eth0]:port=7000", "fe80::1%eth0", 61),
        (r"tcp:2001\:db8\:\:1:7000", "2001:db8::1", 61),
        ("tcp:192.0.2.1:7000:timeout=7", "192.0.2.1", 7),
    ],
)
def test_where_a_device_is(parts: Listener, connect: str, host: str, seconds: int) -> None:
    """The endpoint gives up after the line, if it is not told when: by itself it has 30 s."""
    parts.add("a")
    reactor: Any = MemoryReactorClock()
    dialer = Dialer(parts.fleet, reactor)
    dialer.dial([Dial(connect, Question("a", b"?", Ending(length=1), 59.5), 30.0)])
    reactor.advance(1.0)
    assert [(*client[:2], client[3]) for client in reactor.tcpClients] == [(host, 7000, seconds)]
    dialer.stop()


def test_a_look_up_that_fails_in_any_way_is_made_again(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_once(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("injected")

    parts.add("a")
    reactor: Any = MemoryReactorClock()
    dialer = Dialer(parts.fleet, reactor)
    monkeypatch.setattr(parts.fleet.identities, "check_claim", fail_once)
    dialer.dial([Dial("tcp:192.0.2.1:7000", Question("a", b"?", Ending(length=1), 5.0), 30.0)])
    reactor.advance(1.0)
    assert (dialer.counts().calls, reactor.tcpClients) == (0, [])
    reactor.advance(30.0)
    assert dialer.counts().calls == len(reactor.tcpClients) == 1
    dialer.stop()
