"""The books: what came, what was written, what was refused and why, by device and in total.

They balance at any instant: frames received = written + waiting for the disk + refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from ingest.journal.interface import Lease
from ingest.record import record_block
from ingest.wire.errors import ErrorCode
from ingest.wire.framing import Frames

_FRAME_ERRORS = frozenset({ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LONG})


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
        unparsed_frames: frames that were stored as they came, since they are not in the format
            that the device should send.
    """

    received_frames: int = 0
    received_bytes: int = 0
    written_frames: int = 0
    written_bytes: int = 0
    acknowledged_frames: int = 0
    refused_frames: Counter[str] = field(default_factory=Counter)
    unparsed_frames: int = 0

    def add(self, other: "Account") -> None:
        """Add another account to this one."""
        self.received_frames += other.received_frames
        self.received_bytes += other.received_bytes
        self.written_frames += other.written_frames
        self.written_bytes += other.written_bytes
        self.acknowledged_frames += other.acknowledged_frames
        self.refused_frames += other.refused_frames
        self.unparsed_frames += other.unparsed_frames

    @property
    def waiting_frames(self) -> int:
        """Frames that wait for the disk."""
        return self.received_frames - self.written_frames - self.refused_frames.total()


@dataclass(slots=True)
class Delivery:
    """What one connection brought; it reads on as its lease does.

    Attributes:
        protocol: what is spoken on it.
        lease: under which it appends.
        received_bytes: bytes that came.
        acknowledged: the newest number that the device was told of, or was let in with.
        brought_bytes: bytes of the records that were made of its frames.
        refused: the error code of the frame that ended it, if one did.
        unparsed: how many frames are not in the format that they should have.
    """

    protocol: str
    lease: Lease
    received_bytes: int
    acknowledged: int
    brought_bytes: int = 0
    refused: str = ""
    unparsed: int = 0

    @property
    def is_durable(self) -> bool:
        """Whether all it brought is on disk."""
        return self.lease.durable == self.lease.last

    @property
    def waiting_bytes(self) -> int:
        """Bytes of records that wait for the disk."""
        return self.brought_bytes - self.lease.written

    def records(self, time: bytes, frames: Frames) -> bytes:
        """Write the records of frames that came, and count them.

        Args:
            time: when they were read, RFC 3339.
            frames: at least one.
        """
        lease = self.lease
        block = record_block(time, lease.device.encode(), lease.following, frames.values)
        self.unparsed += frames.unparsed
        self.brought_bytes += len(block)
        return block

    def ended_by(self, code: ErrorCode) -> None:
        """Called when an error has ended the connection; some are frames that were no frames."""
        if code in _FRAME_ERRORS:
            self.refused = code

    def account(self) -> Account:
        """Return its account as of now."""
        account = Account()
        self.add_to(account)
        return account

    def add_to(self, account: Account) -> None:
        """Add what it brought so far to an account."""
        lease = self.lease
        before = lease.first - 1
        account.received_frames += lease.last - before
        account.received_bytes += self.received_bytes
        account.written_frames += lease.durable - before
        account.written_bytes += lease.written
        account.acknowledged_frames += self.acknowledged - before
        if self.refused:
            account.received_frames += 1
            account.refused_frames[self.refused] += 1
        account.unparsed_frames += self.unparsed


class Books:
    """The accounts of all devices that came since the start.

    Attributes:
        connections: how many were accepted.
    """

    def __init__(self) -> None:
        self.connections = 0
        self._closed: dict[str, Account] = {}
        self._closed_totals: dict[str, Account] = {}  # the same, by protocol
        self._ended: list[Delivery] = []

    def end(self, delivery: Delivery) -> None:
        """Called when a connection has ended; the disk may still work on what it brought."""
        self._ended.append(delivery)

    def close_durable(self) -> None:
        """Close the books of what is durable and ended; called now and then."""
        ended, self._ended = self._ended, []
        for delivery in ended:
            if delivery.is_durable:
                delivery.add_to(self._closed.setdefault(delivery.lease.device, Account()))
                delivery.add_to(self._closed_totals.setdefault(delivery.protocol, Account()))
            else:
                self._ended.append(delivery)

    def accounts(self, open_deliveries: Iterable[Delivery]) -> dict[str, Account]:
        """Return the account of each device, as of now.

        Args:
            open_deliveries: those of the connections that have not ended.
        """
        return self._sum(self._closed, open_deliveries, attrgetter("lease.device"))

    def totals(self, open_deliveries: Iterable[Delivery]) -> dict[str, Account]:
        """Return the account of all devices by protocol, as of now.

        It looks at the connections that are there, and not at every device that ever was.

        Args:
            open_deliveries: those of the connections that have not ended.
        """
        return self._sum(self._closed_totals, open_deliveries, attrgetter("protocol"))

    def _sum(
        self,
        closed: Mapping[str, Account],
        open_deliveries: Iterable[Delivery],
        key: Callable[[Delivery], str],
    ) -> dict[str, Account]:
        """Add what is not closed to what is, in accounts of their own by what `key` returns."""
        accounts: dict[str, Account] = {}
        for name, account in closed.items():
            accounts.setdefault(name, Account()).add(account)
        for delivery in (*self._ended, *open_deliveries):
            delivery.add_to(accounts.setdefault(key(delivery), Account()))
        return accounts


def total(accounts: Iterable[Account]) -> Account:
    """Add accounts up."""
    summed = Account()
    for account in accounts:
        summed.add(account)
    return summed
