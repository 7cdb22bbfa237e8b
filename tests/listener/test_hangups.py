"""Who goes while nothing is read is noticed, as long as nothing is read."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import cast

import pytest
from twisted.internet.task import Clock

from ingest.listener.hangups import PATIENCE, Hangups
from ingest.listener.poller import IDescriptorReactor


class Reactor(Clock):
    """Watches no descriptor: tests call `doRead` themselves."""

    def addReader(self, reader: object) -> None:
        pass

    def removeReader(self, reader: object) -> None:
        pass


class Connection:
    """A connection of which nothing is read."""

    def __init__(self) -> None:
        self.socket, self.device = socket.socketpair()
        self.is_reading = False
        self.is_cut = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def abort(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.socket.close()
        self.device.close()


@pytest.fixture
def clock() -> Reactor:
    return Reactor()


@pytest.fixture
def hangups(clock: Reactor) -> Iterator[Hangups]:
    with closing(Hangups(cast(IDescriptorReactor, clock))) as hangups:
        yield hangups


@pytest.fixture
def connection() -> Iterator[Connection]:
    with closing(Connection()) as connection:
        yield connection


def test_one_that_has_gone_is_cut(hangups: Hangups, connection: Connection) -> None:
    hangups.watch(connection)
    hangups.doRead()
    assert not connection.is_cut
    connection.device.close()
    hangups.doRead()
    assert connection.is_cut


def test_one_that_closes_its_side_may_wait(
    hangups: Hangups, connection: Connection, clock: Reactor
) -> None:
    hangups.watch(connection)
    connection.device.shutdown(socket.SHUT_WR)
    hangups.doRead()
    clock.advance(PATIENCE - 1)
    assert not connection.is_cut
    clock.advance(1)
    assert connection.is_cut


def test_one_that_is_read_again_is_watched_no_longer(
    hangups: Hangups, connection: Connection
) -> None:
    hangups.watch(connection)
    hangups.unwatch_read()
    connection.is_reading = True
    hangups.unwatch_read()
    connection.device.close()
    connection.is_reading = False
    hangups.doRead()
    assert not connection.is_cut
    hangups.watch(connection)
    hangups.doRead()
    assert connection.is_cut


def test_one_that_still_waits_stays_watched(hangups: Hangups, connection: Connection) -> None:
    hangups.watch(connection)
    hangups.unwatch_read()
    connection.device.close()
    hangups.doRead()
    assert connection.is_cut
