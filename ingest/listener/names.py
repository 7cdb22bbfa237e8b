"""The names of hosts that are dialled, and how they are looked up.

The system's look-up keeps its thread for as long as no name server answers, ten seconds as a rule.
In the reactor's own threads all else would wait behind: the metrics, and the end of the process.
"""

import socket
from collections.abc import Sequence
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IResolutionReceiver,
)
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

_THREADS = 32
"""How many names are looked up at once: while some have a dead name server, others are found."""
_ADDRESSES = {socket.AF_INET: IPv4Address, socket.AF_INET6: IPv6Address}

_Question = tuple[str, int, socket.AddressFamily, socket.SocketKind]
_Found = Sequence[tuple[socket.AddressFamily, Any, int, str, Any]]
"""What `socket.getaddrinfo` is asked, and what it returns."""


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """See `IHostResolution`; it goes on, and who has asked takes no notice."""


@implementer(IHostnameResolver)
class HostNames:
    """Looks up names in threads of its own, each name once at a time.

    So what waits is bounded, however often hosts are dialled whose names nobody tells. No thread
    hinders the end of the process.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._asked: dict[_Question, list[IResolutionReceiver]] = {}
        self._pool = ThreadPool(0, _THREADS, name="ingest-names")
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        self._pool.start()

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",  # noqa: ARG002 - nothing else is dialled
    ) -> IHostResolution:
        """See `IHostnameResolver`."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        question = hostName, portNumber, _family(addressTypes), socket.SOCK_STREAM
        if question in self._asked:
            self._asked[question].append(resolutionReceiver)
        else:
            self._asked[question] = [resolutionReceiver]
            found = deferToThreadPool(self._reactor, self._pool, socket.getaddrinfo, *question)
            found.addBoth(self._answer, question)
        return resolution

    def _answer(self, found: _Found | Failure, question: _Question) -> None:
        """Tell all who have asked; a name that is not found, for any reason, has no address."""
        entries: _Found = () if isinstance(found, Failure) else found
        addresses = [_ADDRESSES[family]("TCP", *place) for family, _, _, _, place in entries]
        for receiver in self._asked.pop(question):
            for address in addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()


def _family(types: Sequence[type[IAddress]] | None) -> socket.AddressFamily:
    families = [family for family, each in _ADDRESSES.items() if types is None or each in types]
    return families[0] if len(families) == 1 else socket.AF_UNSPEC
