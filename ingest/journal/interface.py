"""What a connection needs of the place where records are kept.

A journal numbers each device's records 1, 2, 3 ... and says when they are durable. All
methods are called from one thread, and all answers come on it.

What it does for a device that has seven records already, line by line:

    claim("a", holder)       holder.granted(Lease("a", 7, holder))
    append(lease, block, 2)  lease.number(2), which is 9: the block's lines say 8 and 9 themselves
    the block is on disk     lease.written += len(block), lease.durable = 9; holder.durable(9)
    release(lease)           lease.holder = None; whoever waits is granted once durable is 9

`ingest.journal.leases.Leases` does all of that but the second line and the first half of the third,
for any journal, and keeps the faults of holders apart. `ingest.journal.memory` is the shortest
journal that uses it; `tests.support.remote_journal` is one that is elsewhere, whose answers come
later, also the one which number a device has. A new one is added to `JOURNALS` of
`tests.support.journals`, and has to pass `tests/journal/test_contract.py` and the table of faults.
"""

from typing import Literal, NamedTuple, Protocol


class LeaseError(Exception):
    """Records were brought under a lease that has ended."""


class Trouble(NamedTuple):
    """Why a journal is not well.

    Attributes:
        kind: a word for programs. While it is `positions-failing` records are taken all the same.
        reason: a few words for a person.
    """

    kind: Literal["disk-failing", "folder-replaced", "writer-failed", "positions-failing"]
    reason: str


class Holder(Protocol):
    """The side of a lease that appends; a device's connection.

    An exception that a method raises is reported (`HolderFailed`), and is this holder's alone: it
    is cut by `abort`, and counts as having released its lease.
    """

    def granted(self, lease: "Lease") -> None:
        """Called when the claim succeeds; the number of the newest record is `lease.last`."""

    def refused(self, reason: str) -> None:
        """Called when the claim fails, and is no more; another may succeed later."""

    def fenced(self) -> None:
        """Called when a newer holder waits: release the lease, or withdraw the claim."""

    def durable(self, seq: int) -> None:
        """Called when all records up to number `seq` are on disk."""

    def abort(self) -> None:
        """Called when the holder failed to act on what the journal told it: cut the connection."""


class Lease:
    """The right to append for one device, held by one connection at a time.

    The journal makes it and keeps its attributes up to date; a holder only reads them.

    Attributes:
        device: the device's name.
        first: the number of the first record that may be appended under this lease.
        last: the number of the newest record appended.
        durable: the number of the newest record that is on disk.
        written: bytes of records that this lease has brought to disk.
        holder: whom to tell; None once the lease has ended.
    """

    __slots__ = ("device", "durable", "first", "holder", "last", "written")

    def __init__(self, device: str, last: int, holder: Holder) -> None:
        self.device = device
        self.first = last + 1
        self.last = last
        self.durable = last
        self.written = 0
        self.holder: Holder | None = holder

    @property
    def following(self) -> int:
        """The number of the next record."""
        return self.last + 1

    def number(self, records: int) -> int:
        """Number `records` more records, and return the last one's number.

        Raises:
            LeaseError: the lease has ended; its numbers may be another holder's now.
        """
        if self.holder is None:
            raise LeaseError(f"the lease on {self.device} has ended")
        self.last += records
        return self.last


class Journal(Protocol):
    """A place where records are kept, in order, for ever or as long as its policy says."""

    @property
    def health(self) -> Trouble | None:
        """What is wrong; None while all is well."""

    @property
    def backlog(self) -> int:
        """Bytes of records that are not durable yet."""

    def claim(self, device: str, holder: Holder) -> None:
        """Grant `holder` the lease on `device`, as soon as any older holder has released it.

        The older holder is fenced first, and its records are durable before the grant. The answer
        is `granted` or `refused`, at once or later; there is none after `withdraw`, or once a
        newer claim has fenced this one.
        """

    def withdraw(self, device: str, holder: Holder) -> None:
        """Give up a claim that was not granted yet; nothing, if there is none of this holder."""

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """Keep `records` finished lines, numbered on from `lease.last`, in the order of the calls.

        Args:
            lease: under which they come; see `Lease.number`.
            block: the lines, each with its LF and its number.
            records: how many there are, at least one.

        Raises:
            LeaseError: the lease has ended; nothing was kept.
        """

    def release(self, lease: Lease) -> None:
        """Give the lease back; what was appended still becomes durable, and nobody is told."""

    def close(self) -> None:
        """Make durable what was appended, as far as the disk takes it, and stop."""


class FlowControl(Protocol):
    """Who can stop the flow of records."""

    def pause(self) -> None:
        """Bring no more records until `resume`; a few that are on their way may still come."""

    def resume(self) -> None:
        """Bring records again."""
