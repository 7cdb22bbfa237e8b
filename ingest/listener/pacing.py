"""Fewer and fuller reads, where thousands of devices send a little each.

A read costs much the same for one frame as for ten. A reactor that is busy all the time comes back
to each socket as soon as it can, and finds as little there as it can. So it rests for a moment now
and then, while the kernel takes the frames, as a network card does that coalesces its interrupts.
"""

import time
from collections.abc import Callable

_READS = 256
"""Reads between two looks at the clocks."""
_SMALL = 1024
"""Bytes of a read, in the mean, from which on it is not worth to wait for more."""
_BUSY = 0.5
"""The share of its time that the thread worked, from which on it has no moment to spare."""
_REST = 0.5
"""The rest, as a share of the time before it."""
_LONGEST = 0.02  # seconds of a rest

Clock = Callable[[], float]


class ReadCoalescer:
    """Counts reads, and rests where they are many, small, and all that the thread does."""

    def __init__(
        self,
        now: Clock = time.monotonic,
        worked: Clock = time.thread_time,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin to count.

        Args:
            now: tells the time, in seconds since some moment.
            worked: tells for how many seconds the thread has had a core.
            rest: waits for some seconds; the thread does nothing else meanwhile.
        """
        self._now = now
        self._worked = worked
        self._rest = rest
        self._begin()

    def count(self, size: int) -> None:
        """Take that `size` bytes were read and dealt with, and perhaps rest."""
        self._reads += 1
        self._bytes += size
        if self._reads == _READS:
            elapsed = self._now() - self._begun
            busy = self._worked() - self._worked_before > _BUSY * elapsed
            if busy and self._bytes < _READS * _SMALL:
                self._rest(min(_LONGEST, _REST * elapsed))
            self._begin()

    def _begin(self) -> None:
        self._reads = self._bytes = 0
        self._begun = self._now()
        self._worked_before = self._worked()
