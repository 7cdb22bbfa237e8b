"""The clocks of the journal, and what the wall clock's word is worth.

The wall clock can be set, by hours or by years, forwards or back. It stamps and names; a wait is
measured by the monotonic clock; and files are removed by their age only while the wall clock makes
sense.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_DAY = 86400.0
_YEAR = 365 * _DAY


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks to go by.

    Attributes:
        wall: seconds since 1970.
        monotonic: seconds since some moment; never set.
        sleep: lets so many seconds pass.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


class Calendar:
    """The wall clock, without its leaps ahead: those count only when they have lasted for a day.

    A clock that leaps ten years ahead makes all files ten years old at once, and it may be right
    (it was never set before) or be set back within seconds. For example, with files kept 30 days:

        10:00  2026-11-22   2026-11-22 it is
        10:05  2036-11-22   2026-11-22: a leap of ten years, nothing is removed
        10:06  2026-11-22   2026-11-22, and all is well; or else
        10:05  2036-11-23   2036-11-23: it has lasted for a day

    Attributes:
        leap: seconds by which the clock is ahead of what we believe; 0 while we believe it.
    """

    def __init__(self, clock: Clock, times: Iterable[float]) -> None:
        """Begin to watch the clock.

        Args:
            clock: what to watch.
            times: when files were last changed, as far as the disk tells; seconds since 1970.
        """
        self._clock = clock
        self._wall, self._monotonic = clock.wall(), clock.monotonic()
        self._since = self._monotonic
        self.leap = recent_leap(times, self._wall)

    def now(self) -> float:
        """Return the time that we believe; seconds since 1970. To be called every few minutes."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        step = (wall - self._wall) - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        if step > _DAY:
            self.leap += step
            self._since = monotonic
        elif step < -_DAY or monotonic - self._since > _DAY:
            self.leap = max(0.0, self.leap + step) if step < -_DAY else 0.0
        return wall - self.leap


def recent_leap(times: Iterable[float], now: float) -> float:
    """Find years in which nothing happened, followed by no more than a day until now.

    Either nothing ran for so long, or the clock has leapt.

    Returns:
        Their seconds; 0 if there are none.
    """
    later = now
    for earlier in sorted((each for each in times if each <= now), reverse=True):
        if now - later > _DAY:
            break
        if later - earlier > _YEAR:
            return later - earlier
        later = earlier
    return 0.0
