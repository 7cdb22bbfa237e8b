"""The poller does for sockets what Twisted's own reactor does; most tests run with each of them."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import cast

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from ingest.listener.poller import PATIENCE, IDescriptorReactor, Poller

TURNS = 2000
MUCH = b"x" * (8 << 20)  # more than the buffers of a connection's two sockets take


@implementer(IHalfCloseableProtocol)
class Server(Protocol):
    """Keeps what happens to a connection."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.lost: type[BaseException] | None = None
        self.on_data: Callable[[], object] = lambda: None
        self.on_loss: Callable[[], object] = lambda: None

    @property
    def socket(self) -> Connection:
        return cast(Connection, self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.on_data()

    def readConnectionLost(self) -> None:
        self.events.append("read side closed")

    def writeConnectionLost(self) -> None:
        self.events.append("write side closed")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.type
        self.on_loss()


class Servers(Factory):
    """Keeps what it makes."""

    noisy = False

    def __init__(self, made: list[Server]) -> None:
        self._made = made

    def buildProtocol(self, addr: IAddress | None) -> Server:
        self._made.append(Server())
        return self._made[-1]


class Net:
    """A reactor of its own, a port, and perhaps a poller."""

    def __init__(self, polls: bool) -> None:
        self.reactor = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)
        self.poller = Poller(cast(IDescriptorReactor, self.reactor)) if polls else None
        self.servers: list[Server] = []
        self.clients: list[socket.socket] = []
        self.port = self.reactor.listenTCP(0, Servers(self.servers), interface="127.0.0.1")

    def connect(self) -> tuple[Server, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.clients.append(client)
        count = len(self.clients)
        self.until(lambda: len(self.servers) == count and bool(self.servers[-1].connected))
        if self.poller is not None:
            self.poller.adopt(self.servers[-1].socket)
        return self.servers[-1], client

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(TURNS):
            if condition():
                return
            self.reactor.iterate(0.01)
        raise AssertionError("it does not come")

    def read_all(self, client: socket.socket, size: int) -> None:
        """Read so many bytes as a client; the server has its turns meanwhile."""
        client.setblocking(False)
        left = size
        for _ in range(TURNS):
            try:
                left -= len(client.recv(1 << 20))
            except BlockingIOError:
                self.reactor.iterate(0.01)
            if not left:
                return
        raise AssertionError(f"{left} bytes do not come")

    def close(self) -> None:
        for server in self.servers:
            server.on_loss = lambda: None
            if server.lost is None:
                server.socket.abortConnection()
        self.until(lambda: all(server.lost for server in self.servers))
        for client in self.clients:
            client.close()
        self.port.stopListening()
        self.reactor.iterate(0)
        if self.poller is not None:
            self.poller.close()
        assert not [each for each in self.reactor.getReaders() if isinstance(each, Connection)]
        assert not self.reactor.getWriters()


@pytest.fixture(params=["reactor", "poller"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    with closing(Net(request.param == "poller")) as net:
        yield net


@pytest.fixture
def polled() -> Iterator[Net]:
    with closing(Net(polls=True)) as net:
        yield net


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_bytes_come_and_go(net: Net) -> None:
    server, client = net.connect()
    client.sendall(b"a")
    net.until(lambda: server.received == b"a")
    server.socket.write(MUCH)
    net.read_all(client, len(MUCH))
    client.sendall(b"b")
    net.until(lambda: server.received == b"ab")


def test_reads_while_it_has_much_to_write(net: Net) -> None:
    server, client = net.connect()
    server.socket.write(MUCH)
    client.sendall(b"a")
    net.until(lambda: server.received == b"a")
    net.read_all(client, len(MUCH))


def test_the_device_closes_its_side(net: Net) -> None:
    server, client = net.connect()
    client.sendall(b"a")
    client.shutdown(socket.SHUT_WR)
    net.until(lambda: server.events == ["read side closed"])
    assert (server.received, server.lost) == (b"a", None)
    server.socket.write(b"answer")
    net.read_all(client, len(b"answer"))
    server.socket.loseConnection()
    net.until(lambda: server.lost is ConnectionDone)


def test_both_sides_are_closed(net: Net) -> None:
    server, client = net.connect()
    server.socket.loseWriteConnection()
    net.until(lambda: server.events == ["write side closed"])
    client.sendall(b"last")
    client.close()
    net.until(lambda: "read side closed" in server.events)
    assert server.received == b"last"
    server.socket.loseConnection()
    net.until(lambda: server.lost is not None)


@pytest.mark.parametrize("writing", [False, True])
def test_what_came_before_a_reset_is_read(net: Net, writing: bool) -> None:
    server, client = net.connect()
    if writing:
        server.socket.write(MUCH)
        net.reactor.iterate(0.01)
    client.sendall(b"a")
    reset(client)
    net.until(lambda: server.lost is ConnectionLost)
    assert server.received == b"a"


def test_a_reset_while_it_only_writes(net: Net) -> None:
    server, client = net.connect()
    server.socket.pauseProducing()
    server.socket.write(MUCH)
    net.reactor.iterate(0.01)
    reset(client)
    net.until(lambda: server.lost is ConnectionLost)


def test_paused_and_resumed(net: Net) -> None:
    server, client = net.connect()
    server.socket.pauseProducing()
    client.sendall(b"a")
    net.reactor.iterate(0.01)
    assert server.received == b""
    server.socket.resumeProducing()
    net.until(lambda: server.received == b"a")


def test_aborted(net: Net) -> None:
    server, _ = net.connect()
    server.socket.abortConnection()
    net.until(lambda: server.lost is ConnectionAborted)


@pytest.mark.parametrize("where", ["on_data", "on_loss"])
def test_one_that_fails_hurts_no_other(net: Net, where: str) -> None:
    def fail() -> None:
        raise RuntimeError("injected")

    (bad, bad_client), (good, good_client) = net.connect(), net.connect()
    setattr(bad, where, fail)
    bad_client.sendall(b"a")
    if where == "on_loss":
        reset(bad_client)
    net.until(lambda: bad.lost is not None)
    good_client.sendall(b"b")
    net.until(lambda: good.received == b"b")


def test_one_that_can_not_even_be_cut_hurts_no_other(
    polled: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("injected")

    (bad, bad_client), (good, good_client) = polled.connect(), polled.connect()
    with monkeypatch.context() as broken:
        broken.setattr(bad, "on_data", fail)
        broken.setattr(bad.socket, "abortConnection", fail)
        bad_client.sendall(b"a")
        polled.until(lambda: bool(bad.received))
    good_client.sendall(b"b")
    polled.until(lambda: good.received == b"b")


def test_one_closes_another_in_the_same_turn(net: Net) -> None:
    pairs = [net.connect(), net.connect()]
    for (one, _), (other, _) in (pairs, pairs[::-1]):
        one.on_data = other.socket.abortConnection
    for _, client in pairs:
        client.sendall(b"a")
    net.until(lambda: ConnectionAborted in [server.lost for server, _ in pairs])
    assert sorted(server.received for server, _ in pairs) == [b"", b"a"]


def test_one_pauses_another_in_the_same_turn(polled: Net) -> None:
    pairs = [polled.connect(), polled.connect()]
    for (one, _), (other, _) in (pairs, pairs[::-1]):
        one.on_data = other.socket.pauseProducing
    for _, client in pairs:
        client.sendall(b"a")
    polled.until(lambda: any(server.received for server, _ in pairs))
    polled.reactor.iterate(0.01)
    late = next(server for server, _ in pairs if not server.received)
    late.socket.resumeProducing()
    polled.until(lambda: late.received == b"a")


def test_what_it_had_to_write_goes_over_with_it(polled: Net) -> None:
    poller, polled.poller = polled.poller, None
    assert poller is not None
    server, client = polled.connect()
    server.socket.write(MUCH)
    polled.reactor.iterate(0.01)
    poller.adopt(server.socket)
    polled.poller = poller
    assert not polled.reactor.getWriters()
    polled.read_all(client, len(MUCH))


def test_many_leave_room_for_all_else(polled: Net) -> None:
    for _ in range(200):
        polled.connect()
    for client in polled.clients:
        client.sendall(b"a")
    heard: list[int] = []

    def look() -> None:
        heard.append(sum(bool(server.received) for server in polled.servers))
        polled.reactor.callLater(0, look)

    look()
    polled.until(lambda: heard[-1] == 200)
    assert any(0 < count < 200 for count in heard)


class TestWhileNothingIsRead:
    """Who goes while nothing is read is noticed, and who may only wait is given time."""

    def unread(self, net: Net) -> tuple[Server, socket.socket]:
        server, client = net.connect()
        server.socket.pauseProducing()
        assert net.poller is not None
        net.poller.watch_end(server.socket)
        net.reactor.iterate(0)
        assert server.lost is None
        return server, client

    def pass_patience(self, net: Net) -> None:
        """Let the calls that wait for `PATIENCE` seconds come now."""
        (call,) = (each for each in net.reactor.getDelayedCalls() if each.active())
        assert PATIENCE - 5 < call.getTime() - net.reactor.seconds() <= PATIENCE
        call.reset(0)
        net.reactor.iterate(0)
        net.reactor.iterate(0)

    def test_one_that_has_gone_is_lost(self, polled: Net) -> None:
        server, client = self.unread(polled)
        reset(client)
        polled.until(lambda: server.lost is ConnectionLost)

    def test_one_that_closes_its_side_is_given_time(self, polled: Net) -> None:
        server, client = self.unread(polled)
        client.shutdown(socket.SHUT_WR)
        polled.until(lambda: bool(polled.reactor.getDelayedCalls()))
        assert server.lost is None
        self.pass_patience(polled)
        assert server.lost is ConnectionAborted

    def test_one_that_closes_its_side_and_then_goes_is_lost(self, polled: Net) -> None:
        server, client = self.unread(polled)
        client.shutdown(socket.SHUT_WR)
        polled.until(lambda: bool(polled.reactor.getDelayedCalls()))
        reset(client)
        polled.until(lambda: server.lost is ConnectionLost)
        polled.reactor.getDelayedCalls()[0].cancel()

    def test_one_that_is_read_in_time_is_not_cut(self, polled: Net) -> None:
        server, client = self.unread(polled)
        client.sendall(b"a")
        client.shutdown(socket.SHUT_WR)
        polled.until(lambda: bool(polled.reactor.getDelayedCalls()))
        server.socket.resumeProducing()
        polled.until(lambda: server.events == ["read side closed"])
        self.pass_patience(polled)
        assert (server.received, server.lost) == (b"a", None)

    def test_one_may_be_written_to_meanwhile(self, polled: Net) -> None:
        server, client = self.unread(polled)
        client.shutdown(socket.SHUT_WR)
        server.socket.write(MUCH)
        polled.read_all(client, len(MUCH))
        assert server.lost is None
        (call,) = polled.reactor.getDelayedCalls()
        call.cancel()
