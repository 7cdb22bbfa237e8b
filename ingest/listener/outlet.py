"""What goes out to a device: replies in order, and of the acknowledgements only the newest.

A device that does not read costs a constant: while its connection takes nothing, the newest number
is held, and when there is room the conversation is asked what to say of it.
"""

import errno
from typing import Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer, ISSLTransport
from zope.interface import implementer

_FULL = frozenset({errno.EWOULDBLOCK, errno.ENOBUFS})
"""What the system says of a socket that takes nothing for now."""


class Acknowledging(Protocol):
    """Who says what an acknowledgement looks like."""

    def acknowledgement(self, seq: int) -> bytes:
        """Write the acknowledgement of all frames up to `seq`; empty where none is to be sent."""


class Outlet(Protocol):
    """One connection's way out.

    Attributes:
        broken: whether something could not be sent. Then the connection is broken, even if its
            other direction is going to look as if the device had closed it cleanly: the system
            reports a reset once, and to whom it was reported it belongs.
    """

    broken: bool

    def send(self, data: bytes) -> None:
        """Send a reply, after all that was sent before."""

    def acknowledge(self, seq: int) -> None:
        """Acknowledge all frames up to `seq`, now or when there is room."""

    def finish(self) -> None:
        """Close our side once all has gone; where the transport can't do that, all of it."""

    def close(self) -> None:
        """Close both sides once all has gone."""


class DeviceTransport(Protocol):
    """What a connection needs of its transport, be it a socket, a Unix socket or TLS."""

    def write(self, data: bytes) -> None:
        """See `ITransport`."""

    def getPeer(self) -> IAddress:
        """See `ITransport`."""

    def loseConnection(self) -> None:
        """See `ITransport`."""

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`; not with TLS."""

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See `IConsumer`."""

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""


def outlet_for(transport: DeviceTransport, connection: Acknowledging) -> Outlet:
    """Make the way out over a transport: the short one for a plain socket."""
    if isinstance(transport, tcp.Connection):
        return SocketOutlet(transport, connection)
    return BufferedOutlet(transport, connection)


@implementer(IPullProducer)
class SocketOutlet:
    """Hands bytes to the socket at once.

    `transport.write` would wait for the next turn of the reactor and watch the socket for it: two
    `epoll_ctl` and a `send`, where mostly one `send` does. What a full socket does not take goes
    the usual way, and then this is the transport's producer, so as to hear when it has gone.
    """

    __slots__ = (
        "_connection",
        "_finishing",
        "_full",
        "_held",
        "_registered",
        "_transport",
        "broken",
    )

    def __init__(self, transport: tcp.Connection, connection: Acknowledging) -> None:
        self._transport = transport
        self._connection = connection
        self._full = False
        self._registered = False
        self._finishing = False
        self._held = 0
        self.broken = False

    def send(self, data: bytes) -> None:
        """See `Outlet.send`."""
        if self._full:
            self._transport.write(self._take_held() + data)
            return
        sent = self._send(data)
        if sent == len(data):
            return
        # If it is broken, the transport is told all the same, and finds out when it next writes.
        self._transport.write(data[sent:])
        self._full = True
        self._transport.registerProducer(self, False)

    def _send(self, data: bytes) -> int:
        # As `Connection.writeSomeData` does, whose three calls cost as much as the rest of an ACK.
        try:
            sent: int = self._transport.socket.send(data)
        except OSError as error:
            self.broken = error.errno not in _FULL
            return 0
        return sent

    def acknowledge(self, seq: int) -> None:
        """See `Outlet.acknowledge`."""
        if self._full:
            self._held = seq
        elif data := self._connection.acknowledgement(seq):
            self.send(data)

    def finish(self) -> None:
        """See `Outlet.finish`."""
        if self._full:
            self._finishing = True
        else:
            self._transport.loseWriteConnection()

    def close(self) -> None:
        """See `Outlet.close`."""
        self._transport.loseConnection()

    def resumeProducing(self) -> None:
        """Called when the transport has nothing left; at first only because we registered."""
        if not self._registered:
            self._registered = True
            return
        self._full = self._registered = False
        self._transport.unregisterProducer()
        if data := self._take_held():
            self.send(data)
        if self._finishing:
            self.finish()

    def stopProducing(self) -> None:
        """Called when the connection is lost."""
        self._held = 0

    def _take_held(self) -> bytes:
        held, self._held = self._held, 0
        return self._connection.acknowledgement(held) if held else b""


@implementer(IPushProducer)
class BufferedOutlet:
    """Goes through the transport's buffer, as TLS must; holds back while that is full.

    What can't be sent is the transport's to tell, which then loses the connection.
    """

    __slots__ = ("_connection", "_full", "_held", "_transport", "broken")

    def __init__(self, transport: DeviceTransport, connection: Acknowledging) -> None:
        self._transport = transport
        self._connection = connection
        self._full = False
        self._held = 0
        self.broken = False
        transport.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        """See `Outlet.send`."""
        self._transport.write(self._take_held() + data)

    def acknowledge(self, seq: int) -> None:
        """See `Outlet.acknowledge`."""
        if self._full:
            self._held = seq
        elif data := self._connection.acknowledgement(seq):
            self._transport.write(data)

    def finish(self) -> None:
        """See `Outlet.finish`; TLS has no half-closed connection."""
        if ISSLTransport.providedBy(self._transport):
            self.close()
        else:
            self._transport.unregisterProducer()
            self._transport.loseWriteConnection()

    def close(self) -> None:
        """See `Outlet.close`."""
        self._transport.unregisterProducer()  # TLS does not close before its producer has left
        self._transport.loseConnection()

    def pauseProducing(self) -> None:
        """Called when the buffer is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Called when there is room again."""
        self._full = False
        if data := self._take_held():
            self._transport.write(data)

    def stopProducing(self) -> None:
        """Called when the connection is lost."""
        self._held = 0

    def _take_held(self) -> bytes:
        held, self._held = self._held, 0
        return self._connection.acknowledgement(held) if held else b""


class NoOutlet:
    """Where a lost connection sends to."""

    broken = True

    def send(self, data: bytes) -> None:
        """Send nothing."""

    def acknowledge(self, seq: int) -> None:
        """Acknowledge nothing."""

    def finish(self) -> None:
        """Nothing is left to be closed."""

    def close(self) -> None:
        """Nothing is left to be closed."""
