"""When the active file is closed, and which closed files are kept. Pure arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.units import format_size

_DAY = 86400.0
_EARLIEST = 946_684_800.0  # 2000-01-01T00:00Z: a clock that says less was never set


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When the active file is closed and a new one begun.

    Attributes:
        size: bytes that a file should not exceed; 0 for no bound.
        every: seconds; files are closed at multiples of it since 1970-01-01T00:00Z, so `1h` is
            every full hour and `1d` every midnight UTC. 0 for never.
    """

    size: int = 0
    every: float = 0

    def room(self, size: int) -> float:
        """Return how many bytes more may go into a file that has `size`."""
        return self.size - size if self.size else math.inf

    def is_due(self, begun: float, now: float) -> bool:
        """Tell whether a multiple of `every` lies between two times, in seconds since 1970.

        A file that was begun in a later period is due as well: the clock has been set back, and
        its day may never end.
        """
        return bool(self.every) and begun // self.every != now // self.every

    def seconds_left(self, now: float) -> float:
        """Return how long it is until the next multiple of `every`; infinite if there is none."""
        return self.every - now % self.every if self.every else math.inf


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which closed files are kept; 0 for no bound.

    Attributes:
        files: how many.
        age: seconds since a file was closed.
        size: bytes of all of them together.
    """

    files: int = 0
    age: float = 0
    size: int = 0


class ClosedFile(NamedTuple):
    """What retention looks at: a closed file's size in bytes and when it was closed."""

    name: str
    size: int
    closed: float


def closing_times(newest_first: Sequence[tuple[float, float]], now: float) -> list[float]:
    """Find out when files were closed, where their names were given by a clock that was wrong.

    A name from the future, or from before there was any log, counts for nothing: the file's last
    change counts, but not before the newest good name; and no file was closed after the one that
    followed it. For example, on 2026-11-22, the oldest file first:

        named 2026-11-20, changed 2026-11-20    was closed on 2026-11-20
        named 2036-11-21, changed 2036-11-21    on 2026-11-21, as the next one at the latest
        named 2036-11-21, changed 2026-11-21    on 2026-11-21

    Args:
        newest_first: for each file when it was closed by its name, and when it was last changed.
        now: seconds since 1970, as all the times.
    """

    def is_sane(time: float) -> bool:
        return _EARLIEST <= time <= now

    newest_good = max((named for named, _ in newest_first if is_sane(named)), default=0.0)
    times: list[float] = []
    following = now
    for named, changed in newest_first:
        closed = named
        if not is_sane(named):
            closed = max(changed, newest_good) if is_sane(changed) else following
        following = min(closed, following)
        times.append(following)
    return times


class Expired(NamedTuple):
    """A file that the policy lets go, and the rule that says so; in words."""

    name: str
    reason: str


def expired(policy: RetentionPolicy, newest_first: list[ClosedFile], now: float) -> list[Expired]:
    """Return the files that the policy lets go."""
    gone: list[Expired] = []
    total = 0
    for count, file in enumerate(newest_first, 1):
        total += file.size
        if policy.files and count > policy.files:
            reason = f"{policy.files} newer ones are kept"
        elif policy.age and now - file.closed > policy.age:
            reason = f"it was closed more than {policy.age / _DAY:g} days ago"
        elif policy.size and total > policy.size:
            reason = f"all from it on are more than {format_size(policy.size)}"
        else:
            continue
        gone.append(Expired(file.name, reason))
    return gone
