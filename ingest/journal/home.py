"""Whether the folder that we write is still the one that we locked."""

import errno
from collections.abc import Iterable
from pathlib import Path

from ingest.journal.disk import Disk


class FolderReplacedError(OSError):
    """What we locked was moved away or replaced: another listener may write there now."""


class Home:
    """Remembers which files and folders stood at some paths, and compares.

    A lock is on a file, not on a path: where the folder is moved away, or the lock file is
    removed, a second listener finds nothing locked there, and both would write one log.
    """

    def __init__(self, paths: Iterable[Path], disk: Disk) -> None:
        """Remember what is at `paths` now; nothing is to stay nothing.

        Raises:
            OSError: one can't be looked at.
        """
        self._disk = disk
        self._found = {path: disk.identity(path) for path in paths}

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
