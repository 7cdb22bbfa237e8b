"""The sockets of devices, served by an epoll(7) of our own that the reactor watches as one.

For each event a reactor sets up the context of what is logged meanwhile. Where thousands of devices
send one small frame each, that is a quarter of the work. Here it is done once for many sockets.

What a socket awaits is known by which of four tables it stands in:

    readers   bytes from the device
    writers   room for bytes to the device
    unread    that the device closes its side, or is gone, while nothing is read from it
    leaving   that a device which has closed its side, and may wait for an answer, is gone
"""

import select
import time
from collections.abc import Callable
from typing import cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ingest.listener.pacing import SLOW

_TURN = 128
"""Sockets served in one turn. Then the reactor looks after all else, such as what has become
durable; those that are left come first in the next turn."""
_IN, _OUT, _RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
_ENDED = select.EPOLLHUP | select.EPOLLERR
"""What epoll always tells of: a connection that is broken, or closed both ways."""
PATIENCE = 10.0
"""Seconds that a device may wait for an acknowledgement after it has closed its side, while nothing
is read. The system can't tell one that waits from one that has gone; the former will resume."""

_Sockets = dict[int, Connection]
"""Sockets by their descriptors."""


class IDescriptorReactor(IReactorFDSet, IReactorTime):
    """What a descriptor of our own needs of a reactor."""


@implementer(IReadDescriptor)
class Poller:
    """Reads from sockets and writes to them in place of the reactor.

    To the connections that it has adopted it is the reactor: they tell it what they wait for.
    """

    _log = Logger(namespace="ingest.listener")

    def __init__(self, reactor: IDescriptorReactor) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._readers: _Sockets = {}
        self._writers: _Sockets = {}
        self._unread: _Sockets = {}
        self._leaving: _Sockets = {}
        reactor.addReader(self)

    def adopt(self, connection: Connection) -> None:
        """Serve a connection from now on, which the reactor has read from so far."""
        # Not `getWriters`: all stand there that the dialer is connecting to, dead ones for long.
        is_writing = bool(connection.dataBuffer or connection._tempDataLen)
        connection.stopReading()
        connection.stopWriting()
        connection.reactor = cast(IReactorFDSet, self)
        connection.startReading()
        if is_writing:  # such as what is left of a TLS handshake
            connection.startWriting()

    def watch_end(self, connection: Connection) -> None:
        """Lose a connection of which nothing is read when its device has gone.

        A reactor hears of that when it reads. While a full disk makes all devices wait, those that
        give up would keep their descriptors here until there is room. It ends with `addReader`.
        """
        fd = connection.fileno()
        if fd >= 0 and not any(fd in each for each in (self._readers, self._unread, self._leaving)):
            self._move(connection, (), self._unread)

    def close(self) -> None:
        """Stop, when no connection is left."""
        self._reactor.removeReader(self)
        self._epoll.close()

    # What a connection asks of its reactor: see `IReactorFDSet` and `IReactorTime`.

    def addReader(self, connection: Connection) -> None:
        """Read when there is something to be read."""
        self._move(connection, (self._unread, self._leaving), self._readers)

    def addWriter(self, connection: Connection) -> None:
        """Write when there is room."""
        self._move(connection, (), self._writers)

    def removeReader(self, connection: Connection) -> None:
        """Read no more."""
        self._move(connection, (self._readers, self._unread, self._leaving))

    def removeWriter(self, connection: Connection) -> None:
        """Write no more."""
        self._move(connection, (self._writers,))

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """Call after `delay` seconds."""
        return self._reactor.callLater(delay, call, *args)

    # What the reactor asks of a descriptor: see `IReadDescriptor`.

    def fileno(self) -> int:
        """See `IFileDescriptor`."""
        return self._epoll.fileno()

    def doRead(self) -> None:
        """Serve sockets that are ready, those first that read little at once.

        A read that takes long ends the turn: what has become durable, and who sends little, need
        not wait until all have been served whose frames are costly. Those wait for it anyway: see
        `ingest.listener.pacing.SlowLane`.

        What one does may pause or close others, which are not served then. No descriptor becomes
        another connection's meanwhile, since ports are the reactor's.
        """
        before = time.monotonic()
        for fd, events in sorted(self._epoll.poll(0, _TURN), key=self._read_size):
            if (connection := self._readers.get(fd) or self._find(fd)) is not None:
                try:
                    self._serve(fd, connection, events)
                except Exception:
                    self._give_up(connection)
            now = time.monotonic()
            if now - before > SLOW:
                break
            before = now

    def connectionLost(self, reason: object) -> None:
        """See `IFileDescriptor`; it is no connection."""

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "ingest.listener"

    def _find(self, fd: int) -> Connection | None:
        """Return a socket that is not read."""
        return self._writers.get(fd) or self._unread.get(fd) or self._leaving.get(fd)

    def _read_size(self, ready: tuple[int, int]) -> int:
        connection = self._readers.get(ready[0])
        return 0 if connection is None else connection.bufferSize

    def _move(
        self, connection: Connection, away: tuple[_Sockets, ...], to: _Sockets | None = None
    ) -> None:
        """Take a socket out of some tables and into another, and await what that means."""
        fd = connection.fileno()
        before = self._awaited(fd)
        for sockets in away:
            sockets.pop(fd, None)
        if to is not None:
            to[fd] = connection
        after = self._awaited(fd)
        if before == after:
            return
        if after is None:
            self._epoll.unregister(fd)
        elif before is None:
            self._epoll.register(fd, after)
        else:
            self._epoll.modify(fd, after)

    def _awaited(self, fd: int) -> int | None:
        """Return the events that a socket awaits besides its end; None if it stands in no table."""
        if fd in self._readers:
            return _IN | _OUT if fd in self._writers else _IN
        if fd in self._unread:
            return _RDHUP | _OUT if fd in self._writers else _RDHUP
        if fd in self._writers:
            return _OUT
        return 0 if fd in self._leaving else None

    def _serve(self, fd: int, connection: Connection, events: int) -> None:
        """Act on events as Twisted's reactors do: what can be read is read before the end counts.

        Args:
            fd: the socket's descriptor.
            connection: reads, writes, or both.
            events: what epoll says of it.
        """
        if events & _IN:
            if fd in self._readers and (ended := connection.doRead()):
                self._end_reading(connection, ended)
        elif events & _ENDED:
            if fd in self._readers:
                self._end_reading(connection, CONNECTION_DONE)
            else:
                self._lose(connection, CONNECTION_LOST)
        elif events & _RDHUP and fd in self._unread:
            self._move(connection, (self._unread,), self._leaving)
            self._reactor.callLater(PATIENCE, self._lose_patience, fd, connection)
        if events & _OUT and fd in self._writers and (ended := connection.doWrite()):
            self._lose(connection, ended)

    def _end_reading(self, connection: Connection, reason: Exception) -> None:
        if isinstance(reason, ConnectionDone):  # the other direction may still be open
            connection.stopReading()
            connection.readConnectionLost(Failure(reason))
        else:
            self._lose(connection, reason)

    def _give_up(self, connection: Connection) -> None:
        """Called within `except`; never raises, or the reactor would watch none any more."""
        self._log.failure("a connection has failed and is cut")
        try:
            self._cut(connection)
        except Exception:
            self._log.failure("it could not be cut, and is left to the other end")

    def _lose_patience(self, fd: int, connection: Connection) -> None:
        if self._leaving.get(fd) is connection:
            self._cut(connection)

    def _lose(self, connection: Connection, reason: Exception) -> None:
        connection.stopReading()
        connection.stopWriting()
        connection.connectionLost(Failure(reason))

    def _cut(self, connection: Connection) -> None:
        connection.stopReading()
        connection.stopWriting()
        connection.abortConnection()
