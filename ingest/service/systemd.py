"""The listener as systemd sees it; see `Notifier`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

from ingest.ops.notify import Notifier
from ingest.ops.status import RESTART_HELPS, Summary
from ingest.service.housekeeping import Chore
from ingest.service.snapshot import SAMPLES


class Systemd(Service):
    """Tells systemd of the start, of reloads, of the stop, and of how things are.

    It is the last service to start, and the first to stop.
    """

    _log = Logger(namespace="ingest")

    def __init__(
        self,
        notifier: Notifier,
        summary: Callable[[], Summary],
        health: Callable[[], tuple[str, str]],
        reactor: IReactorCore,
    ) -> None:
        """Make the service.

        Args:
            notifier: sends what is said.
            summary: returns how things are.
            health: returns `Summary.health` and `Summary.reason` alone.
            reactor: runs when the start is over.
        """
        self._notifier = notifier
        self._summary = summary
        self._health = health
        self._reactor = reactor

    def chores(self) -> Iterator[Chore]:
        """Return what is to be done again and again, as far as systemd wants to hear of it."""
        if self._notifier.is_heard:
            yield Chore("status", SAMPLES, self._show)
        if self._notifier.watchdog:
            yield Chore("watchdog", self._notifier.watchdog / 2, self.feed_watchdog)

    def startService(self) -> None:
        """Say that all is there, once the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> None:
        """Say that the end has begun."""
        super().stopService()
        self._notifier.stopping("stopping: what was accepted becomes durable")

    def reloading(self) -> AbstractContextManager[None]:
        """Say that the settings are being read, and that this is over."""
        return self._notifier.reloading(self._in_words)

    def feed_watchdog(self) -> None:
        """Say that we are not stuck; not where only a restart helps, for which systemd is there."""
        kind, _ = self._health()
        if kind not in RESTART_HELPS:
            self._notifier.alive()

    def _show(self) -> None:
        self._notifier.status(self._in_words())

    def _ready(self) -> None:
        if self.running:
            self._notifier.ready(self._in_words())

    def _in_words(self) -> str:
        """Say how things are; a fault in that is no reason for systemd to end what else is well."""
        try:
            return self._summary().in_words()
        except Exception:
            self._log.failure("how things are can't be said")
            return "running; how things are can't be said, see the log"
