"""The system calls by which the journal changes files, so that a model of a disk can stand in."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.layout import open_own


class Disk:
    """The disk of the operating system. All of them raise OSError."""

    open = staticmethod(open_own)
    open_found = staticmethod(os.open)  # what the log's folder holds, whoever put it there
    close = staticmethod(os.close)
    lstat = staticmethod(os.lstat)
    fstat = staticmethod(os.fstat)
    pread = staticmethod(os.pread)
    writev = staticmethod(os.writev)
    pwritev = staticmethod(os.pwritev)
    fdatasync = staticmethod(os.fdatasync)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    fallocate = staticmethod(os.posix_fallocate)
    fadvise = staticmethod(os.posix_fadvise)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    map = staticmethod(mmap.mmap)

    @staticmethod
    def open_folder(path: Path) -> int:
        """Open a folder, to sync which names it holds (fsync(2): a file's own sync does not)."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def opened(self, path: Path, flags: int) -> Iterator[int]:
        """Open a file that is there, and close it at the end of the `with` block."""
        fd = self.open_found(path, flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            self.close(fd)

    def write_all(self, fd: int, data: bytes) -> None:
        """Write all of `data`, however short the system's writes fall."""
        while data:
            data = data[self.writev(fd, [data]) :]

    def sync_folder(self, path: Path) -> None:
        """Put on disk which names a folder holds."""
        fd = self.open_folder(path)
        try:
            self.fsync(fd)
        finally:
            self.close(fd)

    def identity(self, path: Path) -> tuple[int, int] | None:
        """Return the device and inode of a path, which tell a file from another of its name."""
        status = self.status(path)
        return None if status is None else (status.st_dev, status.st_ino)

    def status(self, path: Path) -> os.stat_result | None:
        """Look at a path, following no link; None if nothing is there."""
        try:
            return self.lstat(path)
        except FileNotFoundError:
            return None
