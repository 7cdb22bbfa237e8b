"""The file of the registry: made once, by whoever comes first, and for its owner only."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def opening(path: str, *, make: bool) -> Iterator[None]:
    """Let one process at a time make the file, with mode 0600 for it and those beside it.

    SQLite can't wait for another process while it switches a file to WAL; this can.

    Args:
        path: the file.
        make: False if it must be there.

    Raises:
        OSError: it can't be made, or is not there.
    """
    if not make:
        os.stat(path)  # noqa: PTH116 - SQLite would make it, and its error does not name the reason
        yield
        return
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        # Never opened when it exists: closing it would drop SQLite's locks (POSIX, per process).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        yield
    finally:
        os.close(folder)
