"""What goes out to a device: replies in order, and of the acknowledgements only the newest.

An acknowledgement is cumulative, so a device that does not read costs a constant: while the
socket takes nothing, one waits and newer ones replace it.
"""

from typing import Protocol

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer, ISSLTransport
from zope.interface import implementer


class Outlet(Protocol):
    """One connection's way out."""

    def send(self, data: bytes) -> None:
        """Send a reply, after all that was sent before."""

    def acknowledge(self, data: bytes) -> None:
        """Send an acknowledgement, now or, in place of an older one, when there is room."""

    def finish(self) -> None:
        """Close our side once all has gone; where the transport can't do that, all of it."""


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


def outlet_for(transport: DeviceTransport) -> Outlet:
    """Make the way out over a transport: the short one for a plain socket."""
    if isinstance(transport, tcp.Connection):
        return SocketOutlet(transport)
    return BufferedOutlet(transport)


@implementer(IPullProducer)
class SocketOutlet:
    """Hands bytes to the socket at once.

    `transport.write` would wait for the next turn of the reactor and watch the socket for it: two
    `epoll_ctl` and a `send`, where mostly one `send` does. What a full socket does not take goes
    the usual way, and then this is the transport's producer, so as to hear when it has gone.
    """

    __slots__ = ("_finishing", "_full", "_latest", "_registered", "_transport")

    def __init__(self, transport: tcp.Connection) -> None:
        self._transport = transport
        self._full = False
        self._registered = False
        self._finishing = False
        self._latest = b""

    def send(self, data: bytes) -> None:
        """See `Outlet.send`."""
        if self._full:
            self._transport.write(self._latest + data)
            self._latest = b""
            return
        sent = self._transport.writeSomeData(data)
        if sent == len(data):
            return
        # Anything but a number says that the connection is lost; `write` lets the reactor find it.
        self._transport.write(data[sent:] if isinstance(sent, int) else data)
        self._full = True
        self._transport.registerProducer(self, False)

    def acknowledge(self, data: bytes) -> None:
        """See `Outlet.acknowledge`."""
        if self._full:
            self._latest = data
        else:
            self.send(data)

    def finish(self) -> None:
        """See `Outlet.finish`."""
        if self._full:
            self._finishing = True
        else:
            self._transport.loseWriteConnection()

    def resumeProducing(self) -> None:
        """Take that the transport has nothing left; its first call says only that we registered."""
        if not self._registered:
            self._registered = True
            return
        self._full = self._registered = False
        self._transport.unregisterProducer()
        latest, self._latest = self._latest, b""
        if latest:
            self.send(latest)
        if self._finishing:
            self.finish()

    def stopProducing(self) -> None:
        """Take that the connection is lost."""
        self._latest = b""


@implementer(IPushProducer)
class BufferedOutlet:
    """Goes through the transport's buffer, as TLS must; holds back while that is full."""

    __slots__ = ("_full", "_latest", "_transport")

    def __init__(self, transport: DeviceTransport) -> None:
        self._transport = transport
        self._full = False
        self._latest = b""
        transport.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        """See `Outlet.send`."""
        self._transport.write(self._latest + data)
        self._latest = b""

    def acknowledge(self, data: bytes) -> None:
        """See `Outlet.acknowledge`."""
        if self._full:
            self._latest = data
        else:
            self._transport.write(data)

    def finish(self) -> None:
        """See `Outlet.finish`; TLS has no half-closed connection."""
        self._transport.unregisterProducer()  # TLS does not close before its producer has left
        if ISSLTransport.providedBy(self._transport):
            self._transport.loseConnection()
        else:
            self._transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        """Take that the buffer is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Take that there is room again."""
        self._full = False
        latest, self._latest = self._latest, b""
        if latest:
            self._transport.write(latest)

    def stopProducing(self) -> None:
        """Take that the connection is lost."""
        self._latest = b""
