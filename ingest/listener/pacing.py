"""How one thread is shared among thousands of devices: rests, turns, and a lane for the slow."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger

from ingest.listener.intake import Intake

_READS = 256
"""Reads between two looks at the clocks."""
_SMALL = 1024
"""Bytes of a read, in the mean, from which on it is not worth to wait for more."""
_BUSY = 0.5
"""The share of its time that the thread worked, from which on it has no moment to spare."""
_REST = 0.5
"""The rest, as a share of the time before it."""
_LONGEST = 0.02  # seconds of a rest

_HANDSHAKES = 0.003
"""Seconds of handshakes at once. Each costs as much as many frames: were those of a fleet that
reconnects done as they come, the devices that send would wait for all of them."""

SLOW = 0.008
"""Seconds that one read may take to be dealt with, before its connection has to wait. A read of
120 KiB takes one or two; what takes longer is built to do so, or the machine is busy."""
_SLOW_READ = 4096  # bytes: of a slow connection no read is shorter

Clock = Callable[[], float]


class RestBetweenReads:
    """Sleeps now and then, where reads are many, small, and all that the thread does.

    A read costs much the same for one frame as for ten. A reactor that is busy all the time comes
    back to each socket as soon as it can, and finds as little there as it can. So it rests for a
    moment, while the kernel takes the frames, as a network card does that coalesces its interrupts.
    """

    def __init__(
        self,
        now: Clock = time.monotonic,
        worked: Clock = time.thread_time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin to count.

        Args:
            now: tells the time, in seconds since some moment.
            worked: tells for how many seconds the thread has had a core.
            sleep: waits for some seconds; the thread does nothing else meanwhile.
        """
        self._now = now
        self._worked = worked
        self._sleep = sleep
        self._begin()

    def after_read(self, size: int) -> None:
        """Count a read of `size` bytes that was dealt with, and perhaps sleep."""
        self._reads += 1
        self._bytes += size
        if self._reads == _READS:
            elapsed = self._now() - self._begun
            busy = self._worked() - self._worked_before > _BUSY * elapsed
            if busy and self._bytes < _READS * _SMALL:
                self._sleep(min(_LONGEST, _REST * elapsed))
            self._begin()

    def _begin(self) -> None:
        self._reads = self._bytes = 0
        self._begun = self._now()
        self._worked_before = self._worked()


class TakesTurns(Protocol):
    """Who waits for a turn."""

    def take_turn(self) -> None:
        """Do a piece of work; never raises."""


class Turns:
    """Gives one turn after another, some milliseconds of them at once."""

    _log = Logger(namespace="ingest.listener")

    def __init__(self, clock: IReactorTime) -> None:
        self._queue: deque[TakesTurns] = deque()
        self._cooperator = cooperator(clock, _HANDSHAKES, pause=0)

    def queue_up(self, waiting: TakesTurns) -> None:
        """Call `take_turn` when it is its turn."""
        if not self._queue:
            self._cooperator.coiterate(self._serve())
        self._queue.append(waiting)

    def _serve(self) -> Iterator[None]:
        while self._queue:
            try:
                self._queue[0].take_turn()
            except Exception:  # it never does; if it did, all others would wait for ever
                self._log.failure("a turn has failed")
            self._queue.popleft()
            yield


class Rests(Protocol):
    """A connection that can be told not to read.

    Attributes:
        intake: what is read from it.
    """

    intake: Intake

    def update_reading(self) -> None:
        """Called when `Intake.is_resting` has changed."""


class SlowLane:
    """Where connections wait whose reads take long: each pays for its own cost.

    After a read that took a second, the connection waits for a second; and those that wait do so
    one after the other, however many they are. So all of them together get half of the thread at
    most. Their reads become shorter, so that others come in between.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Rests, float]] = deque()

    def __len__(self) -> int:
        """Return how many connections wait."""
        return len(self._waiting)

    def enter(self, connection: Rests, size: int, seconds: float) -> None:
        """Let a connection wait, since its read of `size` bytes took so many seconds."""
        connection.intake.limit(max(_SLOW_READ, int(size * SLOW / seconds / 2)))
        connection.intake.is_resting = True
        connection.update_reading()
        self._waiting.append((connection, seconds))
        if len(self._waiting) == 1:
            self._clock.callLater(seconds, self._let_go)

    def _let_go(self) -> None:
        connection, _ = self._waiting.popleft()
        if self._waiting:
            self._clock.callLater(self._waiting[0][1], self._let_go)
        connection.intake.is_resting = False
        connection.update_reading()


def cooperator(clock: IReactorTime, seconds: float, pause: float) -> Cooperator:
    """Make what works for some seconds at once, and pauses before it goes on."""

    def begin_slice() -> Callable[[], bool]:
        end = clock.seconds() + seconds
        return lambda: clock.seconds() >= end

    return Cooperator(begin_slice, partial(clock.callLater, pause))
