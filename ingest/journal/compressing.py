"""Compressed copies of closed files: made whole before they bear their name."""

import gzip
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import zstandard

from ingest.log.decompressing import DAMAGED
from ingest.log.files import LogFile, open_log, sync_folder

Compression = Literal["none", "gzip", "zstd"]

SUFFIX = {"gzip": ".gz", "zstd": ".zst"}
TEMPORARY = ".tmp"
"""How the name of a copy ends that is being made."""
_CHUNK = 1 << 20


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def compress(original: Path, compression: Compression, is_stopped: Callable[[], bool]) -> None:
    """Put a compressed copy in the place of a file; nothing is done when stopped meanwhile.

    A crash leaves the file, or both: then the copy is whole, and on disk.

    Raises:
        OSError: the file can't be read, or the disk is full or failing; the file is still there.
    """
    copy = original.with_name(original.name + SUFFIX[compression])
    temporary = copy.with_name(copy.name + TEMPORARY)
    try:
        if not _write_copy(original, temporary, compression, is_stopped):
            return
        temporary.rename(copy)
        sync_folder(copy.parent)
        original.unlink()
    finally:
        temporary.unlink(missing_ok=True)


def is_copy(original: Path, copy: Path) -> bool:
    """Tell whether a compressed file is a copy of another: somebody else's may be cut short.

    Raises:
        OSError: one of them can't be read.
    """
    packed = LogFile(copy, copy.suffix)
    try:
        with original.open("rb") as one, open_log(packed) as other:
            while True:
                chunk = one.read(_CHUNK)
                if other.read(_CHUNK) != chunk:
                    return False
                if not chunk:
                    return True
    except DAMAGED:
        return False


def _write_copy(
    source: Path, target: Path, compression: Compression, is_stopped: Callable[[], bool]
) -> bool:
    """Write a compressed copy and sync it; return False when told to stop meanwhile."""
    status = source.stat()
    # Made anew, and never through a link that others may have put there.
    with source.open("rb") as original, target.open("xb") as raw:
        os.fchmod(raw.fileno(), status.st_mode & 0o777)
        with _compressor(raw, compression) as copy:
            while chunk := original.read(_CHUNK):
                if is_stopped():
                    return False
                copy.write(chunk)
        raw.flush()
        os.utime(raw.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(raw.fileno())
    return True


def _compressor(raw: BinaryIO, compression: Compression) -> AbstractContextManager[_Writer]:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6)
    return zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False)
