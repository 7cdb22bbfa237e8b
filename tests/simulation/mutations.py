"""Faults of one line each, which the simulation must find."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ingest.journal import mending, recovery
from ingest.journal.active import ActiveFile
from ingest.journal.file import FileJournal
from ingest.journal.intent import IntentFile
from ingest.journal.interface import Lease
from ingest.journal.leases import Leases
from ingest.journal.writer import Commit, Wait, Writer
from ingest.listener.connection import Connection
from ingest.listener.fleet import Fleet
from ingest.log.files import whole_end
from ingest.wire.ingest1.text_dialect import TextDialect
from tests.simulation.wire import OurFault

Set = Callable[[object, str, object], None]
"""Sets an attribute, as `pytest.MonkeyPatch.setattr` does."""


def _do_nothing(*_: object, **__: object) -> None:
    pass


def acknowledge_before_the_sync(put: Set) -> None:
    """Records count as durable when they are written."""
    append = ActiveFile.append
    put(ActiveFile, "append", lambda self, blocks, sync: append(self, blocks, sync=False))


def trust_a_file_after_a_failed_sync(put: Set) -> None:
    """A second sync that succeeds is taken for the first one (fsync(2), EIO)."""

    def resume(self: ActiveFile, *, sync: bool) -> None:
        self._trusted = True
        self._finish(sync=sync)

    put(ActiveFile, "resume", resume)


def write_again_after_a_failed_sync(put: Set) -> None:
    """Lines that are in the file already are written once more."""

    def resume(self: ActiveFile, *, sync: bool) -> None:
        self.append(self._unsynced, sync=sync)

    put(ActiveFile, "resume", resume)


def leave_the_folder_unsynced(put: Set) -> None:
    """The name of a new file is not on disk."""
    put(ActiveFile, "_sync_folder", _do_nothing)


def announce_no_write(put: Set) -> None:
    """A write that a kill cuts short is not completed."""
    put(IntentFile, "put", _do_nothing)


def hand_a_lease_over_too_early(put: Set) -> None:
    """A device is told its next number while records before it wait for the disk."""

    def release(self: Leases, lease: Lease) -> None:
        lease.holder = None
        if self._held.pop(lease.device, None) is lease:
            waiting = self._waiting.pop(lease.device, None)
            if waiting is not None:
                self._grant(lease.device, waiting)

    put(Leases, "release", release)


def let_two_hold_a_lease(put: Set) -> None:
    """A newer connection gets the lease, and the older one goes on."""
    claim = Leases.claim

    def claim_at_once(self: Leases, device: str, holder: Any) -> None:
        self._held.pop(device, None)
        claim(self, device, holder)

    put(Leases, "claim", claim_at_once)


def number_from_the_start(put: Set) -> None:
    """A lease begins with the number of the record before."""
    make = Lease.__init__

    def begin(self: Lease, device: str, last: int, holder: Any) -> None:
        make(self, device, max(0, last - 1), holder)

    put(Lease, "__init__", begin)


def tell_without_syncing(put: Set) -> None:
    """A start tells `next` of what may be in the page cache only."""
    put(recovery, "put_on_disk", _do_nothing)


def leave_holes(put: Set) -> None:
    """A start keeps the lines behind a block that never reached the disk."""

    def sound_end(path: Path) -> int:
        with path.open("rb") as stream:
            return whole_end(stream)

    put(mending, "_sound_end", sound_end)


def leave_torn_lines(put: Set) -> None:
    """A start goes on behind half a line."""
    put(recovery, "cut_torn_lines", lambda *_: False)


def save_the_end_without_the_numbers(put: Set) -> None:
    """A stop saves where the log ends before the keeper has heard of the last commits."""
    committed = FileJournal._committed

    def later(self: FileJournal, commit: Commit) -> None:
        changed = {lease.device: last for lease, last, _ in commit.items}
        self.numbers.note(changed, commit.mark)
        committed(self, commit)

    def tell(self: FileJournal, commit: Commit) -> None:
        self._call_soon(self._committed, commit)

    put(FileJournal, "_committed", later)
    put(FileJournal, "committed", tell)


def never_go_on(put: Set) -> None:
    """The devices wait for ever once they had to."""
    put(FileJournal, "_resume_if_relieved", _do_nothing)


def miscount(put: Set) -> None:
    """What is on disk is said to wait."""
    committed = FileJournal._committed

    def count(self: FileJournal, commit: Commit) -> None:
        committed(self, commit)
        self.backlog += 1

    put(FileJournal, "_committed", count)


def share_a_failure(put: Set) -> None:
    """What one connection raises keeps the others from their acknowledgements."""

    def announce(self: Leases, leases: Iterable[Lease]) -> None:
        try:
            for lease in leases:
                if lease.holder is not None:
                    lease.holder.durable(lease.durable)
                else:
                    self._hand_over_if_durable(lease)
        except OurFault:
            return

    put(Connection, "durable", Connection.durable.__wrapped__)  # type: ignore[attr-defined]
    put(Leases, "announce", announce)


def forget_the_revoked(put: Set) -> None:
    """Who is revoked goes on."""
    put(Fleet, "check_revocations", _do_nothing)


def keep_half_a_frame(put: Set) -> None:
    """The line that was arriving when a connection broke is stored."""

    def lost(self: Connection, reason: Any) -> None:
        try:
            if self.delivery is not None and self.phase.name == "OPEN":
                self._carry_out(self._conversation.end_of_stream())
        finally:
            self._leave()
            self._surroundings.remove(self)

    put(Connection, "connectionLost", lost)


def drop_what_is_left_of_a_read(put: Set) -> None:
    """The begin of a line is forgotten when a read ends in it."""
    cut = TextDialect.cut

    def forget(self: TextDialect, data: bytes) -> Any:
        frames = cut(self, data)
        self._rest = b""
        return frames

    put(TextDialect, "cut", forget)


def write_while_held(put: Set) -> None:
    """The log goes on while another program copies it."""

    def hold(self: Writer, done: Callable[[], None]) -> None:
        def tell() -> Iterable[Wait]:
            self._held_until = self._clock.monotonic() + 60.0
            done()
            return ()

        self._request(tell)

    put(Writer, "hold", hold)


def leave_the_lines_in_the_file_that_failed(put: Set) -> None:
    """A file that is given up is not cut, and its last lines are written to the next one too."""

    def abandon(self: ActiveFile) -> None:
        self._rename()
        self._close_file()
        self._written = self._announced = 0
        self._trusted = True

    put(ActiveFile, "_abandon", abandon)


MUTATIONS: list[Callable[[Set], None]] = [
    acknowledge_before_the_sync,
    trust_a_file_after_a_failed_sync,
    write_again_after_a_failed_sync,
    leave_the_folder_unsynced,
    announce_no_write,
    hand_a_lease_over_too_early,
    let_two_hold_a_lease,
    number_from_the_start,
    tell_without_syncing,
    leave_holes,
    leave_torn_lines,
    save_the_end_without_the_numbers,
    never_go_on,
    miscount,
    share_a_failure,
    forget_the_revoked,
    keep_half_a_frame,
    drop_what_is_left_of_a_read,
    write_while_held,
    leave_the_lines_in_the_file_that_failed,
]
