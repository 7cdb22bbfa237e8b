"""Signals: safe at any time, from the first moment that this package runs."""

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger


class Hangup:
    """Notes SIGHUP until somebody acts on it. Before Python does, the signal ends a process."""

    def __init__(self) -> None:
        self._pending = False
        self._act: Callable[[], None] | None = None

    def install(self) -> None:
        """Catch the signal from now on."""
        signal.signal(signal.SIGHUP, self._caught)
        # Until there is something to stop, Ctrl-C ends the process without a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def act(self, act: Callable[[], None] | None) -> None:
        """Call `act` at each signal, and now if there was one already; None: only note it."""
        self._act = act
        if self._pending and act is not None:
            self._pending = False
            act()

    def _caught(self, _signal: int, _frame: FrameType | None) -> None:
        if self._act is None:
            self._pending = True
        else:
            self._act()


HANGUP = Hangup()
"""The process's own: a signal has one handler."""


class Signals(Service):
    """SIGHUP reloads. SIGINT and SIGTERM stop the reactor once; when repeated, at once."""

    def __init__(self, reactor: Any, reload: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Make the service.

        Args:
            reactor: which to stop; an `IReactorCore`, `IReactorFromThreads` and `IReactorTime`.
            reload: called at SIGHUP; those that come meanwhile count as one.
            hurry: called when it is to stop for a second time: wait for nobody.
        """
        self._reactor = reactor
        self._reload = reload
        self._hurry = hurry
        self._stops = {signal.SIGINT: reactor.sigInt, signal.SIGTERM: reactor.sigTerm}
        self._reloading = False
        self._stopping = False
        self._log = Logger(namespace="ingest")

    def startService(self) -> None:
        """Begin to act on signals."""
        super().startService()
        HANGUP.act(lambda: self._reactor.callFromThread(self._request_reload))
        self._catch_stops()
        self._reactor.callLater(0, self._catch_stops)  # again, once the reactor has set its own

    def stopService(self) -> None:
        """Act on none but those that are to stop."""
        super().stopService()
        HANGUP.act(None)

    def _request_reload(self) -> None:
        if not self._reloading:
            self._reloading = True
            self._reactor.callLater(0, self._do_reload)

    def _do_reload(self) -> None:
        self._reloading = False
        if self.running:
            self._reload()

    def _catch_stops(self) -> None:
        for number, first in self._stops.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, partial(self._caught_stop, first))

    def _caught_stop(
        self, first: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None
    ) -> None:
        if self._stopping:
            self._reactor.callFromThread(self._stop_again, signal.Signals(number).name)
        else:
            self._stopping = True
            first(number, frame)  # stops the reactor, and lets the process end by this signal

    def _stop_again(self, name: str) -> None:
        self._log.info("{signal} again: not waiting for devices", signal=name)
        self._hurry()
