"""The writer thread: group commit, rotation, and waiting for a disk that is full or failing."""

import contextlib
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import accumulate, islice
from operator import itemgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from ingest.journal.active import ActiveFile
from ingest.journal.events import Event
from ingest.journal.interface import Lease
from ingest.journal.positions import Mark
from ingest.journal.rotation import RotationPolicy

Item = tuple[Lease, int, bytes]
"""Records to be written: for whom, the number of the last one, and their lines."""

_BLOCK_OF = itemgetter(2)
_MAX_COMMIT = 4 << 20
"""Bytes of one commit, so that no acknowledgement waits for a long one."""
HOLD = 60.0
"""Seconds that another program may ask the log to stand still: it may die and never release it."""
_RETRY = 0.25  # seconds between two attempts to write to a full or failing disk
_GATHERING = 0.005
"""Seconds that the next commit gathers, unless the last one was of a single batch. Where many
devices send little each, a commit costs more than what it brings: the disk's time, and for each of
its system calls the interpreter's lock, to and fro. A device that is alone is not made to wait."""
_NEVER = object()


class Commit(NamedTuple):
    """Records that are on disk now, and where the log ends."""

    items: list[Item]
    mark: Mark


class Owner(Protocol):
    """Whom the writer tells, in the writer's thread. The methods must not raise."""

    def committed(self, commit: Commit) -> None:
        """Called when these records are on disk."""

    def failing(self, error: OSError) -> None:
        """Called when the disk refuses to take records; they wait."""

    def recovered(self, seconds: float) -> None:
        """Called when the disk takes records again, after so many seconds."""

    def rotated(self, closed: Path) -> None:
        """Called when a file was closed."""

    def tell(self, event: Event) -> None:
        """Called with what else there is for the operator."""


class _GivenUpError(Exception):
    """Told to stop while the disk takes nothing. What waits must not follow what is missing."""


class Writer:
    """Writes what is put, in order, a batch of batches at a time.

    While one commit is written and synced, the next gathers in the queue.
    """

    def __init__(
        self, active: ActiveFile, policy: RotationPolicy, owner: Owner, *, sync: bool
    ) -> None:
        """Make the thread; `start` runs it.

        Args:
            active: the file to write; the thread's alone from `start` on.
            policy: when it is closed.
            owner: whom to tell.
            sync: whether records count as on disk only after `fdatasync`.
        """
        self._active = active
        self._policy = policy
        self._owner = owner
        self._sync = sync
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._requests: deque[Callable[[], None]] = deque()
        self._released = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest-writer", daemon=True)
        self.put = self._queue.put

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def rotate(self, done: Callable[[Path | None], None]) -> None:
        """Close the active file after what was put before; tell `done`, in the writer's thread.

        `done` gets the name of the closed file, or None if there was nothing in it.
        """
        self._request(lambda: done(self._rotate()))

    def reopen(self) -> None:
        """Look whether another program has moved the active file."""
        self._request(self._follow)

    def hold(self, done: Callable[[], None]) -> None:
        """Write nothing more after what was put before, until `release_hold` or for `HOLD` seconds.

        `done` is told, in the writer's thread, when the file stands still.
        """

        def wait() -> None:
            self._released.clear()
            if not self._stopping.is_set():
                done()
                self._released.wait(HOLD)

        self._request(wait)

    def release_hold(self) -> None:
        """Write again."""
        self._released.set()

    def set_policy(self, policy: RotationPolicy) -> None:
        """Close files by another policy from now on."""

        def change() -> None:
            self._policy = policy

        self._request(change)

    def stop(self) -> Mark:
        """Write what was put, close the file, and return where the log ends.

        What a full or failing disk does not take at once is given up: nobody was told that it
        was durable.
        """
        self._stopping.set()
        self._released.set()
        self._queue.put(None)
        self._thread.join()
        mark = self._active.mark
        self._active.close()
        return mark

    def _request(self, request: Callable[[], None]) -> None:
        self._requests.append(request)
        self._queue.put(None)

    def _run(self) -> None:
        with contextlib.suppress(_GivenUpError):
            stopping = False
            while not stopping:
                stopping = self._stopping.is_set()
                items = self._gather(block=not stopping)
                self._write(items)
                while self._requests:
                    self._requests.popleft()()
                if len(items) > 1:
                    time.sleep(_GATHERING)

    def _gather(self, *, block: bool) -> list[Item]:
        """Take all that has been put; wait for it, but not past the time of a rotation."""
        queue = self._queue
        waiting: list[Item | None] = []
        if block:
            until = self._policy.deadline(self._active.begun) if self._active.size else None
            try:
                waiting = [queue.get(timeout=None if until is None else _seconds_to(until))]
            except Empty:
                return []
        waiting += islice(iter(queue.get_nowait, _NEVER), queue.qsize())
        return [item for item in waiting if item is not None] if None in waiting else waiting  # type: ignore[return-value]

    def _write(self, items: list[Item]) -> None:
        """Write records, closing the file before those that would exceed its size or time."""
        if self._is_due():
            self._rotate()
        while items:
            count = self._fitting(items)
            if count == 0:
                self._rotate()
                continue
            self._commit(items[:count])
            items = items[count:]

    def _is_due(self) -> bool:
        active = self._active
        return bool(active.size) and time.time() >= self._policy.deadline(active.begun)

    def _fitting(self, items: list[Item]) -> int:
        ends = list(accumulate(map(len, map(_BLOCK_OF, items))))
        room = self._policy.room(self._active.size)
        if ends[0] > room and self._active.size:
            return 0
        return max(1, bisect_right(ends, min(room, _MAX_COMMIT)))

    def _commit(self, items: list[Item]) -> None:
        blocks = list(map(_BLOCK_OF, items))
        self._follow()
        self._persist(
            lambda: self._active.append(blocks, sync=self._sync),
            lambda: self._active.resume(sync=self._sync),
        )
        self._owner.committed(Commit(items, self._active.mark))

    def _rotate(self) -> Path | None:
        self._follow()
        if not self._active.size:
            return None
        self._persist(self._active.rotate, self._active.rotate)
        closed = self._active.newest_closed
        if closed is not None:
            self._owner.rotated(closed)
        return closed

    def _follow(self) -> None:
        def look() -> None:
            if found := self._active.reopen_if_moved():
                self._owner.tell(found)

        self._persist(look, look)

    def _persist(self, attempt: Callable[[], None], again: Callable[[], None]) -> None:
        """Do what may fail until it succeeds.

        Raises:
            _GivenUpError: stopped before that.
        """
        failing_since = 0.0
        while True:
            try:
                attempt()
            except OSError as error:
                if not failing_since:
                    failing_since = time.monotonic()
                    self._owner.failing(error)
                if self._stopping.wait(_RETRY):
                    raise _GivenUpError from error
                attempt = again
            else:
                if failing_since:
                    self._owner.recovered(time.monotonic() - failing_since)
                return


def _seconds_to(moment: float) -> float | None:
    """Return how long to wait; at most an hour, since the clock may be set meanwhile."""
    return min(max(0.0, moment - time.time()), 3600.0)
