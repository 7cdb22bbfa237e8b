"""A journal whose answers all come later, and the least that one needs."""

from collections import deque
from collections.abc import Callable
from functools import partial

from ingest.journal.events import Event
from ingest.journal.interface import Holder, Lease
from ingest.journal.leases import Leases


class RemoteJournal:
    """A journal that is elsewhere: even a device's number has to be asked for.

    Attributes:
        lines: the records there, in order.
        events: what it had to report.
        health: always well.
        backlog: bytes of records that are not durable yet.
        answers: what is on its way here; whoever drives it lets them come.
    """

    health = None

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.events: list[Event] = []
        self.backlog = 0
        self.answers: deque[Callable[[], None]] = deque()
        self._numbers: dict[str, int] = {}
        self._asked: dict[str, list[Holder]] = {}  # claims that wait for the device's number
        self._leases = Leases(self._numbers.__getitem__, self.events.append)

    def claim(self, device: str, holder: Holder) -> None:
        if device in self._numbers:
            self._leases.claim(device, holder)
            return
        self._asked.setdefault(device, []).append(holder)
        self.answers.append(partial(self._found, device, 0))

    def withdraw(self, device: str, holder: Holder) -> None:
        if holder in self._asked.get(device, ()):
            self._asked[device].remove(holder)
        self._leases.withdraw(device, holder)

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        self.answers.append(partial(self._stored, lease, lease.number(records), block))
        self.backlog += len(block)

    def release(self, lease: Lease) -> None:
        self._leases.release(lease)

    def close(self) -> None:
        while self.answers:
            self.answers.popleft()()

    def _found(self, device: str, last: int) -> None:
        self._numbers.setdefault(device, last)
        for holder in self._asked.pop(device, ()):
            self._leases.claim(device, holder)  # in their order: the newest wins

    def _stored(self, lease: Lease, last: int, block: bytes) -> None:
        self.lines += block.splitlines(keepends=True)
        self._numbers[lease.device] = lease.durable = last
        lease.written += len(block)
        self.backlog -= len(block)
        self._leases.announce([lease])
