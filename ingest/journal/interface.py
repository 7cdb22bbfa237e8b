"""What a session needs of the place where records are kept.

A journal numbers each device's records 1, 2, 3 ... and says when they are durable. All
methods are called from one thread, and all answers come on it.
"""

from typing import Protocol


class Holder(Protocol):
    """The side of a lease that appends; a session's connection."""

    def granted(self, lease: "Lease") -> None:
        """Take the lease: `lease.last` is the number of the device's newest durable record."""

    def fenced(self) -> None:
        """Append no more, and release the lease or withdraw the claim: a newer holder waits."""

    def durable(self, seq: int) -> None:
        """Take that all records up to number `seq` are on disk."""


class Lease:
    """The right to append for one device, held by one connection at a time.

    Attributes:
        device: the device's name.
        first: the number of the first record that may be appended under this lease.
        last: the number of the newest record appended.
        durable: the number of the newest record that is on disk.
        written: bytes of records that this lease has brought to disk.
        holder: whom to tell; None once it has released the lease.
    """

    __slots__ = ("device", "durable", "first", "holder", "last", "written")

    def __init__(self, device: str, last: int, holder: Holder) -> None:
        self.device = device
        self.first = last + 1
        self.last = last
        self.durable = last
        self.written = 0
        self.holder: Holder | None = holder


class Journal(Protocol):
    """A place where records are kept, in order, for ever or as long as its policy says."""

    def claim(self, device: str, holder: Holder) -> None:
        """Grant `holder` the lease on `device`, as soon as any older holder has released it.

        The older holder is fenced first, and its records are durable before the grant.
        """

    def withdraw(self, device: str, holder: Holder) -> None:
        """Give up a claim that was not granted yet."""

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """Keep `records` finished lines, numbered on from `lease.last`."""

    def release(self, lease: Lease) -> None:
        """Give the lease back; what was appended still becomes durable."""


class Pressure(Protocol):
    """Who can stop the flow of records."""

    def pause(self) -> None:
        """Bring no more records until `resume`; a few that are on their way may still come."""

    def resume(self) -> None:
        """Bring records again."""


class Reporter(Protocol):
    """Who tells the operator; one line each."""

    def info(self, line: str) -> None:
        """Tell what happened."""

    def warn(self, line: str) -> None:
        """Tell what is wrong, or what was wrong and is mended."""
