"""The times that a conversation has asked for: see `ingest.wire.conversation.Wait`."""

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall

from ingest.wire.conversation import Wait

CallLater = Callable[[float, Callable[[], None]], IDelayedCall]


class Countdown:
    """Calls somebody once some seconds are over; what is awaited has each its own."""

    __slots__ = ("_call_later", "_over", "_timers")

    def __init__(self, call_later: CallLater, over: Callable[[Wait], None]) -> None:
        """Make it; it does not run yet.

        Args:
            call_later: calls something after so many seconds.
            over: called when they are over, with what was asked for.
        """
        self._call_later = call_later
        self._over = over
        self._timers: dict[str, IDelayedCall] = {}

    def begin(self, wait: Wait) -> None:
        """Count from now on, in place of the last time for the same thing."""
        self._cancel(wait.awaited)
        if wait.seconds is not None:
            self._timers[wait.awaited] = self._call_later(wait.seconds, partial(self._over, wait))

    def stop(self) -> None:
        """Count no more."""
        for awaited in list(self._timers):
            self._cancel(awaited)

    def _cancel(self, awaited: str) -> None:
        timer = self._timers.pop(awaited, None)
        if timer is not None and timer.active():
            timer.cancel()
