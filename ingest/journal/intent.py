"""What is about to be written, so that a killed process leaves no torn line.

The kernel copies a large write page by page and looks for SIGKILL between two pages, so a kill
can end a write in the middle of a line, which `tail -F` has then printed. Before each write to
the log its bytes are put here; the next start completes the write in the same place. After a
power cut nothing here is trusted: the two files reach the disk in no order. Then the torn line
is cut away, and no `tail` is left that printed it.
"""

import os
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ingest.journal.disk import Disk

_MAGIC = b"ingest1\n"
_NO_MAGIC = bytes(len(_MAGIC))
_FIELDS = struct.Struct("<16sQQQQ?")  # boot, device, inode, offset, length, done; after the magic
_DONE = len(_MAGIC) + _FIELDS.size - 1
_BODY = 4096
ROOM = 4 << 20
"""Bytes of one intent for which there is room on the disk, however full it is."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Intent(NamedTuple):
    """A write: `data` at `offset` of the file with this `identity`; `done` when it is on disk."""

    identity: tuple[int, int]
    offset: int
    data: bytes
    done: bool = False


class IntentFile:
    """Holds the newest intent. Written before the log, through the same page cache."""

    def __init__(self, path: Path, disk: Disk) -> None:
        """Open or make the file, and reserve its room so that a full disk does not stop it.

        Raises:
            OSError: it can't be made, or there is no room.
        """
        self._disk = disk
        self._fd = disk.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._boot = _boot_id()
        disk.fallocate(self._fd, 0, _BODY + ROOM)
        self._header = disk.map(self._fd, _BODY)

    def put(self, identity: tuple[int, int], offset: int, blocks: Sequence[bytes]) -> None:
        """Remember that `blocks` are about to be written at `offset` of a file.

        While the bytes change there is no header: one that is there speaks of these bytes.

        Raises:
            OSError: the disk is full or failing.
        """
        header = self._header  # in memory that is the file's page: three stores, no system call
        header[: len(_MAGIC)] = _NO_MAGIC
        length = self._disk.pwritev(self._fd, blocks, _BODY)
        while length < (whole := sum(map(len, blocks))):
            rest = b"".join(blocks)[length:whole]
            length += self._disk.pwritev(self._fd, [rest], _BODY + length)
        _FIELDS.pack_into(header, len(_MAGIC), self._boot, *identity, offset, length, False)
        header[: len(_MAGIC)] = _MAGIC

    def probe(self) -> None:
        """Find out whether the file system still takes changes: reserve room that we have.

        Where the journal of ext4 breaks in the middle of an `fdatasync`, that returns as if all
        were well, and what it was to sync is lost. Whatever changes a file fails from then on.

        Raises:
            OSError: it does not, and what was synced last may not be on the disk.
        """
        self._disk.fallocate(self._fd, 0, 1)

    def done(self) -> None:
        """Remember that the newest intent is on disk, so that a file without it has lost it."""
        self._header[_DONE] = 1

    def get(self) -> Intent | None:
        """Return the newest intent, or None if there is none from this boot of the system."""
        boot, device, inode, offset, length, done = _FIELDS.unpack_from(self._header, len(_MAGIC))
        if self._header[: len(_MAGIC)] != _MAGIC or boot != self._boot:
            return None
        data = self._disk.pread(self._fd, length, _BODY)
        return Intent((device, inode), offset, data, done) if len(data) == length else None

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._header.close()
        self._disk.close(self._fd)


def _boot_id() -> bytes:
    return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
