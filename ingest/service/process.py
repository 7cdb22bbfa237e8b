"""What a listener asks of its process: its clock, its descriptors, its memory, its folder."""

import fcntl
import gc
import os
import resource

from ingest.layout import Layout, open_own

_COLLECT_AFTER = 20_000
"""New containers between two passes of the garbage collector. One read brings a thousand maps that
are gone before the next: they are no reason to look for garbage, as they are by Python's 700."""


class StartError(Exception):
    """The listener can't start; the text is one line for a person."""


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us, since each connection is one.

    Returns:
        How many that is.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def spare_the_collector() -> None:
    """Let the garbage collector pass seldom, and over nothing that is there since the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


class FolderLock:
    """Holds a data folder, so that no second listener writes the same log."""

    def __init__(self, layout: Layout) -> None:
        """Take the lock; the folder must be there.

        Raises:
            StartError: another listener holds it.
            OSError: the lock's file can't be made.
        """
        self._fd = open_own(layout.lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise StartError(f"{layout.data} is in use by another listener") from None

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)
