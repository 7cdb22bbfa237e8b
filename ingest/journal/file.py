"""The journal on disk: `ingest.log`, its rotated files, and the positions beside them.

The methods and the answers stay on one thread, the caller's; the disk's time is spent in three
others: the writer, the keeper of positions, and the archivist.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingest.journal.active import ActiveFile
from ingest.journal.archive import ArchivePolicy, Archivist
from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.events import (
    DiskFailing,
    DiskRecovered,
    Event,
    FlowControlFailed,
    PositionsFailing,
    PositionsRecovered,
    Report,
    Rotated,
    WriterFailed,
    guarded,
    reason_of,
)
from ingest.journal.home import FolderReplacedError, Home
from ingest.journal.intent import IntentFile
from ingest.journal.interface import FlowControl, Holder, Lease, Trouble
from ingest.journal.keeper import Keeper
from ingest.journal.leases import Leases
from ingest.journal.measures import Measures, Probe, TimedDisk
from ingest.journal.numbers import Numbers
from ingest.journal.positions import Mark
from ingest.journal.recovery import recover
from ingest.journal.rotation import RotationPolicy
from ingest.journal.writer import Commit, Writer
from ingest.layout import Layout

BACKLOG = 32 << 20
"""Bytes of records that may wait for the disk; beyond it the devices are made to wait."""
_RELIEVED = BACKLOG // 4

CallSoon = Callable[..., object]
"""Runs a function with arguments on the journal's thread, soon; may be called from any thread."""


@dataclass(frozen=True, slots=True)
class JournalPolicy:
    """How the journal keeps what it is given.

    Attributes:
        rotation: when a file is closed.
        archive: what becomes of closed files.
        sync: whether a record is durable after `fdatasync` only, or after `write` already.
    """

    rotation: RotationPolicy = RotationPolicy()
    archive: ArchivePolicy = ArchivePolicy()
    sync: bool = True


class FileJournal:
    """A `Journal` in a folder of files that operators tail.

    `start` runs the threads. A simulation leaves them out, and calls the `step` of each by turns.

    Attributes:
        backlog: bytes of records that are not durable yet.
        log_folder: where the files are.
        writer: brings records to disk.
        numbers: the newest durable one of each device.
        keeper: saves them.
        archivist: looks after closed files.
    """

    def __init__(
        self,
        layout: Layout,
        policy: JournalPolicy,
        call_soon: CallSoon,
        flow: FlowControl,
        report: Report,
        *,
        disk: Disk | None = None,
        clock: Clock | None = None,
        measures: Measures | None = None,
    ) -> None:
        """Recover the log; `start` begins to write.

        Args:
            layout: where the files are.
            policy: how they are kept.
            call_soon: brings the answers of other threads.
            flow: told to pause while the disk can't follow.
            report: tells the operator, on the journal's thread.
            disk: the system calls; those of the operating system by default.
            clock: the clocks; those of the operating system by default.
            measures: who is told how much is written, and how long it takes.

        Raises:
            OSError: the log can't be read, mended or made.
            sqlite3.Error: `positions.db` can't be made.
        """
        self.backlog = 0
        self.log_folder = layout.log_folder
        self._call_soon = call_soon
        self._flow = flow
        self._report = guarded(report)
        self._is_paused = False
        self._disk_trouble: Trouble | None = None
        self._positions_trouble: Trouble | None = None
        self._positions_path = layout.positions
        self._measures = (measures or Measures()).guarded(self.tell)
        clock = clock or Clock()
        disk = disk or (TimedDisk(self._measures.sync_seconds) if measures else Disk())
        self._probe = Probe(clock.monotonic, self._measures.ack_seconds)
        # The folder may be a link, and what the link leads to another disk, which may go.
        home = Home((layout.log_folder, layout.log_folder.resolve(), layout.lock), disk, clock)
        self._intent = IntentFile(layout.intent, disk)
        recovered = recover(
            layout.log_folder,
            layout.positions,
            self._intent,
            self._report,
            disk=disk,
            clock=clock,
        )
        self.numbers = Numbers(recovered.positions)
        self._leases = Leases(self.numbers.get, self._report)
        active = ActiveFile(
            layout.log_folder,
            self._intent,
            recovered.newest_closed,
            home=home,
            disk=disk,
            clock=clock,
        )
        self.writer = Writer(active, policy.rotation, self, clock, sync=policy.sync)
        self.archivist = Archivist(
            layout.log_folder, policy.archive, self.tell, clock, home=home, needed_after=""
        )
        self.keeper = Keeper(
            layout.positions,
            recovered.positions,
            self.numbers,
            recovered.log,
            home,
            clock,
            self,
        )
        self.numbers.note(recovered.changed, active.mark)
        self.keeper.step()  # a kill right after the start finds what this start has found

    def start(self) -> None:
        """Begin to write, save and tidy, each in a thread of its own."""
        self.keeper.start()
        self.writer.start()
        self.archivist.start()

    @property
    def health(self) -> Trouble | None:
        """See `Journal.health`."""
        return self._disk_trouble or self._positions_trouble

    def claim(self, device: str, holder: Holder) -> None:
        """See `Journal.claim`."""
        self._leases.claim(device, holder)

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        self._leases.withdraw(device, holder)

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """See `Journal.append`."""
        self.writer.put((lease, lease.number(records), block))
        self.backlog += len(block)
        if self._probe.lease is None:
            self._probe.follow(lease)
        if self.backlog > BACKLOG:
            self._pause()

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        self._leases.release(lease)

    def set_policy(self, policy: JournalPolicy) -> None:
        """Rotate and archive by another policy from now on; durability stays as it is."""
        self.writer.set_policy(policy.rotation)
        self.archivist.policy = policy.archive
        self.archivist.wake()

    def reopen(self) -> None:
        """Look whether another program has moved the active file; so does every commit."""
        self.writer.reopen()

    def rotate(self, done: Callable[[Path | None], None]) -> None:
        """Close the active file now; `done` gets its new name, or None if it was empty."""

        def tell(closed: Path | None) -> None:
            self._call_soon(done, closed)

        self.writer.rotate(tell)

    def hold(self, done: Callable[[], None]) -> None:
        """Write nothing until `release_hold`, or for a minute; `done` hears when that begins.

        This is for a program that copies the active file and then cuts it: what it finds is all
        that was acknowledged, and nothing comes between the copy and the cut.
        """

        def tell() -> None:
            self._call_soon(done)

        self.writer.hold(tell)

    @property
    def hold_ends_in(self) -> float:
        """Seconds until a `hold` ends by itself; 0 while nothing is held."""
        return self.writer.hold_ends_in

    def release_hold(self) -> None:
        """Write again after `hold`."""
        self.writer.release_hold()

    def close(self) -> None:
        """Write what was appended, note the positions and stop; takes as long as the disk does.

        May be called from another thread, after the last `append`.
        """
        mark = self.writer.stop()
        self.keeper.stop(mark, clean=self._disk_trouble is None)
        self.archivist.stop()
        self.numbers.close()
        self._intent.close()

    # What the other threads say, in theirs.

    def committed(self, commit: Commit) -> None:
        """See `Owner.committed`."""
        changed = {lease.device: last for lease, last, _ in commit.items}
        # Here and now: a checkpoint says where the log ends, and must not say it without these.
        self.numbers.note(changed, commit.mark)
        self._call_soon(self._committed, commit)

    def failing(self, error: OSError) -> None:
        """See `Owner.failing`."""
        self._call_soon(self._failing, error)

    def recovered(self, seconds: float) -> None:
        """See `Owner.recovered`."""
        self._call_soon(self._recovered, seconds)

    def failed(self, error: Exception) -> None:
        """See `Owner.failed`."""
        self._call_soon(self._failed, error)

    def rotated(self, closed: Path, mark: Mark) -> None:
        """See `Owner.rotated`."""
        self.numbers.note({}, mark)  # once that is saved, the archivist may have the file
        self.archivist.wake()
        self.tell(Rotated(closed.name))

    def tell(self, event: Event) -> None:
        """See `Owner.tell`, and `KeepersOwner.tell`."""
        self._call_soon(self._report, event)

    def positions_saved(self, closed: str, highest: int) -> None:
        """See `KeepersOwner.positions_saved`."""
        self.archivist.set_needed_after(closed, highest)

    def positions_failing(self, error: Exception) -> None:
        """See `KeepersOwner.positions_failing`."""
        self._call_soon(self._positions_failing, error)

    def positions_recovered(self) -> None:
        """See `KeepersOwner.positions_recovered`."""
        self._call_soon(self._positions_recovered)

    # The same, on the journal's thread.

    def _committed(self, commit: Commit) -> None:
        # Everyone's numbers first, then the flow, and only then the holders, whose answers depend
        # on others' code: what one of them does must not keep anything from the rest.
        leases: dict[Lease, None] = {}
        backlog = self.backlog
        for lease, last, block in commit.items:
            size = len(block)
            lease.written += size
            self.backlog -= size
            lease.durable = last
            leases[lease] = None
        self._measures.commit_bytes(backlog - self.backlog)
        self._measures.commit_seconds(commit.seconds)
        self._resume_if_relieved()
        self._leases.announce(leases)
        self._probe.look()

    def _failing(self, error: OSError) -> None:
        is_replaced = isinstance(error, FolderReplacedError)
        kind: Literal["disk-failing", "folder-replaced"]
        kind = "folder-replaced" if is_replaced else "disk-failing"
        self._disk_trouble = Trouble(kind, reason_of(error))
        self._report(DiskFailing(self.log_folder, error))
        self._pause()

    def _recovered(self, seconds: float) -> None:
        self._disk_trouble = None
        self._report(DiskRecovered(self.log_folder, seconds))
        self._resume_if_relieved()

    def _failed(self, error: Exception) -> None:
        self._disk_trouble = Trouble("writer-failed", repr(error))
        self._report(WriterFailed(error))
        self._pause()

    def _positions_failing(self, error: Exception) -> None:
        self._positions_trouble = Trouble("positions-failing", str(error))
        self._report(PositionsFailing(self._positions_path, error))

    def _positions_recovered(self) -> None:
        self._positions_trouble = None
        self._report(PositionsRecovered(self._positions_path))

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._call_flow(self._flow.pause)

    def _resume_if_relieved(self) -> None:
        if self._is_paused and self._disk_trouble is None and self.backlog <= _RELIEVED:
            self._is_paused = False
            self._call_flow(self._flow.resume)

    def _call_flow(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._report(FlowControlFailed(getattr(call, "__name__", repr(call)), error))
