"""The journal on disk: `ingest.log`, its rotated files, and the positions beside them.

The methods and the answers stay on one thread, the caller's; the disk's time is spent in three
others: the writer, the keeper of positions, and the archivist.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingest.journal.active import ActiveFile
from ingest.journal.archive import ArchivePolicy, Archivist
from ingest.journal.intent import IntentFile
from ingest.journal.interface import Holder, Lease, Pressure, Reporter
from ingest.journal.leases import Leases
from ingest.journal.positions import Checkpoint, Mark, Positions
from ingest.journal.recovery import recover
from ingest.journal.rotation import RotationPolicy
from ingest.journal.writer import Commit, Writer
from ingest.layout import Layout

BACKLOG = 32 << 20
"""Bytes of records that may wait for the disk; beyond it the devices are made to wait."""
_RELIEVED = BACKLOG // 4
_CHECKPOINT = 1.0  # seconds between two checkpoints, at least
_CHECKPOINT_PAUSE = 200
"""How many times as long as a checkpoint took it is until the next, within `_CHECKPOINT_LATEST`:
those of thousands of devices make the log's own syncs wait. What is not in one is read from the
log, should we be killed."""
_CHECKPOINT_LATEST = 10.0  # seconds

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

    Attributes:
        backlog: bytes of records that are not durable yet.
        failure: what the disk says while it takes no records; None while it does.
        log_folder: where the files are.
    """

    def __init__(
        self,
        layout: Layout,
        policy: JournalPolicy,
        call_soon: CallSoon,
        pressure: Pressure,
        report: Reporter,
    ) -> None:
        """Recover the log and begin to take records.

        Raises:
            OSError: the log can't be read, mended or made.
            sqlite3.Error: `positions.db` can't be made.
        """
        self.backlog = 0
        self.failure: OSError | None = None
        self.log_folder = layout.log_folder
        self._call_soon = call_soon
        self._pressure = pressure
        self._report = report
        self._paused = False
        self._intent = IntentFile(layout.state_folder / "intent")
        recovered = recover(layout.log_folder, layout.positions, self._intent, report)
        self._known = recovered.changed
        self._positions = Positions(layout.positions)
        self._leases = Leases(self._position)
        active = ActiveFile(layout.log_folder, self._intent, recovered.newest_closed)
        self._archivist = Archivist(layout.log_folder, policy.archive, self, settled="")
        self._keeper = _Keeper(layout.positions, recovered.log, self._archivist.settle)
        self._keeper.note(recovered.changed, active.mark)
        self._writer = Writer(active, policy.rotation, self, sync=policy.sync)
        self._keeper.start()
        self._writer.start()
        self._archivist.start()

    def claim(self, device: str, holder: Holder) -> None:
        """See `Journal.claim`."""
        self._leases.claim(device, holder)

    def withdraw(self, device: str, holder: Holder) -> None:
        """See `Journal.withdraw`."""
        self._leases.withdraw(device, holder)

    def append(self, lease: Lease, block: bytes, records: int) -> None:
        """See `Journal.append`."""
        lease.last += records
        self._writer.put((lease, lease.last, block))
        self.backlog += len(block)
        if self.backlog > BACKLOG and not self._paused:
            self._pause()

    def release(self, lease: Lease) -> None:
        """See `Journal.release`."""
        self._leases.release(lease)

    def set_policy(self, policy: JournalPolicy) -> None:
        """Rotate and archive by another policy from now on; durability stays as it is."""
        self._writer.set_policy(policy.rotation)
        self._archivist.policy = policy.archive
        self._archivist.nudge()

    def reopen(self) -> None:
        """Look whether another program has moved the active file; so does every commit."""
        self._writer.reopen()

    def rotate(self, done: Callable[[Path | None], None]) -> None:
        """Close the active file now; `done` gets its new name, or None if it was empty."""

        def tell(closed: Path | None) -> None:
            self._call_soon(done, closed)

        self._writer.rotate(tell)

    def hold(self, done: Callable[[], None]) -> None:
        """Write nothing until `go_on`, or for a minute; `done` hears when the file stands still.

        This is for a program that copies the active file and then cuts it: what it finds is all
        that was acknowledged, and nothing comes between the copy and the cut.
        """

        def tell() -> None:
            self._call_soon(done)

        self._writer.hold(tell)

    def go_on(self) -> None:
        """Write again after `hold`."""
        self._writer.go_on()

    def close(self) -> None:
        """Write what was appended, note the positions and stop; takes as long as the disk does.

        May be called from another thread, after the last `append`.
        """
        mark = self._writer.stop()
        self._keeper.stop(mark, clean=self.failure is None)
        self._archivist.stop()
        self._positions.close()
        self._intent.close()

    # What the writer and the archivist say, in their own threads.

    def committed(self, commit: Commit) -> None:
        """See `Owner.committed`."""
        self._call_soon(self._committed, commit)

    def failing(self, error: OSError) -> None:
        """See `Owner.failing`."""
        self._call_soon(self._failing, error)

    def recovered(self, seconds: float) -> None:
        """See `Owner.recovered`."""
        self._call_soon(self._recovered, seconds)

    def rotated(self, closed: Path) -> None:
        """See `Owner.rotated`."""
        self._archivist.nudge()
        self.info(f"the log was rotated to {closed.name}")

    def moved(self, what: str) -> None:
        """See `Owner.moved`."""
        self.info(what)

    def info(self, line: str) -> None:
        """See `Reporter.info`."""
        self._call_soon(self._report.info, line)

    def warn(self, line: str) -> None:
        """See `Reporter.warn`."""
        self._call_soon(self._report.warn, line)

    # The same, on the journal's thread.

    def _committed(self, commit: Commit) -> None:
        latest: dict[Lease, int] = {}
        for lease, last, block in commit.items:
            size = len(block)
            lease.written += size
            self.backlog -= size
            latest[lease] = last
        changed = {lease.device: last for lease, last in latest.items()}
        self._known.update(changed)
        self._keeper.note(changed, commit.mark)
        for lease, last in latest.items():
            self._leases.durable(lease, last)
        self._resume_if_relieved()

    def _failing(self, error: OSError) -> None:
        self.failure = error
        self._report.warn(
            f"{self.log_folder} takes no records: {error.strerror}; devices wait,"
            " nothing is acknowledged and nothing is lost"
        )
        if not self._paused:
            self._pause()

    def _recovered(self, seconds: float) -> None:
        self.failure = None
        self._report.warn(f"{self.log_folder} takes records again, after {seconds:.1f} s")
        self._resume_if_relieved()

    def _pause(self) -> None:
        self._paused = True
        self._pressure.pause()

    def _resume_if_relieved(self) -> None:
        if self._paused and self.failure is None and self.backlog <= _RELIEVED:
            self._paused = False
            self._pressure.resume()

    def _position(self, device: str) -> int:
        known = self._known.get(device)
        return self._positions.get(device) if known is None else known


class _Keeper:
    """The thread that keeps `positions.db` a second or a few behind the log."""

    def __init__(self, path: Path, log: str, settle: Callable[[str], None]) -> None:
        self._path = path
        self._log = log
        self._settle = settle
        self._lock = threading.Lock()
        self._changed: dict[str, int] = {}
        self._mark: Mark | None = None
        self._clean = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest-positions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note(self, changed: dict[str, int], mark: Mark) -> None:
        """Take the newest numbers of some devices, true at a place in the log."""
        with self._lock:
            self._changed.update(changed)
            self._mark = mark

    def stop(self, mark: Mark, *, clean: bool) -> None:
        """Save what is left and where the log ends."""
        self._stopping.set()
        self._thread.join()
        self._mark, self._clean = mark, clean
        with contextlib.closing(Positions(self._path)) as positions:
            self._save(positions)

    def _run(self) -> None:
        with contextlib.closing(Positions(self._path)) as positions:
            while True:
                begun = time.monotonic()
                self._save(positions)
                taken = time.monotonic() - begun
                pause = min(_CHECKPOINT_PAUSE * taken, _CHECKPOINT_LATEST)
                if self._stopping.wait(max(_CHECKPOINT, pause)):
                    return

    def _save(self, positions: Positions) -> None:
        with self._lock:
            changed, self._changed = self._changed, {}
            mark, self._mark = self._mark, None
        if mark is None:
            return
        try:
            positions.save(changed, Checkpoint(self._log, mark, self._clean))
        except sqlite3.Error:  # the disk is full or failing, as the writer says; tried again
            with self._lock:
                self._changed = changed | self._changed
                self._mark = self._mark or mark
        else:
            self._settle(mark.closed)
