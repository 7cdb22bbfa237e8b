"""Connections that a proxy passes on: each begins with a header that says from whom it is.

The header is that of the PROXY protocol, version 1 or 2; `ingest.wire.proxy` reads it.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from ingest.wire.proxy import Endpoint, ProxyError, ProxyParser

Address: TypeAlias = IPv4Address | IPv6Address


_NO_ROOM = "{count} wait for their header already"
_NO_TLS = "no TLS came; at haproxy:ssl: the header is within TLS, and not in front of it"


class ProxyDoors(Factory):
    """Makes a door for each connection that a proxy passes on; one factory for all such ports.

    Its length is the number of connections that wait for their header, or for their end.

    Attributes:
        timeout: seconds that a header may take.
        room: tells how many more may wait for their header; any others are cut.
        changed: called when there are more or fewer that wait.
        refused: called with the host and the reason when one is cut, for a bad header, none in
            time, or the limit.
    """

    noisy = False

    def __init__(
        self,
        inner: IProtocolFactory,
        clock: IReactorTime,
        timeout: float,
        room: Callable[[], int],
        changed: Callable[[], None],
        refused: Callable[[str, str], None],
        *,
        is_wrapped: bool = True,
    ) -> None:
        """Make it.

        Args:
            inner: makes the protocols behind the doors; `buildProtocol` gets the address that the
                header names.
            clock: by which headers are in time.
            timeout: see above; may be changed, for later connections.
            room: see above.
            changed: see above.
            refused: see above.
            is_wrapped: whether another factory, such as that of TLS, always wants a protocol.
        """
        self._is_wrapped = is_wrapped
        self.inner = inner
        self.clock = clock
        self.timeout = timeout
        self.room = room
        self.changed = changed
        self.refused = refused
        self._waiting: set[ProxyDoor] = set()

    def __len__(self) -> int:
        """Return how many connections wait for their header."""
        return len(self._waiting)

    def startFactory(self) -> None:
        """Called when the first port is open."""
        self.inner.doStart()

    def stopFactory(self) -> None:
        """Called when the last port is closed: nobody waits for a header any more."""
        for door in list(self._waiting):
            door.abortConnection()
        self.inner.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Make the door of a new connection; where there is no room, none."""
        if self.room() <= 0 and addr is not None and not self._is_wrapped:
            self.tell_refusal(addr, _NO_ROOM.format(count=len(self._waiting)))
            return None
        return ProxyDoor(self)

    def arrived(self, door: "ProxyDoor") -> None:
        """Called when a connection is there and waits for its header."""
        if self.room() <= 0:
            door.refuse(_NO_ROOM.format(count=len(self._waiting)))
        else:
            self._waiting.add(door)
            self.changed()

    def left(self, door: "ProxyDoor") -> None:
        """Called when a connection has its header, or is lost: its descriptor is given back."""
        if door in self._waiting:
            self._waiting.remove(door)
            self.changed()

    def tell_refusal(self, peer: IAddress, reason: str) -> None:
        """Tell of a connection that was cut."""
        self.refused(getattr(peer, "host", "a Unix socket"), reason)


@implementer(IHalfCloseableProtocol)
class ProxyDoor(ProtocolWrapper):
    """Reads the PROXY header of one connection, and only then makes the protocol behind it.

    So that protocol has one peer from its first moment on. This is its transport.

    While `_parser` is there, the header is awaited; while `wrappedProtocol` is there, all goes to
    it; with neither, the connection is over.
    """

    wrappedProtocol: IProtocol | None  # type: ignore[assignment]
    factory: ProxyDoors

    def __init__(self, doors: ProxyDoors) -> None:
        self.factory = doors
        self.wrappedProtocol = None
        self._parser: ProxyParser | None = ProxyParser()
        self._source: Address | None = None
        self._destination: Address | None = None

    # What the transport below calls.

    def makeConnection(self, transport: Any) -> None:
        """Begin to wait for the header."""
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)

    def connectionMade(self) -> None:
        """Called when the connection is there."""
        doors = self.factory
        self._deadline = doors.clock.callLater(doors.timeout, self._expire, doors.timeout)
        doors.arrived(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass on what came, or read the header from it."""
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
        elif self._parser is not None:
            self._read_header(self._parser, data)

    def readConnectionLost(self) -> None:
        """Called when the other end has closed its side."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """Called when our side is closed."""
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the connection is over."""
        # A health check may connect and say nothing.
        is_cut_short = self._parser is not None and not self._parser.is_empty
        self._stop_waiting()
        protocol, self.wrappedProtocol = self.wrappedProtocol, None
        if protocol is not None:
            protocol.connectionLost(reason)
        elif is_cut_short:
            self.factory.tell_refusal(self.getPeer(), "the connection ended within it")
        elif reason.check(SSL.Error):
            self.factory.tell_refusal(self.getPeer(), _NO_TLS)

    # What the protocol behind the door calls, besides all that the transport below has.

    def getPeer(self) -> IAddress:
        """Return who the proxy says is there; the proxy itself when it says nothing of that."""
        return self._source or self._below.getPeer()

    def getHost(self) -> IAddress:
        """Return where they connected to, by the same word."""
        return self._destination or self._below.getHost()

    def abortConnection(self) -> None:
        """Cut the connection. It counts until it is lost: it has its descriptor until then."""
        self._stop_reading()
        self._below.abortConnection()

    # The header.

    def refuse(self, reason: str) -> None:
        """Cut the connection, and tell of it."""
        self.abortConnection()
        self.factory.tell_refusal(self.getPeer(), reason)

    def _read_header(self, parser: ProxyParser, data: bytes) -> None:
        try:
            header = parser.feed(data)
        except ProxyError as error:
            self.refuse(str(error))
            return
        if header is not None:
            self._stop_waiting()
            self._source = _address(header.source)
            self._destination = _address(header.destination)
            self._open(parser.rest)

    def _open(self, data: bytes) -> None:
        protocol = self.factory.inner.buildProtocol(self.getPeer())
        if protocol is None:
            self.abortConnection()
            return
        self.wrappedProtocol = protocol
        protocol.makeConnection(cast(ITransport, self))
        if data:
            self.dataReceived(data)

    def _expire(self, seconds: float) -> None:
        self.refuse(f"none came in {seconds:g} s")

    def _stop_waiting(self) -> None:
        self._stop_reading()
        self.factory.left(self)

    def _stop_reading(self) -> None:
        self._parser = None
        if self._deadline.active():
            self._deadline.cancel()

    @property
    def _below(self) -> Any:
        return self.transport


def _address(endpoint: Endpoint | None) -> Address | None:
    if endpoint is None:
        return None
    kind = IPv4Address if endpoint.version == 4 else IPv6Address
    return kind("TCP", *endpoint)
