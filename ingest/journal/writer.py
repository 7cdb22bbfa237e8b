"""The writer: group commit, rotation, and waiting for a disk that is full or failing.

Its work is a sequence of steps, with a wait after each; a thread does nothing but take the steps
and wait. A simulation takes the same steps on a clock of its own.
"""

import contextlib
import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable
from itertools import accumulate, islice
from operator import itemgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, Protocol

from ingest.journal.active import ActiveFile
from ingest.journal.clock import Clock
from ingest.journal.events import Event, RotationFailing
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
_ROTATE_AGAIN = 1.0  # seconds between two attempts to rotate
_LOOK_AROUND = 1.0
"""Seconds between two looks at the wall clock and at the folder while nothing comes. A clock that
is set, forwards or back, may make the file due sooner than it was."""
_GATHERING = 0.005
"""Seconds that the next commit gathers, unless the last one was of a single batch. Where many
devices send little each, a commit costs more than what it brings: the disk's time, and for each of
its system calls the interpreter's lock, to and fro. A device that is alone is not made to wait."""
_NEVER = object()


class Commit(NamedTuple):
    """Records that are on disk now.

    Attributes:
        items: the records.
        mark: where the log ends.
        seconds: how long it took to write them.
    """

    items: list[Item]
    mark: Mark
    seconds: float


class Wait(NamedTuple):
    """What comes before the next step.

    Attributes:
        seconds: the longest that it may take.
        until: ends the wait when it is set.
        is_idle: whether to end it when something is put.
    """

    seconds: float
    until: threading.Event | None = None
    is_idle: bool = False


_Work = Generator[Wait, None, None]
_Request = Callable[[], Iterable[Wait]]


class Owner(Protocol):
    """Whom the writer tells, in the writer's thread. The methods must not raise."""

    def committed(self, commit: Commit) -> None:
        """Called when these records are on disk."""

    def failing(self, error: OSError) -> None:
        """Called when the disk refuses to take records; they wait."""

    def recovered(self, seconds: float) -> None:
        """Called when the disk takes records again, after so many seconds."""

    def rotated(self, closed: Path, mark: Mark) -> None:
        """Called when a file was closed; the next one begins at the mark."""

    def failed(self, error: Exception) -> None:
        """Called when the writer ends by an error that nobody foresaw."""

    def tell(self, event: Event) -> None:
        """Called with what else there is for the operator."""


class _GivenUpError(Exception):
    """Told to stop while the disk takes nothing. What waits must not follow what is missing."""


class Writer:
    """Writes what is put, in order, a batch of batches at a time.

    While one commit is written and synced, the next gathers in the queue.
    """

    def __init__(
        self, active: ActiveFile, policy: RotationPolicy, owner: Owner, clock: Clock, *, sync: bool
    ) -> None:
        """Make the writer; `start` runs its thread, or else `step` is to be called.

        Args:
            active: the file to write; the writer's alone from now on.
            policy: when it is closed.
            owner: whom to tell.
            clock: by which to wait, and to close files.
            sync: whether records count as on disk only after `fdatasync`.
        """
        self._active = active
        self._policy = policy
        self._owner = owner
        self._clock = clock
        self._sync = sync
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._taken: list[Item | None] = []  # from the queue, by a wait for it
        self._requests: deque[_Request] = deque()
        self._rotations: list[Callable[[Path | None], None]] = []  # asked for and not yet done
        self._rotate_from = 0.0  # on the monotonic clock
        self._rotation_fails = False
        self._held_until = 0.0  # on the monotonic clock; 0 while nothing is held
        self._released = threading.Event()
        self._releases = 0  # so far; a hold that was asked for before the last one does not begin
        self._stopping = threading.Event()
        self._work = self._steps()
        self._thread = threading.Thread(target=self._run, name="ingest-writer", daemon=True)
        self.put = self._queue.put

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def step(self) -> Wait | None:
        """Do what there is to do now.

        Returns:
            What to wait for before the next step; None after the last one.
        """
        return next(self._work, None)

    def rotate(self, done: Callable[[Path | None], None]) -> None:
        """Close the active file after what was put before; tell `done`, in the writer's thread.

        `done` gets the name of the closed file, or None if there was nothing in it.
        """

        def rotate() -> _Work:
            self._rotations.append(done)
            if self._is_due():
                yield from self._rotate()

        self._request(rotate)

    def reopen(self) -> None:
        """Look whether another program has moved the active file."""
        self._request(self._follow)

    def hold(self, done: Callable[[], None]) -> None:
        """Write nothing more after what was put before, until `release_hold`, or for `HOLD`.

        `done` is told, in the writer's thread, when the file stands still. At a stop what waits is
        given up, or it would be lost between another program's copy and its cut. A hold that is
        released before it begins, while the disk takes nothing, does not begin, and `done` is not
        told: whoever asked for it may be gone.
        """
        releases = self._releases

        def wait() -> _Work:
            if releases != self._releases:
                return
            self._released.clear()
            if not self._stopping.is_set():
                self._held_until = self._clock.monotonic() + HOLD
                done()
                yield Wait(HOLD, self._released)
                if self._stopping.is_set() and self.hold_ends_in:
                    raise _GivenUpError
                self._held_until = 0.0

        self._request(wait)

    @property
    def hold_ends_in(self) -> float:
        """Seconds until a `hold` ends by itself; 0 while nothing is held."""
        return max(0.0, self._held_until - self._clock.monotonic()) if self._held_until else 0.0

    def release_hold(self) -> None:
        """Write again."""
        self._releases += 1
        self._held_until = 0.0
        self._released.set()

    def set_policy(self, policy: RotationPolicy) -> None:
        """Close files by another policy from now on."""

        def change() -> Iterable[Wait]:
            self._policy = policy
            return ()

        self._request(change)

    def stop(self) -> Mark:
        """Write what was put, close the file, and return where the log ends.

        What a full or failing disk does not take at once is given up, and so is what waits for the
        end of a hold: nobody was told that it was durable.
        """
        self._stopping.set()
        self._released.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        else:
            while self.step():
                pass
        mark = self._active.mark
        self._active.close()
        return mark

    def _request(self, request: _Request) -> None:
        self._requests.append(request)
        self._queue.put(None)

    # The thread.

    def _run(self) -> None:
        try:
            while wait := self.step():
                self._wait(wait)
        except Exception as error:
            self._owner.failed(error)

    def _wait(self, wait: Wait) -> None:
        if wait.is_idle:
            with contextlib.suppress(Empty):
                self._taken.append(self._queue.get(timeout=wait.seconds))
        elif wait.until is not None:
            wait.until.wait(wait.seconds)
        else:
            self._clock.sleep(wait.seconds)

    # The steps.

    def _steps(self) -> _Work:
        with contextlib.suppress(_GivenUpError):
            is_last = False
            while not is_last:
                is_last = self._stopping.is_set()
                items = self._take()
                if not (items or self._requests or is_last):
                    yield Wait(self._longest_wait(), is_idle=True)
                    items = self._take()
                    if not items:
                        yield from self._persist(self._active.check_home)
                yield from self._write(items)
                while self._requests:
                    yield from self._requests.popleft()()
                if len(items) > 1:
                    yield Wait(_GATHERING)

    def _take(self) -> list[Item]:
        """Return all that has been put."""
        queue = self._queue
        waiting = [*self._taken, *islice(iter(queue.get_nowait, _NEVER), queue.qsize())]
        self._taken.clear()
        return [item for item in waiting if item is not None] if None in waiting else waiting  # type: ignore[return-value]

    def _longest_wait(self) -> float:
        left = self._policy.seconds_left(self._clock.wall()) if self._active.size else _LOOK_AROUND
        return min(left, _LOOK_AROUND)

    def _write(self, items: list[Item]) -> _Work:
        """Write records, closing the file before those that would exceed its size or time."""
        if self._is_due():
            yield from self._rotate()
        while items:
            count = self._fitting(items)
            if count == 0:
                yield from self._rotate()
                continue
            yield from self._commit(items[:count])
            items = items[count:]

    def _is_due(self) -> bool:
        if self._is_put_off():
            return False
        active = self._active
        return bool(self._rotations) or (
            bool(active.size) and self._policy.is_due(active.begun, self._clock.wall())
        )

    def _is_put_off(self) -> bool:
        return self._rotation_fails and self._clock.monotonic() < self._rotate_from

    def _fitting(self, items: list[Item]) -> int:
        """Return how many of the items are to be written together; 0 if none fits into the file."""
        ends = list(accumulate(map(len, map(_BLOCK_OF, items))))
        room = math.inf if self._is_put_off() else self._policy.room(self._active.size)
        if ends[0] > room and self._active.size:
            return 0
        return max(1, bisect_right(ends, min(room, _MAX_COMMIT)))

    def _commit(self, items: list[Item]) -> _Work:
        begun = self._clock.monotonic()
        blocks = list(map(_BLOCK_OF, items))
        yield from self._follow()
        yield from self._persist(
            lambda: self._active.append(blocks, sync=self._sync),
            lambda: self._active.resume(sync=self._sync),
        )
        seconds = self._clock.monotonic() - begun
        self._owner.committed(Commit(items, self._active.mark, seconds))

    def _rotate(self) -> _Work:
        """Close the file; where that fails, go on with it and try again later.

        The disk may be well, and only a descriptor be missing. If it is not, the next commit says
        so.
        """
        yield from self._follow()
        closed = None
        if self._active.size:
            try:
                closed = self._active.rotate()
            except OSError as error:
                self._put_rotation_off(error)
                return
        self._rotation_fails = False
        if closed is not None:
            self._owner.rotated(closed, self._active.mark)
        rotations, self._rotations = self._rotations, []
        for done in rotations:
            done(closed)

    def _put_rotation_off(self, error: OSError) -> None:
        self._rotate_from = self._clock.monotonic() + _ROTATE_AGAIN
        if not self._rotation_fails:
            self._rotation_fails = True
            self._owner.tell(RotationFailing(error))

    def _follow(self) -> _Work:
        def look() -> None:
            if found := self._active.reopen_if_moved():
                self._owner.tell(found)

        return self._persist(look)

    def _persist(
        self, attempt: Callable[[], None], again: Callable[[], None] | None = None
    ) -> _Work:
        """Do what may fail until it succeeds.

        Args:
            attempt: what to do.
            again: what to do after a failure; the same, if it is None.

        Raises:
            _GivenUpError: stopped before that.
        """
        failing_since = None
        while True:
            try:
                attempt()
            except OSError as error:
                if failing_since is None:
                    failing_since = self._clock.monotonic()
                    self._owner.failing(error)
                yield Wait(_RETRY, self._stopping)
                if self._stopping.is_set():
                    raise _GivenUpError from error
                attempt = again or attempt
            else:
                if failing_since is not None:
                    self._owner.recovered(self._clock.monotonic() - failing_since)
                return
