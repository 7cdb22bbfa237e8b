"""Whether the folder that we write is still the one that we locked."""

import errno
from collections.abc import Iterable
from pathlib import Path

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk

_PERIOD = 0.25
"""Seconds for which one look counts: less than a second listener takes to start. Each call of the
system makes the writer wait for the interpreter's lock, so there is none at each commit."""


class FolderReplacedError(OSError):
    """What we locked was moved away or replaced: another listener may write there now."""


class Home:
    """Remembers which files and folders stood at some paths, and compares.

    A lock is on a file, not on a path: where the folder is moved away, or the lock file is
    removed, a second listener finds nothing locked there, and both would write one log.
    """

    def __init__(self, paths: Iterable[Path], disk: Disk, clock: Clock) -> None:
        """Remember what is at `paths` now; nothing is to stay nothing.

        Raises:
            OSError: one can't be looked at.
        """
        self._disk = disk
        self._clock = clock
        self._good_until = 0.0  # on the monotonic clock
        self._found = {path: disk.identity(path) for path in paths}

    def check_if_due(self) -> None:
        """Compare, unless that was done a moment ago; see `check`."""
        now = self._clock.monotonic()
        if now >= self._good_until:
            self.check()
            self._good_until = now + _PERIOD

    def check(self) -> None:
        """Compare with what is there now.

        Raises:
            FolderReplacedError: it is not the same.
            OSError: it can't be looked at.
        """
        for path, identity in self._found.items():
            if self._disk.identity(path) != identity:
                raise FolderReplacedError(
                    errno.ESTALE,
                    f"{path} is not the one that this listener locked at its start: it was moved"
                    " away or replaced; put it back, or stop this listener",
                )
