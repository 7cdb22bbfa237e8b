"""Ports that rest while the system gives no descriptor, or no memory, for one more connection."""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

REST: Final = 1.0
"""Seconds until a port that could not accept a connection tries it again."""

_SELDOM = 60.0  # seconds that such a failure is not said again

_PASSING = frozenset((errno.EAGAIN, errno.EPERM, errno.ECONNABORTED))
"""What accept(2) says of one connection, or of none; after that Twisted goes on."""


class RestingPort:
    """Stands between a port and its socket.

    Connections that can't be accepted stay in the kernel's queue. Twisted's port would try again at
    once, and for ever, with a line in the log each time: some ten thousand a second.
    """

    def __init__(
        self, port: IListeningPort, reactor: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to look after a port.

        Args:
            port: a port of Twisted that listens.
            reactor: whose timers to use.
            clock: gives seconds that nobody sets.
        """
        self._port = cast(Any, port)
        self._socket: socket.socket = self._port.socket
        self._port.socket = self
        self._reactor = cast(IReactorTime, reactor)
        self._clock = clock
        self._log = Logger(namespace="ingest")
        self._is_paused = False
        self._is_resting = False
        self._is_unsaid = False  # it was said that there is no room, and not yet that there is
        self._said = -_SELDOM

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, for the port.

        Raises:
            OSError: there is none, or there is no room for it.
        """
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno in _PASSING:
                raise
            self._rest(error)
            raise BlockingIOError(errno.EAGAIN, "no room for a connection") from None
        if self._is_unsaid:
            self._is_unsaid = False
            self._log.info("connections can be accepted again")
        return accepted

    def pauseProducing(self) -> None:
        """Accept none."""
        self._is_paused = True
        self._port.stopReading()

    def resumeProducing(self) -> None:
        """Accept them again, or at the end of a rest."""
        self._is_paused = False
        if not self._is_resting:
            self._port.resumeProducing()

    def _rest(self, error: OSError) -> None:
        self._is_resting = True
        self._port.stopReading()
        self._reactor.callLater(REST, self._go_on)
        if self._clock() - self._said >= _SELDOM:
            self._said = self._clock()
            self._is_unsaid = True
            self._log.error(
                "no connection can be accepted: {reason}; those that come wait, and it is tried"
                " again each second",
                reason=error.strerror,
            )

    def _go_on(self) -> None:
        self._is_resting = False
        if not self._is_paused:
            self._port.resumeProducing()


def stop_listening(port: IListeningPort) -> Deferred[Any]:
    """Close a port; fires when it is closed.

    Where somebody has removed a Unix socket, Twisted can't, and leaves it open.
    """

    def close(failure: Failure) -> None:
        failure.trap(FileNotFoundError)
        cast(Any, port).socket.close()

    stopped: Deferred[Any] = maybeDeferred(cast(Any, port.stopListening))
    return stopped.addErrback(close)
