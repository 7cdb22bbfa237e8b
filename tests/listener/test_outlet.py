"""What goes out: in order, and of what can't go now only the newest acknowledgement."""

import errno
from collections.abc import Callable
from typing import cast

import pytest
from twisted.internet import tcp
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from ingest.listener.outlet import BufferedOutlet, DeviceTransport, SocketOutlet, outlet_for
from tests.listener.parts import Acknowledger, Transport


class Socket:
    """As much of a `tcp.Connection` as an outlet needs, over a socket that takes `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""
        self.is_closed = False
        self.is_lost = False
        self.producer: SocketOutlet | None = None
        self._buffer = b""

    @property
    def socket(self) -> "Socket":
        return self

    def send(self, data: bytes) -> int:
        assert not self._buffer, "bytes would overtake those in the buffer"
        if self.is_lost:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        taken = data[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def write(self, data: bytes) -> None:
        self._buffer += data

    def registerProducer(self, producer: SocketOutlet, streaming: bool) -> None:
        assert self.producer is None and not streaming
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseWriteConnection(self) -> None:
        assert not self._buffer
        self.is_closed = True

    def make_room(self, room: int) -> None:
        """Let the device read; as `doWrite`, ask the producer once all has gone."""
        self.room = room
        buffer, self._buffer = self._buffer, b""
        sent = self.send(buffer)
        self._buffer = buffer[sent:]
        if not self._buffer and self.producer is not None:
            self.producer.resumeProducing()


def over(socket: Socket) -> SocketOutlet:
    return SocketOutlet(cast(tcp.Connection, socket), Acknowledger())


class TestSocketOutlet:
    def test_it_sends_at_once(self) -> None:
        socket = Socket(100)
        outlet = over(socket)
        outlet.send(b"OK\n")
        outlet.acknowledge(1)
        outlet.acknowledge(2)
        assert socket.taken == b"OK\nACK 1\nACK 2\n"
        assert socket.producer is None

    @pytest.mark.parametrize("room", range(6))
    def test_of_what_a_full_socket_does_not_take_the_newest_waits(self, room: int) -> None:
        socket = Socket(room)
        outlet = over(socket)
        for seq in range(1, 100):
            outlet.acknowledge(seq)
        assert socket.taken == b"ACK 1\n"[:room]
        socket.make_room(1000)
        assert socket.taken == b"ACK 1\nACK 99\n"
        assert socket.producer is None

    def test_replies_stay_behind_an_acknowledgement_that_waits(self) -> None:
        socket = Socket(0)
        outlet = over(socket)
        outlet.send(b"OK\n")
        outlet.acknowledge(1)
        outlet.acknowledge(2)
        outlet.send(b"ERR revoked x\n")
        outlet.finish()
        assert not socket.is_closed
        socket.make_room(1000)
        assert socket.taken == b"OK\nACK 2\nERR revoked x\n"
        assert socket.is_closed

    def test_it_closes_when_all_has_gone_bit_by_bit(self) -> None:
        socket = Socket(0)
        outlet = over(socket)
        outlet.send(b"0123456789")
        outlet.acknowledge(1)
        outlet.finish()
        for _ in range(16):
            assert not socket.is_closed
            socket.make_room(1)
        assert socket.taken == b"0123456789ACK 1\n"
        assert socket.is_closed

    def test_it_closes_at_once_where_nothing_waits(self) -> None:
        socket = Socket(100)
        over(socket).finish()
        assert socket.is_closed

    def test_a_lost_connection_is_left_to_the_reactor(self) -> None:
        socket = Socket(100)
        socket.is_lost = True
        outlet = over(socket)
        outlet.send(b"OK\n")
        outlet.acknowledge(1)
        outlet.stopProducing()
        assert (socket.taken, outlet.broken) == (b"", True)

    def test_what_is_acknowledged_is_asked_when_there_is_room(self) -> None:
        device = Acknowledger(silent_at=5)
        socket = Socket(0)
        outlet = SocketOutlet(cast(tcp.Connection, socket), device)
        outlet.send(b"OK\n")
        outlet.acknowledge(3)
        outlet.acknowledge(4)
        socket.make_room(1000)
        outlet.acknowledge(5)
        assert (device.asked, socket.taken) == ([4, 5], b"OK\nACK 4\n")


class TestBufferedOutlet:
    def test_it_sends_through_the_buffer(self) -> None:
        transport = Transport()
        outlet = BufferedOutlet(cast(DeviceTransport, transport), Acknowledger())
        outlet.send(b"OK\n")
        outlet.acknowledge(1)
        assert transport.read() == b"OK\nACK 1\n"

    def test_one_acknowledgement_waits_while_the_buffer_is_full(self) -> None:
        transport = Transport()
        outlet = BufferedOutlet(cast(DeviceTransport, transport), Acknowledger())
        outlet.pauseProducing()
        outlet.acknowledge(1)
        outlet.acknowledge(2)
        assert transport.read() == b""
        outlet.resumeProducing()
        assert transport.read() == b"ACK 2\n"
        outlet.resumeProducing()
        assert transport.read() == b""

    def test_replies_stay_behind_an_acknowledgement_that_waits(self) -> None:
        transport = Transport()
        outlet = BufferedOutlet(cast(DeviceTransport, transport), Acknowledger())
        outlet.pauseProducing()
        outlet.acknowledge(1)
        outlet.send(b"ERR revoked x\n")
        outlet.resumeProducing()
        assert transport.read() == b"ACK 1\nERR revoked x\n"

    def test_it_closes_our_side(self) -> None:
        transport = Transport()
        BufferedOutlet(cast(DeviceTransport, transport), Acknowledger()).finish()
        assert transport.is_closed and not transport.disconnecting
        assert transport.producer is None

    @pytest.mark.parametrize("finish", [BufferedOutlet.finish, BufferedOutlet.close])
    def test_it_closes_both_sides_of_tls(self, finish: Callable[[BufferedOutlet], None]) -> None:
        """TLS says its good-bye when the producer has left, and not before."""
        transport = Transport()
        directlyProvides(transport, ISSLTransport)
        finish(BufferedOutlet(cast(DeviceTransport, transport), Acknowledger()))
        assert transport.disconnecting and not transport.is_closed
        assert transport.producer is None


def test_which_outlet_a_transport_gets() -> None:
    assert isinstance(
        outlet_for(cast(DeviceTransport, Transport()), Acknowledger()), BufferedOutlet
    )
