"""When the active file is closed, and which closed files are kept. Pure arithmetic."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from ingest.units import format_size

_DAY = 86400.0


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

    def deadline(self, begun: float) -> float:
        """Return when a file begun at `begun` must be closed; seconds since 1970."""
        return (begun // self.every + 1) * self.every if self.every else math.inf


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
