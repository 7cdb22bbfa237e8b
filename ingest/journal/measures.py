"""What a journal measures of its commits; nothing is measured for each record."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from ingest.journal.disk import Disk
from ingest.journal.events import MeasureFailed, Report
from ingest.journal.interface import Lease

Observe = Callable[[float], object]
"""Is told a value; may be called from any thread."""


def _ignore(_: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Measures:
    """Who is told how much and how long.

    Attributes:
        commit_bytes: bytes of the records of one commit.
        commit_seconds: from the begin of a commit until its records are on disk.
        sync_seconds: of one `fdatasync` of the log.
        ack_seconds: from the appending of a block until its lease has heard that it is durable; of
            one block at a time, so of about one in each commit.
    """

    commit_bytes: Observe = _ignore
    commit_seconds: Observe = _ignore
    sync_seconds: Observe = _ignore
    ack_seconds: Observe = _ignore

    def guarded(self, report: Report) -> "Measures":
        """Return the same, of which none raises: nothing that is measured stops the journal.

        Args:
            report: hears of each that fails, which is told no more; may be called from any thread.
        """
        observers = self.commit_bytes, self.commit_seconds, self.sync_seconds, self.ack_seconds
        return Measures(*(_guarded(observe, report) for observe in observers))


def _guarded(observe: Observe, report: Report) -> Observe:
    def tell(value: float) -> None:
        nonlocal observe
        try:
            observe(value)
        except Exception as error:
            observe = _ignore
            report(MeasureFailed(error))

    return tell


class TimedDisk(Disk):
    """The disk of the operating system; tells how long each `fdatasync` took."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        """See fdatasync(2); one that fails is not told."""
        begun = time.perf_counter()
        os.fdatasync(fd)
        self._observe(time.perf_counter() - begun)


class Probe:
    """Follows one block at a time on its way to the disk and back.

    Attributes:
        lease: under which the block was appended; None while it follows none.
    """

    __slots__ = ("_begun", "_now", "_number", "_observe", "lease")

    def __init__(self, now: Callable[[], float], observe: Observe) -> None:
        """Wait for a block.

        Args:
            now: tells the time, in seconds since some moment.
            observe: is told how long each block took that was followed.
        """
        self._now = now
        self._observe = observe
        self.lease: Lease | None = None
        self._number = 0
        self._begun = 0.0

    def follow(self, lease: Lease) -> None:
        """Follow the block that was just appended under a lease."""
        self.lease, self._number, self._begun = lease, lease.last, self._now()

    def look(self) -> None:
        """Called when leases have heard what is durable."""
        if self.lease is not None and self.lease.durable >= self._number:
            self.lease = None
            self._observe(self._now() - self._begun)
