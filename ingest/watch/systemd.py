"""The page as systemd sees it; see `Notifier`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ingest.ops.notify import Notifier

_SHOW: Final = 5.0  # seconds between two looks at how things are


class Systemd(Service):
    """Tells systemd of the start, of reloads, of the stop, and of how things are.

    It is the last service to start. That it feeds the watchdog says that the reactor runs.
    """

    def __init__(
        self, notifier: Notifier, in_words: Callable[[], str], reactor: IReactorTime
    ) -> None:
        """Make the service.

        Args:
            notifier: sends what is said.
            in_words: returns how things are, in one line.
            reactor: the reactor.
        """
        self._notifier = notifier
        self._in_words = in_words
        chores = [(_SHOW, self._show)] if notifier.is_heard else []
        if notifier.watchdog:
            chores.append((notifier.watchdog / 2, notifier.alive))
        self._chores = [(every, LoopingCall(do)) for every, do in chores]
        for _, chore in self._chores:
            chore.clock = reactor

    def startService(self) -> None:
        """Say that all is there."""
        super().startService()
        self._notifier.ready(self._in_words())
        for every, chore in self._chores:
            chore.start(every, now=False)

    def stopService(self) -> None:
        """Say that the end has begun."""
        super().stopService()
        for _, chore in self._chores:
            chore.stop()
        self._notifier.stopping("stopping: the place in the log is kept")

    def reloading(self) -> AbstractContextManager[None]:
        """Say that the rules are being read, and that this is over."""
        return self._notifier.reloading(self._in_words)

    def _show(self) -> None:
        self._notifier.status(self._in_words())
