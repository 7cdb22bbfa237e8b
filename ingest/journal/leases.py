"""Who may append for which device: one holder at a time, the newest wins."""

from collections.abc import Callable, Iterable, Iterator

from ingest.journal.events import HolderFailed, Report
from ingest.journal.interface import Holder, Lease


class Leases:
    """The leases of a journal and the claims that wait for them.

    Holders are told one by one. One that raises an exception is cut, and its lease ends; the
    others do not notice.
    """

    def __init__(self, position: Callable[[str], int], report: Report) -> None:
        """Make the book of leases.

        Args:
            position: returns the number of a device's newest durable record, 0 for none; whatever
                it raises refuses the claim.
            report: gets an event for each holder that fails; must not raise.
        """
        self._position = position
        self._report = report
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
        if older is not None and not self._call(device, older.fenced):
            self._cut(lease, older)

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        if self._waiting.get(device) is holder:
            del self._waiting[device]

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        lease.holder = None
        self._hand_over_if_durable(lease)

    def announce(self, leases: Iterable[Lease]) -> None:
        """Tell the holders of some leases that `lease.durable` has risen.

        The numbers of all are to be up to date before: a holder that is told may look at others.
        """
        for lease in leases:
            holder = lease.holder
            if holder is None:
                self._hand_over_if_durable(lease)
            elif not self._call(lease.device, holder.durable, lease.durable):
                self._cut(lease, holder)

    def _hand_over_if_durable(self, lease: Lease) -> None:
        if lease.durable < lease.last or self._held.get(lease.device) is not lease:
            return
        del self._held[lease.device]
        waiting = self._waiting.pop(lease.device, None)
        if waiting is not None:
            self._grant(lease.device, waiting)

    def _grant(self, device: str, holder: Holder) -> None:
        try:
            last = self._position(device)
        except Exception as error:
            if not self._call(
                device, holder.refused, f"its last number can't be looked up: {error}"
            ):
                self._abort(device, holder)
            return
        lease = self._held[device] = Lease(device, last, holder)
        if not self._call(device, holder.granted, lease):
            self._cut(lease, holder)

    def _cut(self, lease: Lease, holder: Holder) -> None:
        """Cut a holder that failed; if it holds the lease, release that in its place."""
        self._abort(lease.device, holder)
        if lease.holder is holder:
            self.release(lease)

    def _abort(self, device: str, holder: Holder) -> None:
        self._call(device, holder.abort)

    def _call(self, device: str, call: Callable[..., None], *arguments: object) -> bool:
        """Call a method of a holder; return whether it succeeded."""
        try:
            call(*arguments)
        except Exception as error:
            name = getattr(call, "__name__", repr(call))
            self._report(HolderFailed(device, name, error))
            return False
        return True
