"""A reactor whose time nobody sets."""

import time
from typing import Any

from twisted.internet.interfaces import IReactorTime


def use_monotonic_time(reactor: IReactorTime) -> None:
    """Let a reactor keep its time by a clock that nobody sets; before it runs.

    Twisted's reactors ask `time.time`: when the clock is set back by an hour, whatever waits waits
    an hour longer, and when it is set ahead, all time-outs come at once.
    """
    waiting: Any = reactor.getDelayedCalls()
    shift = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    for call in waiting:
        call.seconds = time.monotonic
        call.time += shift
