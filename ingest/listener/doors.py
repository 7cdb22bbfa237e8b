"""Where connections come in: endpoints as operators write them.

    door = parse_door("haproxy:tcp:7650", reactor)
    port = listen(door, proxies if door.is_proxied else factory)

`factory` makes the protocols of connections; `proxies = ProxyDoors(factory, reactor, ...)` does so
for those that come through a proxy: see `ingest.listener.proxies`.
"""

import os
import re
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from OpenSSL.crypto import X509
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSSL,
    IReactorUNIX,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, ServerFactory
from twisted.internet.ssl import Certificate, CertificateOptions
from twisted.python.failure import Failure

from ingest.listener.endpoint_errors import EXAMPLES, explain, explain_refusal, explain_tls

BACKLOG = 4096
"""Connections that may wait to be accepted: a fleet that reconnects comes all at once."""

_FILES = re.compile(r":(privateKey|certKey|extraCertChain)=((?:\\.|[^:\\])*)")
"""The files that an `ssl:` endpoint names; a backslash takes the meaning of what follows."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class IReactorPorts(IReactorUNIX, IReactorSSL):
    """What endpoints need of a reactor, besides what their own kinds do."""


class DoorError(Exception):
    """An endpoint makes no sense or can't be opened; the text is one line that says why."""

    def __init__(self, text: str, reason: str, place: str = "--listen") -> None:
        self.text = text
        self.reason = reason
        super().__init__(f"{place} {text}: {reason}")


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
    own_ports = _Ports(reactor)
    ports = own_ports if kind in ("unix", "ssl") else reactor
    try:
        endpoint = cast(IStreamServerEndpoint, serverFromString(ports, inner))
        if kind == "ssl":
            own_ports.chain = _chain(inner)
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


def _chain(text: str) -> list[X509]:
    """Return the certificates that stand behind the first in the file of an `ssl:` endpoint.

    Twisted sends the first, and what `extraCertChain` names. Those who make certificates, such as
    certbot, put the chain into the same file, and without it no device trusts the first.

    Raises:
        Exception: one of them is none.
    """
    files = {key: re.sub(r"\\(.)", r"\1", file) for key, file in _FILES.findall(text)}
    file = files.get("certKey") or files.get("privateKey")
    if file is None or "extraCertChain" in files:
        return []
    data = Path(file).read_bytes()
    return [Certificate.loadPEM(found).original for found in _CERTIFICATE.findall(data)[1:]]


class _Ports:
    """The part of a reactor that some endpoints listen with: careful where Twisted is not.

    Attributes:
        chain: the certificates to send behind the own one, unless the endpoint names others.
    """

    def __init__(self, reactor: IReactorPorts) -> None:
        self._reactor = reactor
        self.chain: list[X509] = []

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
        if self.chain:
            contextFactory.extraCertChain = self.chain
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
