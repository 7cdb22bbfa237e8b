"""Holders of leases that remember what they were told, and journals that a test drives by hand."""

import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ingest.journal.events import Event
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.interface import Journal, Lease
from ingest.journal.memory import MemoryJournal
from ingest.layout import Layout

PATIENCE = 20.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, and the journal does not tell."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Holder:
    """The side of a lease that appends.

    Attributes:
        told: what the journal said, in order: `granted` with the device's newest number,
            `fenced`, `durable` with a number, `abort`.
        reasons: why its claims were refused.
        lease: the newest lease that it was granted.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.reasons: list[str] = []
        self.lease: Lease

    def granted(self, lease: Lease) -> None:
        self.lease = lease
        self.told.append(("granted", lease.last))

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)

    def fenced(self) -> None:
        self.told.append(("fenced", 0))

    def abort(self) -> None:
        self.told.append(("abort", 0))

    def durable(self, seq: int) -> None:
        self.told.append(("durable", seq))


class YieldingHolder(Holder):
    """Gives its lease back as soon as it is fenced."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def fenced(self) -> None:
        super().fenced()
        self._journal.release(self.lease)


def record(device: str, seq: int, text: str = "x") -> bytes:
    """Write one line of the log."""
    return b'{"time":"2026-11-22T11:39:00.123456Z","device":"%b","seq":%d,"text":"%b"}\n' % (
        device.encode(),
        seq,
        text.encode(),
    )


def append(journal: Journal, lease: Lease, count: int = 1) -> None:
    """Append the next records of a device, as one block."""
    first = lease.last + 1
    block = b"".join(record(lease.device, seq) for seq in range(first, first + count))
    journal.append(lease, block, count)


class Flow:
    """Counts how often it was told to stop, and to go on."""

    def __init__(self) -> None:
        self.paused = 0
        self.resumed = 0

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1


class Report:
    """Remembers what an operator would be told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return list(map(str, self.events))


class Driven(Protocol):
    """A journal, and the means to let its answers come."""

    @property
    def journal(self) -> Journal:
        """The journal."""

    def settle(self, done: Callable[[], bool]) -> None:
        """Let answers come until `done`."""

    def lines(self) -> list[bytes]:
        """Return the log."""

    def events(self) -> Sequence[Event]:
        """Return what was reported."""

    def close(self) -> None:
        """Stop the journal, unless it is stopped, and let its last answers come."""


class DrivenMemory:
    """A `MemoryJournal`; its answers come at once."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def settle(self, done: Callable[[], bool]) -> None:
        self.journal.commit()
        assert done()

    def lines(self) -> list[bytes]:
        return self.journal.lines

    def events(self) -> Sequence[Event]:
        return self.journal.events

    def close(self) -> None:
        self.journal.close()


class DrivenFile:
    """A `FileJournal` whose answers wait in a queue, as they would in a reactor."""

    def __init__(
        self,
        data: Path,
        policy: JournalPolicy | None = None,
        *,
        flow: "Flow | None" = None,
        report: "Report | None" = None,
    ) -> None:
        self.layout = Layout(data)
        self.layout.create()
        self.flow = flow or Flow()
        self.report = report or Report()
        self._is_closed = False
        self._answers: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._answers = queue.SimpleQueue()
        self.journal = FileJournal(
            self.layout, policy or JournalPolicy(), self._call_soon, self.flow, self.report
        )
        self.journal.start()

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self._answers.put((call, arguments))

    def settle(self, done: Callable[[], bool]) -> None:
        while not done():
            self._take()

    def lines(self) -> list[bytes]:
        files = sorted(self.layout.log_folder.glob("ingest-*.log"))
        active = self.layout.log_folder / "ingest.log"
        return b"".join(path.read_bytes() for path in [*files, active]).splitlines(keepends=True)

    def events(self) -> Sequence[Event]:
        return self.report.events

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.journal.close()
            while not self._answers.empty():
                self._take()

    def _take(self) -> None:
        call, arguments = self._answers.get(timeout=PATIENCE)
        call(*arguments)
