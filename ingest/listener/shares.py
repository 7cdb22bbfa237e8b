"""Names that several connections have at once: each holds a share of one lease.

numbers under the lease   1 2 3 4 5 6
of connection a           1     2 3     its share counts 3
of connection b             1 2     3   its share counts 3, too
"""

from collections import deque
from collections.abc import Callable, Iterable

from twisted.logger import Logger

from ingest.journal.interface import Holder, Journal, Lease, LeaseError, Trouble


class Share(Lease):
    """One connection's part of a lease; its numbers count what this connection has appended."""

    __slots__ = ("_waiting", "group")

    def __init__(self, group: "_Group", holder: Holder) -> None:
        super().__init__(group.device, 0, holder)
        self.group = group
        self._waiting: deque[tuple[int, int, int]] = deque()  # the lease's last, ours, bytes

    @property
    def following(self) -> int:
        """See `Lease.following`: numbers in the log are those of the lease."""
        return self.group.lease.following

    def append(self, block: bytes, records: int) -> None:
        """Append to the lease; see `Journal.append`."""
        if self.holder is None:
            raise LeaseError(f"the share of {self.device} has ended")
        self.group.append(block, records)
        self._waiting.append((self.group.lease.last, self.number(records), len(block)))

    def look(self) -> bool:
        """Look how much of it is durable by now; tell whether there is news."""
        before, durable = self.durable, self.group.lease.durable
        while self._waiting and self._waiting[0][0] <= durable:
            _, self.durable, size = self._waiting.popleft()
            self.written += size
        return self.durable > before


class _Group:
    """The holder of a lease that is shared: it releases that when the last share is durable.

    It tells its members one by one, as a journal does its holders: one that raises an exception is
    cut, and the others do not notice.
    """

    _log = Logger(namespace="ingest.listener")

    lease: Lease

    def __init__(self, shares: "Shares", device: str) -> None:
        self._shares = shares
        self.device = device
        self._waiting: list[Holder] | None = []  # None once the lease is granted
        self._members: dict[Share, None] = {}

    def add(self, holder: Holder) -> None:
        """Give a share to a holder, now or when the lease is granted."""
        if self._waiting is not None:
            self._waiting.append(holder)
        else:
            self._grant([holder])

    def withdraw(self, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        if self._waiting and holder in self._waiting:
            self._waiting.remove(holder)
            if not self._waiting:
                self._shares.withdraw_group(self)

    def append(self, block: bytes, records: int) -> None:
        """See `Journal.append`."""
        self._shares.journal.append(self.lease, block, records)

    def end_if_durable(self, share: Share) -> None:
        """Let go of a share that was released, once it is durable."""
        if share not in self._members or share.holder is not None or share.durable < share.last:
            return
        del self._members[share]
        if not self._members:
            self._shares.forget(self)
            self._shares.journal.release(self.lease)

    # What the journal tells: see `Holder`.

    def granted(self, lease: Lease) -> None:
        """Give all that wait their share."""
        self.lease = lease
        waiting, self._waiting = self._waiting or [], None
        self._grant(waiting)

    def refused(self, reason: str) -> None:
        """Pass it on."""
        self._shares.forget(self)
        for holder in self._holders():
            self._tell(holder, holder.refused, reason)

    def fenced(self) -> None:
        """Pass it on: somebody claims the name for itself."""
        self._shares.forget(self)
        for holder in self._holders():
            self._tell(holder, holder.fenced)

    def durable(self, seq: int) -> None:  # noqa: ARG002 - each share has numbers of its own
        """Tell those whose records are durable now."""
        for share in list(self._members):
            if share.look() and share.holder is not None:
                self._tell(share.holder, share.holder.durable, share.durable)
            if share.holder is None:
                self.end_if_durable(share)

    def abort(self) -> None:
        """Pass it on."""
        self._shares.forget(self)
        for holder in self._holders():
            self._call(holder.abort)

    def _grant(self, holders: Iterable[Holder]) -> None:
        """Give each a share; all are members before the first is told, which may leave at once."""
        shares = {Share(self, holder): holder for holder in holders}
        self._members.update(dict.fromkeys(shares))
        for share, holder in shares.items():
            self._tell(holder, holder.granted, share)

    def _tell(self, holder: Holder, call: Callable[..., None], *arguments: object) -> None:
        """Call a method of a member; one that fails is cut, and its share ends."""
        if self._call(call, *arguments):
            return
        self._call(holder.abort)
        for share in list(self._members):
            if share.holder is holder:
                self._shares.release(share)

    def _call(self, call: Callable[..., None], *arguments: object) -> bool:
        """Call a method of a member; return whether it succeeded."""
        try:
            call(*arguments)
        except Exception:
            self._log.failure("one connection of {device!r} has failed", device=self.device)
            return False
        return True

    def _holders(self) -> list[Holder]:
        members = (share.holder for share in self._members)
        return [*(holder for holder in members if holder is not None), *(self._waiting or ())]


class Shares:
    """A journal of names that are shared; behind it is one that knows nothing of that.

    Attributes:
        journal: the one behind.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._groups: dict[str, _Group] = {}

    @property
    def health(self) -> Trouble | None:
        """See `Journal.health`."""
        return self.journal.health

    @property
    def backlog(self) -> int:
        """See `Journal.backlog`."""
        return self.journal.backlog

    def claim(self, device: str, holder: Holder) -> None:
        """Grant a share, once a holder that does not share the name has released it."""
        group = self._groups.get(device)
        if group is not None:
            group.add(holder)
            return
        group = self._groups[device] = _Group(self, device)
        group.add(holder)
        self.journal.claim(device, group)

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        group = self._groups.get(device)
        if group is not None:
            group.withdraw(holder)

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """See `Journal.append`."""
        assert isinstance(lease, Share)
        lease.append(block, records)

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        assert isinstance(lease, Share)
        lease.holder = None
        lease.group.end_if_durable(lease)

    def close(self) -> None:
        """See `Journal.close`: the one behind is closed by who made it."""

    def withdraw_group(self, group: _Group) -> None:
        """Called when nobody waits for the lease of a group any more."""
        self.forget(group)
        self.journal.withdraw(group.device, group)

    def forget(self, group: _Group) -> None:
        """Let a later claim make a new group."""
        if self._groups.get(group.device) is group:
            del self._groups[group.device]
