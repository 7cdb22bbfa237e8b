"""The books: what came, what was written, what was refused and why, by device and in total.

They balance at any instant: frames received = written + waiting for the disk + refused.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest.journal.interface import Lease


@dataclass(slots=True)
class Account:
    """What one device, or all of them, brought since the listener started.

    Attributes:
        received_frames: frames that came, good or not.
        received_bytes: bytes that came, those of the handshake included.
        written_frames: frames whose records are durable.
        written_bytes: bytes of those records.
        acknowledged_frames: frames that the device was told of.
        refused_frames: frames that were no frames, by error code.
    """

    received_frames: int = 0
    received_bytes: int = 0
    written_frames: int = 0
    written_bytes: int = 0
    acknowledged_frames: int = 0
    refused_frames: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Account") -> None:
        """Add another account to this one."""
        self.received_frames += other.received_frames
        self.received_bytes += other.received_bytes
        self.written_frames += other.written_frames
        self.written_bytes += other.written_bytes
        self.acknowledged_frames += other.acknowledged_frames
        self.refused_frames += other.refused_frames

    @property
    def waiting_frames(self) -> int:
        """Frames that wait for the disk."""
        return self.received_frames - self.written_frames - self.refused_frames.total()


@dataclass(slots=True)
class Visit:
    """What one connection brought; it reads on as its lease does.

    Attributes:
        lease: under which it appends.
        received_bytes: bytes that came.
        acknowledged: the newest number that the device was told of, or was let in with.
        refused: the error code of the frame that ended it, if one did.
    """

    lease: Lease
    received_bytes: int
    acknowledged: int
    refused: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether all it brought is durable."""
        return self.lease.durable == self.lease.last

    def account(self) -> Account:
        """Return its account as of now."""
        before = self.lease.first - 1
        refused = Counter({self.refused: 1} if self.refused else ())
        return Account(
            self.lease.last - before + refused.total(),
            self.received_bytes,
            self.lease.durable - before,
            self.lease.written,
            self.acknowledged - before,
            refused,
        )


class Books:
    """The accounts of all devices that came since the start.

    Attributes:
        errors: how many connections ended with each error code, before and after the handshake.
        connections: how many were accepted.
    """

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.connections = 0
        self._closed: dict[str, Account] = {}
        self._unsettled: list[Visit] = []

    def close(self, visit: Visit) -> None:
        """Take over what a connection brought, now that it has ended."""
        self._unsettled.append(visit)

    def settle(self) -> None:
        """Enter the visits whose frames are all durable; called now and then."""
        unsettled, self._unsettled = self._unsettled, []
        for visit in unsettled:
            if visit.is_settled:
                self._closed.setdefault(visit.lease.device, Account()).add(visit.account())
            else:
                self._unsettled.append(visit)

    def accounts(self, open_visits: Iterable[Visit]) -> dict[str, Account]:
        """Return the account of each device, as of now.

        Args:
            open_visits: those of the connections that have not ended.
        """
        accounts: dict[str, Account] = {}
        for device, closed in self._closed.items():
            accounts.setdefault(device, Account()).add(closed)
        for visit in (*self._unsettled, *open_visits):
            accounts.setdefault(visit.lease.device, Account()).add(visit.account())
        return accounts


def total(accounts: Iterable[Account]) -> Account:
    """Add accounts up."""
    summed = Account()
    for account in accounts:
        summed.add(account)
    return summed
