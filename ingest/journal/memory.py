"""A journal that forgets: the twin of `FileJournal` for tests, with the same promises but one."""

from ingest.journal.events import Event
from ingest.journal.interface import Holder, Lease
from ingest.journal.leases import Leases


class MemoryJournal:
    """Keeps records in a list; `commit` makes durable what was appended before it.

    Attributes:
        lines: the durable records, in order.
        events: what it had to report.
        health: always well.
        backlog: bytes of records that are not durable yet.
    """

    health = None

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.events: list[Event] = []
        self.backlog = 0
        self._positions: dict[str, int] = {}
        self._leases = Leases(lambda device: self._positions.get(device, 0), self.events.append)
        self._pending: list[tuple[Lease, int, bytes]] = []

    def claim(self, device: str, holder: Holder) -> None:
        """See `Journal.claim`."""
        self._leases.claim(device, holder)

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        self._leases.withdraw(device, holder)

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """See `Journal.append`."""
        self._pending.append((lease, lease.number(records), block))
        self.backlog += len(block)

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        self._leases.release(lease)

    def close(self) -> None:
        """See `Journal.close`."""
        self.commit()

    def commit(self) -> None:
        """Make all that was appended durable."""
        pending, self._pending = self._pending, []
        for lease, last, block in pending:
            self.lines += block.splitlines(keepends=True)
            self._positions[lease.device] = lease.durable = last
            lease.written += len(block)
            self.backlog -= len(block)
        self._leases.announce({lease: None for lease, _, _ in pending})
