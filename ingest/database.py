"""Databases of SQLite that keep a write-ahead log, on a disk that may become full."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_UNIT = 512  # bytes of what `st_blocks` counts, whatever the blocks of the disk have


def keep_write_ahead_log(database: sqlite3.Connection, path: Path | str) -> None:
    """Let a database that was just opened keep a write-ahead log.

    The log has an index, the file `-shm`, which is mapped into memory. SQLite writes one byte to
    each of its pages, so that they have a place on the disk. Where blocks are smaller than pages,
    as on ext4 of less than 512 MiB, the rest of a page has none; and who writes there first while
    the disk is full is ended by SIGBUS. So all of the index gets its blocks at once.

    Args:
        database: begins and ends its transactions by statements.
        path: its file, or ":memory:".

    Raises:
        sqlite3.Error: it can't be written, or there is no room for the index.
    """
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA schema_version").fetchone()  # whoever reads has the index
    try:
        # Beside the file itself, where the path is a link.
        index = Path(f"{os.path.realpath(path)}-shm").stat()
    except FileNotFoundError:  # in memory
        return
    if index.st_blocks * _UNIT >= index.st_size:
        return
    database.execute("BEGIN IMMEDIATE")  # where there is no fallocate(2), zeros are written over
    try:
        _allocate(index)
    finally:
        database.execute("ROLLBACK")


def _allocate(index: os.stat_result) -> None:
    """Give a file that SQLite has opened in this process all its blocks.

    By SQLite's own descriptor: to close another one would drop its locks (POSIX, per process).
    """
    try:
        for fd in _descriptors(index):
            os.posix_fallocate(fd, 0, index.st_size)
    except OSError as error:
        full = sqlite3.OperationalError(f"no room for its index: {error.strerror}")
        full.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise full from error


def _descriptors(file: os.stat_result) -> Iterator[int]:
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        try:
            is_it = os.path.samestat(os.fstat(fd), file)
        except OSError:  # it is closed by now, as that of the folder is
            continue
        if is_it:
            yield fd
