"""Hearing that a device has gone while nothing is read from it.

A reactor hears of a closed connection when it reads. While a full disk makes all devices wait,
nothing is read, and devices that give up would keep their descriptors here until there is room.
"""

import select
from typing import Protocol

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from ingest.listener.poller import IDescriptorReactor

_EVENTS = select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
PATIENCE = 10.0
"""Seconds that a device may wait for an acknowledgement after it has closed its side, while nothing
is read. The system can't tell one that waits from one that has gone; the former will resume."""


class Watched(Protocol):
    """A connection of which nothing is read for now."""

    @property
    def is_reading(self) -> bool:
        """Whether it is read from again, so that the reactor hears."""

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 where there is none, or no longer."""

    def abort(self) -> None:
        """Cut the connection."""


@implementer(IReadDescriptor)
class Hangups:
    """Watches for connections that end while nothing is read from them.

    It is a descriptor of its own (epoll(7)), which the reactor watches as it does any other.
    """

    def __init__(self, reactor: IDescriptorReactor) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._fds: dict[Watched, int] = {}
        reactor.addReader(self)

    def watch(self, connection: Watched) -> None:
        """Cut the connection when its device has gone, unless it is read from again."""
        fd = connection.fileno()
        if fd >= 0 and connection not in self._fds:
            self._fds[connection] = fd
            self._watched[fd] = connection
            self._epoll.register(fd, _EVENTS)

    def unwatch_read(self) -> None:
        """Watch those no longer that are read from again."""
        for connection in [each for each in self._fds if each.is_reading]:
            fd = self._fds.pop(connection)
            del self._watched[fd]
            self._epoll.unregister(fd)

    def forget(self, connection: Watched) -> None:
        """Called when a connection is lost, watched or not; its socket is closed, or is about to.

        Closing takes it out of the epoll. Its descriptor may be another connection's by now.
        """
        fd = self._fds.pop(connection, -1)
        if self._watched.get(fd) is connection:
            del self._watched[fd]

    def close(self) -> None:
        """Watch none."""
        self._reactor.removeReader(self)
        self._epoll.close()

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._epoll.fileno()

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        for fd, events in self._epoll.poll(0):
            connection = self._watched.get(fd)
            if connection is not None and not connection.is_reading:
                self._act(connection, events)

    def connectionLost(self, reason: object) -> None:
        """See `IFileDescriptor`; it is no connection."""

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "ingest.listener"

    def _act(self, connection: Watched, events: int) -> None:
        if events & _GONE:
            connection.abort()
        else:
            self._reactor.callLater(PATIENCE, self._give_up, connection)

    def _give_up(self, connection: Watched) -> None:
        if connection in self._fds and not connection.is_reading:
            connection.abort()
