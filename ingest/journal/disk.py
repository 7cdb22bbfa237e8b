"""The system calls by which the journal changes files, so that a model of a disk can stand in."""

import mmap
import os
from pathlib import Path

from ingest.layout import open_own


class Disk:
    """The disk of the operating system. All of them raise OSError."""

    open = staticmethod(open_own)
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
    map = staticmethod(mmap.mmap)

    @staticmethod
    def open_folder(path: Path) -> int:
        """Open a folder, to sync which names it holds (fsync(2): a file's own sync does not)."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

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
