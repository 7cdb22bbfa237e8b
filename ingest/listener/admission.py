"""Who is let in: limits of connections, and of attempts that failed."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.logger import Logger

from ingest.units import format_count
from ingest.wire.errors import ErrorCode, PeerError

REFUSALS = 64
"""Connections beyond the limit that are told so; any more wait until there is room."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may do.

    Attributes:
        max_connections: how many there may be.
        max_frame: the most bytes of one frame.
        handshake_timeout: seconds that a device may take to say who it is.
        idle_timeout: seconds that it may say nothing after that; 0 for no bound.
        allow_plaintext_auth: whether a token may cross the network in clear.
        refusals: how many more than `max_connections` are let in to hear that they are too many.
    """

    max_connections: int = 10_000
    max_frame: int = 65_536
    handshake_timeout: float = 10.0
    idle_timeout: float = 3600.0
    allow_plaintext_auth: bool = False
    refusals: int = REFUSALS

    @property
    def most(self) -> int:
        """How many connections there may be, with those that are let in to hear of it."""
        return self.max_connections + self.refusals


class Port(Protocol):
    """A port that can be told not to accept connections for a while."""

    def pauseProducing(self) -> None:
        """Accept none."""

    def resumeProducing(self) -> None:
        """Accept them again."""


class FailureLimit:
    """Counts failed attempts by some key; forgives each a burst, and then some every second."""

    _KEYS = 10_000

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._failures: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def failed(self, key: Hashable, now: float) -> None:
        """Count a failed attempt; `now` in seconds."""
        self._failures[key] = (self._count(key, now) + 1, now)
        self._failures.move_to_end(key)
        if len(self._failures) > self._KEYS:
            self._failures.popitem(last=False)

    def is_exceeded(self, key: Hashable, now: float) -> bool:
        """Tell whether there were too many lately."""
        return key in self._failures and self._count(key, now) >= self._burst

    def _count(self, key: Hashable, now: float) -> float:
        count, since = self._failures.get(key, (0.0, now))
        return max(0.0, count - (now - since) * self._per_second)


class Admission:
    """Decides who is let in.

    Behind one address there may be a whole site. So attempts are counted by address and name: a
    device with a wrong token keeps no other out. All names of an address together have a limit
    too, which keeps guessing slow and the threads that check tokens free; a device that was last
    seen there does not come under it.

    Attributes:
        limits: may be replaced at any time, by assignment.
        ports: where connections are accepted.
        is_full: whether they accept none for now.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ports: Sequence[Port] = ()
        self.is_full = False
        self._unsaid: int | None = None  # times that the limit was reached; None: none, for long
        self._by_name = FailureLimit(burst=300, per_second=5.0)
        self._by_host = FailureLimit(burst=3000, per_second=50.0)
        self._log = Logger(namespace="ingest.listener")

    def refusal(self, connections: int) -> PeerError | None:
        """Return why one more is not let in beside so many connections; None if it is."""
        if connections < self.limits.max_connections:
            return None
        return PeerError(ErrorCode.BUSY, "too many connections; try again later")

    def is_beyond(self, connections: int) -> bool:
        """Tell whether there are so many that not even a refusal can be said to one more."""
        return connections >= self.limits.most

    def count(self, connections: int) -> None:
        """Called when the number of connections has changed: accept more, or let them wait.

        Beyond the limit some are let in to hear that they are too many. The others wait in the
        kernel's queue, since to accept and close them at once would only bring them back.
        """
        if not self.is_full and self.is_beyond(connections):
            self.is_full = True
            self._say_full(connections)
            for port in self.ports:
                port.pauseProducing()
        elif self.is_full and connections < self.limits.max_connections:
            self.is_full = False
            if not self._unsaid:
                self._log.warn(
                    "{connections}: more are accepted again",
                    connections=format_count(connections, "connection"),
                )
            for port in self.ports:
                port.resumeProducing()

    def summarise(self) -> None:
        """Say how often the limit was reached since it was said; called once a minute."""
        if self._unsaid:
            self._log.warn(
                "the limit of connections was reached {count} more times in the last minute;"
                " {now} accepted now",
                count=self._unsaid,
                now="no more are" if self.is_full else "more are",
            )
            self._unsaid = 0
        elif not self.is_full:
            self._unsaid = None

    def _say_full(self, connections: int) -> None:
        if self._unsaid is None:
            self._unsaid = 0
            self._log.warn(
                "{connections}: no more are accepted for now",
                connections=format_count(connections, "connection"),
            )
        else:
            self._unsaid += 1

    def failed(self, host: str, device: str, now: float) -> None:
        """Called when a device has failed to prove its name; `now` in seconds."""
        self._by_name.failed((host, device), now)
        self._by_host.failed(host, now)

    def check(self, host: str, device: str, now: float, last_host: Callable[[str], str]) -> None:
        """Called before any costly look at an attempt.

        Args:
            host: where it comes from.
            device: the name that is claimed.
            now: in seconds.
            last_host: returns the address at which a device was last seen; empty if it never was.

        Raises:
            PeerError: there were too many that failed.
        """
        if self._by_name.is_exceeded((host, device), now) or (
            self._by_host.is_exceeded(host, now) and last_host(device) != host
        ):
            raise PeerError(ErrorCode.BUSY, "too many failed attempts from your address")
