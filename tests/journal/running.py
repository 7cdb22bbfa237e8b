"""A journal at work, in this process or in one that is killed."""

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from ingest.journal import keeper
from ingest.journal.events import Event
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.interface import Lease
from ingest.journal.positions import read_positions
from ingest.layout import Layout
from tests.log.logs import BEGIN, line

PATIENCE = 20.0
"""Seconds that an answer may take."""

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


class Holder:
    """A holder of a lease that notes what it is told."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.is_fenced = False
        self.seq = 0

    def granted(self, lease: Lease) -> None:
        """See `Holder.granted`."""
        self.lease, self.seq = lease, lease.last

    def refused(self, reason: str) -> None:
        """See `Holder.refused`."""
        raise AssertionError(reason)

    def abort(self) -> None:
        """See `Holder.abort`."""
        raise AssertionError("it has not failed")

    def fenced(self) -> None:
        """See `Holder.fenced`."""
        self.is_fenced = True

    def durable(self, seq: int) -> None:
        """See `Holder.durable`."""
        assert seq > self.seq
        self.seq = seq


class Running:
    """A `FileJournal` whose answers are taken by whoever waits for them.

    Attributes:
        said: the lines for the operator.
        is_paused: whether it wants no more records.
    """

    def __init__(self, data: Path, policy: JournalPolicy | None = None) -> None:
        self.layout = Layout(data)
        self.layout.create()
        self.said: list[str] = []
        self.is_paused = False
        self._is_closed = False
        self._calls: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.journal = FileJournal(
            self.layout,
            policy or JournalPolicy(),
            lambda *call: self._calls.put(call),
            self,
            self._report,
        )
        self.journal.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the journal, unless it is stopped, and take its last answers."""
        if not self._is_closed:
            self._is_closed = True
            self.journal.close()
            self._take_all()

    def pause(self) -> None:
        """See `FlowControl.pause`."""
        self.is_paused = True

    def resume(self) -> None:
        """See `FlowControl.resume`."""
        self.is_paused = False

    def _report(self, event: Event) -> None:
        self.said.append(str(event))

    def claim(self, device: str) -> Lease:
        """Return the lease on a device that nobody holds."""
        holder = Holder()
        self.journal.claim(device, holder)
        assert holder.lease is not None
        return holder.lease

    def write(self, device: str, count: int) -> int:
        """Bring `count` records of a device to disk, each in a batch; return the last number."""
        lease = self.claim(device)
        for seq in range(lease.last + 1, lease.last + 1 + count):
            self.journal.append(lease, _line(device, seq), 1)
        while lease.durable < lease.last:
            self.take()
        self.journal.release(lease)
        return lease.last

    def rotate(self) -> Path | None:
        """Close the active file."""
        done: list[Path | None] = []
        self.journal.rotate(done.append)
        while not done:
            self.take()
        return done[0]

    def following(self, device: str) -> int:
        """Return the number that the device's next record gets."""
        lease = self.claim(device)
        self.journal.release(lease)
        return lease.first

    def take(self) -> None:
        """Wait for an answer and take it."""
        call, *arguments = self._calls.get(timeout=PATIENCE)
        call(*arguments)

    def _take_all(self) -> None:
        try:
            while True:
                call, *arguments = self._calls.get_nowait()
                call(*arguments)
        except Empty:
            return


def _line(device: str, seq: int) -> bytes:
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
    running = Running(data)
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
