"""Holders of leases that remember what they were told, and journals that a test drives by hand."""

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

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
            `fenced`, `durable` with a number.
        lease: the newest lease that it was granted.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.lease: Lease

    def granted(self, lease: Lease) -> None:
        self.lease = lease
        self.told.append(("granted", lease.last))

    def fenced(self) -> None:
        self.told.append(("fenced", 0))

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


class Pressure:
    """Counts how often it was told to stop, and to go on."""

    def __init__(self) -> None:
        self.paused = 0
        self.resumed = 0

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1


class Report:
    """Remembers what an operator would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)


class Driven(Protocol):
    """A journal, and the means to let its answers come."""

    @property
    def journal(self) -> Journal:
        """The journal."""

    def settle(self, done: Callable[[], bool]) -> None:
        """Let answers come until `done`."""

    def lines(self) -> list[bytes]:
        """Return the log."""

    def close(self) -> None:
        """Stop."""


class DrivenMemory:
    """A `MemoryJournal`; its answers come at once."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()

    def settle(self, done: Callable[[], bool]) -> None:
        self.journal.commit()
        assert done()

    def lines(self) -> list[bytes]:
        return self.journal.lines

    def close(self) -> None:
        """Nothing runs."""


class DrivenFile:
    """A `FileJournal` whose answers wait in a queue, as they would in a reactor."""

    def __init__(self, data: Path, policy: JournalPolicy | None = None) -> None:
        self.layout = Layout(data)
        self.layout.create()
        self.pressure = Pressure()
        self.report = Report()
        self._answers: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._answers = queue.SimpleQueue()
        self.journal = FileJournal(
            self.layout, policy or JournalPolicy(), self._call_soon, self.pressure, self.report
        )

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self._answers.put((call, arguments))

    def settle(self, done: Callable[[], bool]) -> None:
        while not done():
            call, arguments = self._answers.get(timeout=PATIENCE)
            call(*arguments)

    def lines(self) -> list[bytes]:
        files = sorted(self.layout.log_folder.glob("ingest-*.log"))
        active = self.layout.log_folder / "ingest.log"
        return b"".join(path.read_bytes() for path in [*files, active]).splitlines(keepends=True)

    def close(self) -> None:
        self.journal.close()
