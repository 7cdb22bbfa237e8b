"""Who may append for which device: one holder at a time, the newest wins."""

from collections.abc import Callable, Iterator

from ingest.journal.interface import Holder, Lease


class Leases:
    """The leases of a journal and the claims that wait for them."""

    def __init__(self, position: Callable[[str], int]) -> None:
        """Make the book of leases.

        Args:
            position: returns the number of a device's newest durable record, 0 for none.
        """
        self._position = position
        self._held: dict[str, Lease] = {}
        self._waiting: dict[str, Holder] = {}

    def __iter__(self) -> Iterator[Lease]:
        """Go through the leases that are held, or not durable yet."""
        return iter(self._held.values())

    def claim(self, device: str, holder: Holder) -> None:
        """See `Journal.claim`."""
        lease = self._held.get(device)
        if lease is None:
            self._grant(device, holder)
            return
        older = self._waiting.get(device, lease.holder)
        self._waiting[device] = holder
        if older is not None:
            older.fenced()

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        if self._waiting.get(device) is holder:
            del self._waiting[device]

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        lease.holder = None
        self._hand_over_if_durable(lease)

    def durable(self, lease: Lease, seq: int) -> None:
        """Take that the records of `lease` up to `seq` are on disk, and tell its holder."""
        lease.durable = seq
        if lease.holder is not None:
            lease.holder.durable(seq)
        else:
            self._hand_over_if_durable(lease)

    def _hand_over_if_durable(self, lease: Lease) -> None:
        if lease.durable < lease.last or self._held.get(lease.device) is not lease:
            return
        del self._held[lease.device]
        waiting = self._waiting.pop(lease.device, None)
        if waiting is not None:
            self._grant(lease.device, waiting)

    def _grant(self, device: str, holder: Holder) -> None:
        lease = Lease(device, self._position(device), holder)
        self._held[device] = lease
        holder.granted(lease)
