"""What becomes of the line to a device that only answers."""

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from ingest.listener.dialer import Dial, Dialer
from ingest.wire.poll import Ending, Question
from tests.listener.parts import Listener


@pytest.fixture
def parts() -> Iterator[Listener]:
    parts = Listener()
    yield parts
    parts.close()


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
