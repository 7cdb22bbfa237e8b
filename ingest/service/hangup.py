"""SIGHUP before there is anything to reload.

This module imports what is loaded at once, and is imported before all that takes time.
"""

import signal
from collections.abc import Callable
from types import FrameType


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
