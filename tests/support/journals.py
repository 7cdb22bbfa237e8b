"""Holders of leases that remember what they were told, and journals that a test drives by hand."""

import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, Self

from ingest.journal import keeper
from ingest.journal.events import Event
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.interface import Journal, Lease
from ingest.journal.measures import Measures
from ingest.journal.memory import MemoryJournal
from ingest.journal.positions import read_positions
from ingest.layout import Layout
from tests.log.logs import BEGIN, line
from tests.support.remote_journal import RemoteJournal
from tests.support.waiting import PATIENCE

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


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


class FaultError(Exception):
    """What a test injects."""


class FailingHolder(Holder):
    """Raises an exception in some of its methods, after it has noted the call."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self._failing = failing

    def granted(self, lease: Lease) -> None:
        super().granted(lease)
        self._fail("granted")

    def refused(self, reason: str) -> None:
        super().refused(reason)
        self._fail("refused")

    def fenced(self) -> None:
        super().fenced()
        self._fail("fenced")

    def durable(self, seq: int) -> None:
        super().durable(seq)
        self._fail("durable")

    def abort(self) -> None:
        super().abort()
        self._fail("abort")

    def _fail(self, call: str) -> None:
        if call in self._failing:
            raise FaultError(call)


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

    def settle(self, done: Callable[[], object]) -> None:
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

    def settle(self, done: Callable[[], object]) -> None:
        self.journal.commit()
        assert done()

    def lines(self) -> list[bytes]:
        return self.journal.lines

    def events(self) -> Sequence[Event]:
        return self.journal.events

    def close(self) -> None:
        self.journal.close()


class DrivenFile:
    """A `FileJournal` whose answers wait in a queue, as they would in a reactor.

    Whoever waits for something takes them.
    """

    def __init__(
        self,
        data: Path,
        policy: JournalPolicy | None = None,
        *,
        flow: Flow | None = None,
        report: Report | None = None,
        measures: Measures | None = None,
    ) -> None:
        self.layout = Layout(data)
        self.layout.create()
        self.flow = flow or Flow()
        self.report = report or Report()
        self._is_closed = False
        self._answers: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._answers = queue.SimpleQueue()
        self.journal = FileJournal(
            self.layout,
            policy or JournalPolicy(),
            self._call_soon,
            self.flow,
            self.report,
            measures=measures,
        )
        self.journal.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self._answers.put((call, arguments))

    def settle(self, done: Callable[[], object]) -> None:
        while not done():
            self.take()

    def lines(self) -> list[bytes]:
        files = sorted(self.layout.log_folder.glob("ingest-*.log"))
        active = self.layout.log_folder / "ingest.log"
        return b"".join(path.read_bytes() for path in [*files, active]).splitlines(keepends=True)

    def events(self) -> Sequence[Event]:
        return self.report.events

    @property
    def said(self) -> list[str]:
        """The lines for the operator."""
        return self.report.lines

    def close(self) -> None:
        """Stop the journal, unless it is stopped, and take its last answers."""
        if not self._is_closed:
            self._is_closed = True
            self.journal.close()
            while not self._answers.empty():
                self.take()

    def take(self) -> None:
        """Wait for an answer, and take it."""
        call, arguments = self._answers.get(timeout=PATIENCE)
        call(*arguments)

    def claim(self, device: str) -> Lease:
        """Return the lease on a device that nobody holds."""
        holder = Holder()
        self.journal.claim(device, holder)
        assert [kind for kind, _ in holder.told] == ["granted"], (holder.told, holder.reasons)
        return holder.lease

    def write(self, device: str, count: int) -> int:
        """Bring `count` records of a device to disk, each in a batch; return the last number."""
        lease = self.claim(device)
        for seq in range(lease.following, lease.following + count):
            self.journal.append(lease, _record_of_now(device, seq), 1)
        self.settle(lambda: lease.durable == lease.last)
        self.journal.release(lease)
        return lease.last

    def rotate(self) -> Path | None:
        """Close the active file."""
        done: list[Path | None] = []
        self.journal.rotate(done.append)
        self.settle(lambda: done)
        return done[0]

    def following(self, device: str) -> int:
        """Return the number that the device's next record gets."""
        lease = self.claim(device)
        self.journal.release(lease)
        return lease.first


class DrivenRemote:
    """A `RemoteJournal`; whoever waits for something lets its answers come, one by one."""

    def __init__(self) -> None:
        self.journal = RemoteJournal()

    def settle(self, done: Callable[[], object]) -> None:
        while not done():
            self.journal.answers.popleft()()

    def lines(self) -> list[bytes]:
        return self.journal.lines

    def events(self) -> Sequence[Event]:
        return self.journal.events

    def close(self) -> None:
        self.journal.close()


JOURNALS: dict[type, Callable[[Path], Driven]] = {
    MemoryJournal: lambda folder: DrivenMemory(),
    FileJournal: DrivenFile,
    RemoteJournal: lambda folder: DrivenRemote(),
}
"""How each journal is driven, in a folder of its own; the contract runs on all of them."""


def _record_of_now(device: str, seq: int) -> bytes:
    return line(seq, device=device, time=time.time() - BEGIN.timestamp()) + b"\n"


def crash(data: Path, *steps: str) -> None:
    """Run a journal in a process of its own that does some steps and kills itself.

    Args:
        data: its folder.
        steps: `a=3` writes three records of device `a`; `rotate` closes the file; `checkpoint`
            waits until the positions of what was written are on disk.
    """
    process = FORKS.Process(target=_run_and_die, args=(data, *steps))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def _run_and_die(data: Path, *steps: str) -> None:
    if "checkpoint" in steps:
        keeper._PERIOD = keeper._LONGEST_PERIOD = 0.01  # or each would take a second
    running = DrivenFile(data)
    newest: dict[str, int] = {}
    for step in steps:
        if step == "rotate":
            running.rotate()
        elif step == "checkpoint":
            while read_positions(running.layout.positions) != newest:
                pass
        else:
            device, count = step.split("=")
            newest[device] = running.write(device, int(count))
    os.kill(os.getpid(), signal.SIGKILL)
