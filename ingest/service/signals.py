"""What signals make a running listener do."""

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from ingest.service.hangup import HANGUP

_WITHOUT_MEANING = (signal.SIGUSR1, signal.SIGUSR2)
"""By which other servers reopen their logs; they would end the process."""


class Signals(Service):
    """SIGHUP reloads. SIGINT and SIGTERM stop the reactor once; when repeated, at once.

    SIGUSR1 and SIGUSR2 do nothing, and say so.
    """

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
        for number in _WITHOUT_MEANING:
            signal.signal(number, self._caught_other)
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

    def _caught_other(self, number: int, _frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._say_other, signal.Signals(number).name)

    def _say_other(self, name: str) -> None:
        self._log.warn(
            "{signal} means nothing here: SIGHUP reopens the log and reads the settings again,"
            " SIGTERM stops",
            signal=name,
        )

    def _stop_again(self, name: str) -> None:
        self._log.info("{signal} again: not waiting for devices", signal=name)
        self._hurry()
