"""A port that can't accept a connection: it rests, says so once, and goes on."""

import errno
import socket
from typing import Any, cast

import pytest
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from ingest.ops.accepting import REST, RestingPort


class _Socket:
    """A listening socket whose next answers are known."""

    def __init__(self) -> None:
        self.error = 0

    def accept(self) -> tuple[str, str]:
        if self.error:
            raise OSError(self.error, "no room")
        return "connection", "address"

    def fileno(self) -> int:
        return 7


class _Port:
    def __init__(self) -> None:
        self.socket = _Socket()
        self.reads = True

    def stopReading(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        self.reads = True


class _Made:
    def __init__(self) -> None:
        self.clock = Clock()
        self.port = _Port()
        self.socket = self.port.socket
        self.resting = RestingPort(cast(IListeningPort, self.port), self.clock, self.clock.seconds)

    def accept(self, error: int = 0) -> Any:
        self.socket.error = error
        return cast(Any, self.port.socket).accept()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_it_rests_and_says_so_once(error: int) -> None:
    made = _Made()
    with capturedLogs() as events:
        for _ in range(5):
            with pytest.raises(BlockingIOError):
                made.accept(error)
            assert not made.port.reads
            made.clock.advance(REST)
            assert made.port.reads
        assert made.accept() == ("connection", "address")
        made.accept()
        with pytest.raises(BlockingIOError):
            made.accept(error)
    assert [formatEvent(event) for event in events] == [
        "no connection can be accepted: no room; those that come wait, and it is tried again"
        " each second",
        "connections can be accepted again",
    ]


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EPERM, errno.ECONNABORTED])
def test_what_is_said_of_one_connection_stops_nothing(error: int) -> None:
    made = _Made()
    with pytest.raises(OSError, match="no room"):
        made.accept(error)
    assert made.port.reads


def test_a_port_that_was_told_to_pause_stays_so() -> None:
    made = _Made()
    with pytest.raises(BlockingIOError):
        made.accept(errno.ENFILE)
    made.resting.pauseProducing()
    made.clock.advance(REST)
    assert not made.port.reads
    made.resting.resumeProducing()
    assert made.port.reads


def test_a_port_that_rests_is_not_woken() -> None:
    made = _Made()
    with pytest.raises(BlockingIOError):
        made.accept(errno.ENFILE)
    made.resting.resumeProducing()
    assert not made.port.reads


def test_it_is_its_socket_for_all_else() -> None:
    made = _Made()
    assert cast(socket.socket, made.port.socket).fileno() == 7
