"""The time that a conversation has asked for: see `ingest.wire.conversation.Wait`."""

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall

CallLater = Callable[[float, Callable[[], None]], IDelayedCall]


class Countdown:
    """Calls somebody once some seconds are over."""

    __slots__ = ("_call_later", "_over", "_timer")

    def __init__(self, call_later: CallLater, over: Callable[[float], None]) -> None:
        """Make it; it does not run yet.

        Args:
            call_later: calls something after so many seconds.
            over: called when they are over, with how many they were.
        """
        self._call_later = call_later
        self._over = over
        self._timer: IDelayedCall | None = None

    def begin(self, seconds: float | None) -> None:
        """Count from now on; None: not at all."""
        self.stop()
        if seconds is not None:
            self._timer = self._call_later(seconds, partial(self._over, seconds))

    def stop(self) -> None:
        """Count no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
