"""The file that is being written: append, sync, close and begin anew.

Used by the writer thread only. A method that raises OSError has changed nothing that its next
call does not take up again: the disk may be full now and not in a minute.
"""

import contextlib
import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.events import FileCut, FileMoved
from ingest.journal.home import Home
from ingest.journal.intent import ROOM, IntentFile
from ingest.journal.positions import Mark
from ingest.log.files import ACTIVE, HEAD_SIZE, head_of, rotated_name

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_SPARES = 2
"""Descriptors in hand: one for the new file, while the old one is open, and one for its folder."""
_MAX_BLOCKS = 1024  # IOV_MAX
_MAX_WRITE = ROOM
"""Bytes of one write. Each is copied twice, into the intent and into the log, and after each copy
the writer waits for the interpreter's lock, a read's worth of time: of small ones it writes so few
a second that a fleet at full speed would have to wait for it."""

_CACHED = 64 << 20
"""Bytes at the end of the file that stay in the page cache, for those who tail it. To let go of
what is older keeps other programs' memory where it is, and makes writes cheaper by far: the
kernel fills the same few pages again instead of ever new ones."""
_LET_GO = 8 << 20

_GRACE_STEP = 0.005
_GRACE_STEPS = 20


class ActiveFile:
    """`ingest.log`, opened for appending; what it holds up to `size` is whole lines on disk.

    It keeps descriptors in hand: however many connections use up all the others, a new file can be
    begun.

    Attributes:
        size: bytes that are durable.
        begun: when the file was begun; seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        intent: IntentFile,
        newest_closed: str | None,
        *,
        home: Home,
        disk: Disk,
        clock: Clock,
    ) -> None:
        """Open the file, or begin it.

        Args:
            folder: the log's folder.
            intent: where each write is announced.
            newest_closed: the name of the newest rotated file.
            home: asked before another file is written than the one that is open.
            disk: the system calls.
            clock: names closed files.

        Raises:
            OSError: it can't be opened or made.
        """
        self._folder = folder
        self._path = folder / ACTIVE
        self._intent = intent
        self._closed = newest_closed
        self._follows = newest_closed  # what `_closed` was when this file was opened
        self._home = home
        self._disk = disk
        self._clock = clock
        self._unsynced: Sequence[bytes] = ()
        self._written = 0  # bytes of them that are in the file
        self._announced = 0  # bytes of them that the intent covers
        self._trusted = True
        self._fd = -1
        self._spares: list[int] = []
        self._identity = (0, 0)
        self._cached_from = 0
        self._head = b""
        self.size = 0
        self.begun = 0.0
        self._open()

    @property
    def mark(self) -> Mark:
        """Where the log ends now."""
        return Mark(self._follows or "", self._head.hex(), self.size)

    def append(self, blocks: Sequence[bytes], *, sync: bool) -> None:
        """Write whole lines at the end and wait until they are on disk.

        After an error, call `resume` until it succeeds.

        Raises:
            OSError: the disk is full or failing; part of it may have been written.
        """
        self._unsynced, self._written, self._announced = blocks, 0, 0
        self._finish(sync=sync)

    def resume(self, *, sync: bool) -> None:
        """Take up what the last call left unfinished, in the same place.

        Raises:
            OSError: the disk is still full or failing.
        """
        if not self._trusted:
            self._abandon()
        if self._fd < 0:
            self._open()
        self._finish(sync=sync)

    def rotate(self) -> Path | None:
        """Close the file under a name of its own and begin a new one; all of it must be synced.

        Returns:
            The name of the closed file; None if another program has just moved it.

        Raises:
            OSError: a new one can't be begun; the file goes on as the active one.
        """
        if self._disk.identity(self._path) != self._identity:
            self._open()
            return None
        before = self._closed
        closed = self._rename()
        try:
            self._open()
        except OSError:
            self._undo_rename(closed, before)
            raise
        return closed

    def reopen_if_moved(self) -> FileMoved | FileCut | None:
        """See whether another program renamed, removed, or emptied the file, and follow.

        Returns:
            What was found, or None.

        Raises:
            OSError: a new file can't be made.
            FolderReplacedError: it is no longer ours to make.
        """
        self.check_home()
        status = self._disk.status(self._path) or self._await_successor()
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            self._open()
            return FileMoved(self._path)
        if status.st_size < self.size:
            self._open()
            return FileCut(self._path, status.st_size)
        self.size = status.st_size
        return None

    def check_home(self) -> None:
        """See now and then whether the folder is still the one that was locked.

        Raises:
            FolderReplacedError: it is not, and no file in it is ours.
        """
        self._home.check_if_due()

    def close(self) -> None:
        """Close the file, and what is kept open beside it."""
        self._close_file()
        while self._spares:
            self._disk.close(self._spares.pop())

    def _close_file(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Open what is at the path, or begin it; then close the file that was open before."""
        disk = self._disk
        self._home.check()
        fd = self._descriptor(lambda: disk.open(self._path, _FLAGS, 0o644))
        try:
            self._home.check()  # again: it may have been replaced meanwhile
            self._sync_folder()
            status = disk.fstat(fd)
            head = head_of(disk.pread(fd, HEAD_SIZE, 0))
            found = (status.st_dev, status.st_ino)
            self._intent.put(found, status.st_size, ())
        except OSError:
            disk.close(fd)
            raise
        self._close_file()
        self._keep_spares()
        self._fd = fd
        self._follows = self._closed
        self._head = head
        self._cached_from = 0
        self._identity = found
        self.size = status.st_size
        self.begun = _begun(head) or status.st_mtime

    def _sync_folder(self) -> None:
        """Put on disk which names the folder holds."""
        fd = self._descriptor(lambda: self._disk.open_folder(self._folder))
        try:
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)

    def _descriptor(self, opened: Callable[[], int]) -> int:
        """Open something; where there is no descriptor, with one of those in hand."""
        try:
            return opened()
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR or not self._spares:
                raise
        self._disk.close(self._spares.pop())
        try:
            return opened()
        except OSError:
            self._keep_spares()
            raise

    def _keep_spares(self) -> None:
        with contextlib.suppress(OSError):  # if there are none now, then after the next file
            while len(self._spares) < _SPARES:
                self._spares.append(self._disk.open_folder(self._folder))

    def _rename(self) -> Path:
        name = rotated_name(datetime.fromtimestamp(self._clock.wall(), UTC), self._closed)
        closed = self._folder / name
        self._disk.rename(self._path, closed)
        self._closed = name
        return closed

    def _undo_rename(self, closed: Path, before: str | None) -> None:
        """Give the file its old place back, unless another program has put something there."""
        try:
            status = self._disk.status(self._path)
            if status is None or status.st_size == 0:  # an empty one is the one that we began
                self._disk.rename(closed, self._path)
                self._closed = before
                return
        except OSError:
            pass
        self._close_file()  # it is closed after all; the next commit begins the new one

    def _finish(self, *, sync: bool) -> None:
        self._write_rest()
        if sync:
            try:
                self._disk.fdatasync(self._fd)
                self._intent.probe()
            except OSError:
                # What the kernel could not write it may have dropped from its cache, and the next
                # sync would succeed without it (fsync(2), EIO). This file is never trusted again.
                self._trusted = False
                raise
        self._intent.done()
        if not self._head and self._unsynced:
            self._head = head_of(self._unsynced[0])
            self.begun = _begun(self._head) or self.begun
        self.size += self._written
        self._unsynced, self._written = (), 0
        if self.size - self._cached_from > _CACHED + _LET_GO:
            self._disk.fadvise(self._fd, self._cached_from, _LET_GO, os.POSIX_FADV_DONTNEED)
            self._cached_from += _LET_GO

    def _write_rest(self) -> None:
        blocks = self._unsynced
        ends = list(accumulate(map(len, blocks)))
        while ends and self._written < ends[-1]:
            if self._written == self._announced:
                chunk = _chunk(blocks, ends, self._written, self._written + _MAX_WRITE)
                self._intent.put(self._identity, self.size + self._written, chunk)
                self._announced += sum(map(len, chunk))
            else:
                chunk = _chunk(blocks, ends, self._written, self._announced)
            self._written += self._disk.writev(self._fd, chunk)

    def _abandon(self) -> None:
        """Close the file at its last durable line; the unsynced lines go to a new one."""
        if self._disk.identity(self._path) == self._identity:
            self._rename()  # first, so that a `tail -F` has left the file when it is cut
        self._disk.ftruncate(self._fd, self.size)
        self._disk.fsync(self._fd)  # or the tail may be back after a power cut, beside its copy
        if not self.size:
            self._remove_empty()
        self._close_file()
        self._written = self._announced = 0
        self._trusted = True

    def _remove_empty(self) -> None:
        """Remove the file that was given up, since no line in it is durable.

        While the disk fails, each of the tries, four a second, would leave such a file behind, and
        retention would remove older ones to keep them.
        """
        closed = self._folder / (self._closed or ACTIVE)
        if self._disk.identity(closed) == self._identity:
            self._intent.put(self._identity, 0, ())  # what it says of this file is over too
            self._disk.unlink(closed)
            self._closed = self._follows

    def _await_successor(self) -> os.stat_result | None:
        """Give who has just moved the file a moment to put a new one there, as logrotate does.

        Were we first, it would move our file away too, to a name that nobody reads.
        """
        for _ in range(_GRACE_STEPS):
            self._clock.sleep(_GRACE_STEP)
            if status := self._disk.status(self._path):
                return status
        return None


def _chunk(blocks: Sequence[bytes], ends: Sequence[int], start: int, stop: int) -> list[bytes]:
    """Return the bytes of `blocks` from `start` to about `stop`, to the end of a block.

    Args:
        ends: where each block ends, counted over all of them.
    """
    first = bisect_right(ends, start)
    last = max(first + 1, bisect_right(ends, stop))
    chunk = list(blocks[first : min(last, first + _MAX_BLOCKS)])
    begun = start - (ends[first] - len(blocks[first]))
    if begun:
        chunk[0] = chunk[0][begun:]
    return chunk


def _begun(head: bytes) -> float | None:
    """Return the time of a file's first record; seconds since 1970."""
    try:
        return datetime.fromisoformat(head[9:36].decode()).timestamp()
    except ValueError:
        return None
