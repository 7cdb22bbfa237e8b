"""The listener as systemd sees it; see `Notifier`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore

from ingest.ops.notify import Notifier
from ingest.ops.status import RESTART_HELPS, Summary


class Systemd(Service):
    """Tells systemd of the start, of reloads, of the stop, and of how things are.

    It is the last service to start, and the first to stop.
    """

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
        self._said = ""

    @property
    def watchdog_pause(self) -> float:
        """Seconds between two calls of `feed_watchdog`; 0 if systemd does not want to hear."""
        return self._notifier.watchdog / 2

    def startService(self) -> None:
        """Say that all is there, once the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> None:
        """Say that the end has begun."""
        super().stopService()
        self._notifier.stopping("stopping: what was accepted becomes durable")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the settings are being read, and that this is over."""
        self._notifier.reloading()
        try:
            yield
        finally:
            self._ready()

    def show(self) -> None:
        """Say how things are, if it differs from what was said; called now and then."""
        words = self._summary().in_words()
        if words != self._said:
            self._said = words
            self._notifier.status(words)

    def feed_watchdog(self) -> None:
        """Say that we are not stuck; not where only a restart helps, for which systemd is there."""
        kind, _ = self._health()
        if kind not in RESTART_HELPS:
            self._notifier.alive()

    def _ready(self) -> None:
        if self.running:
            self._said = self._summary().in_words()
            self._notifier.ready(self._said)
