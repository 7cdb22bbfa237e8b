"""Where connections come in: endpoints as operators write them, and PROXY headers.

    door = parse_door("haproxy:tcp:7650", reactor)
    port = listen(door, proxies if door.is_proxied else factory)

`factory` makes the protocols of connections; `proxies = ProxyDoors(factory, reactor, ...)` does so
for those that come through a proxy, once the proxy has said from whom.
"""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorSSL,
    IReactorTime,
    IReactorUNIX,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from ingest.listener.endpoint_errors import EXAMPLES, explain, explain_refusal, explain_tls
from ingest.wire.proxy import Endpoint, ProxyError, ProxyParser

BACKLOG = 4096
"""Connections that may wait to be accepted: a fleet that reconnects comes all at once."""


class IReactorPorts(IReactorUNIX, IReactorSSL):
    """What endpoints need of a reactor, besides what their own kinds do."""


class DoorError(Exception):
    """An endpoint makes no sense or can't be opened; the text is one line that says why."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        self.reason = reason
        super().__init__(f"--listen {text}: {reason}")


@dataclass(frozen=True)
class Door:
    """A place to listen at.

    Attributes:
        text: the endpoint as the operator wrote it.
        endpoint: what it stands for.
        is_proxied: whether each connection begins with a PROXY header.
    """

    text: str
    endpoint: IStreamServerEndpoint
    is_proxied: bool

    @property
    def is_tls(self) -> bool:
        """Whether connections are TLS from their first byte on."""
        return "ssl" in self.text.lower().split(":")[:2]


def parse_door(text: str, reactor: IReactorPorts) -> Door:
    """Make sense of an endpoint; nothing is opened but the files of keys and certificates.

    Args:
        text: a server endpoint of Twisted, or `haproxy:` and one.
        reactor: whose sockets to use.

    Raises:
        DoorError: it makes no sense; the text says what would.
    """
    kind, _, inner = text.partition(":")
    is_proxied = kind.lower() == "haproxy"  # Twisted would take any case, and its own parser
    inner = inner if is_proxied else text
    kind = inner.partition(":")[0]
    if is_proxied and kind.lower() in ("", "haproxy"):
        raise DoorError(text, f"the form is {EXAMPLES['haproxy']}")
    if kind == "tls" and (reason := explain_tls(inner)):
        raise DoorError(text, reason)
    ports = _Ports(reactor) if kind in ("unix", "ssl") else reactor
    try:
        endpoint = cast(IStreamServerEndpoint, serverFromString(ports, inner))
    except Exception as error:  # each kind of endpoint has errors of its own, OpenSSL's among them
        reason = explain(inner, error, "haproxy:" if is_proxied else "")
        raise DoorError(text, reason) from None
    return Door(text, endpoint, is_proxied)


def listen(door: Door, factory: IProtocolFactory) -> IListeningPort:
    """Begin to accept connections.

    Args:
        door: where.
        factory: makes their protocols; for a proxied door it is a `ProxyDoors`.

    Raises:
        DoorError: the system does not let us.
    """
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    door.endpoint.listen(factory).addCallbacks(ports.append, failures.append)
    if failures:
        raise DoorError(door.text, explain_refusal(failures[0].value))
    if not ports:
        raise DoorError(door.text, "this endpoint does not listen at once")
    _lengthen_queue(ports[0])
    return ports[0]


def describe(port: IListeningPort) -> str:
    """Return where a port listens, for people: `127.0.0.1:7650`, `[::]:7650`, `/run/socket`."""
    address: Any = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return os.fsdecode(getattr(address, "name", None) or b"a socket")
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _lengthen_queue(port: IListeningPort) -> None:
    # Whatever the endpoint says: the default of 50 refuses most of a fleet that comes at once.
    if hasattr(port, "fileno"):
        with socket.socket(fileno=os.dup(port.fileno())) as listening:
            listening.listen(BACKLOG)


class _Ports:
    """The part of a reactor that some endpoints listen with: careful where Twisted is not."""

    def __init__(self, reactor: IReactorPorts) -> None:
        self._reactor = reactor

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int, mode: int, wantPID: bool
    ) -> IListeningPort:
        """See `IReactorUNIX`; the lock that `wantPID` asks for is not made.

        That lock names a process, and in a container every start has the same number: after a kill
        it looks as if it were held. Here it counts whether anybody answers.
        """
        del wantPID
        if not address:  # the system would choose a name
            raise ValueError(f"the address is missing; the form is {EXAMPLES['unix']}")
        _remove_stale_socket(address)
        return self._reactor.listenUNIX(address, factory, backlog=backlog, mode=mode, wantPID=False)

    def listenSSL(
        self,
        port: int,
        factory: ServerFactory,
        contextFactory: CertificateOptions,
        backlog: int,
        interface: str,
    ) -> IListeningPort:
        """See `IReactorSSL`; a certificate that OpenSSL refuses is found here, not by devices."""
        contextFactory.getContext()
        return self._reactor.listenSSL(port, factory, contextFactory, backlog, interface)


def _remove_stale_socket(path: str) -> None:
    """Remove a socket that a killed process left; one that is in use stays, and so does all else.

    Raises:
        ValueError: what is there is no socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # mostly there is nothing; else listening will fail, and say why
        return
    if not stat.S_ISSOCK(mode):
        raise ValueError("the path is in use by something that is no socket")
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.setblocking(False)  # a listener that accepts nothing is one too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)


# Connections that a proxy passes on.

Address: TypeAlias = IPv4Address | IPv6Address


_NO_ROOM = "{count} wait for their header already"


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
        if self._parser is not None and not self._parser.is_empty:
            self.factory.tell_refusal(self.getPeer(), "the connection ended within it")
        self._stop_waiting()
        self.factory.left(self)
        protocol, self.wrappedProtocol = self.wrappedProtocol, None
        if protocol is not None:
            protocol.connectionLost(reason)

    # What the protocol behind the door calls, besides all that the transport below has.

    def getPeer(self) -> IAddress:
        """Return who the proxy says is there; the proxy itself when it says nothing of that."""
        return self._source or self._below.getPeer()

    def getHost(self) -> IAddress:
        """Return where they connected to, by the same word."""
        return self._destination or self._below.getHost()

    def abortConnection(self) -> None:
        """Cut the connection."""
        self._stop_waiting()
        self._below.abortConnection()

    # The header.

    def refuse(self, reason: str) -> None:
        """Cut the connection, and tell of it."""
        self.factory.tell_refusal(self.getPeer(), reason)
        self.abortConnection()

    def _read_header(self, parser: ProxyParser, data: bytes) -> None:
        try:
            header = parser.feed(data)
        except ProxyError as error:
            self.refuse(str(error))
            return
        if header is not None:
            self._stop_waiting()
            self.factory.left(self)
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
