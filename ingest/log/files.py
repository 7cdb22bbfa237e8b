"""The files of the log: their names, their order, and how they are opened.

The log is one folder. `ingest.log` is being written. A file that is closed is renamed after the
UTC time of its closing, `ingest-20261122T113900.123Z.log`, and may be compressed later to
`.log.zst` or `.log.gz`. Closing times strictly increase, so the order of names is the order of
age. Files that an external rotation left (`ingest.log.1`, `ingest.log-20261122.gz`) belong to the
log as well. Everything else in the folder is not the log's.
"""

import gzip
import os
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

ACTIVE = "ingest.log"

# What reading a compressed file raises when its content is damaged or cut short.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)

_ROTATED = re.compile(
    r"ingest-([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2}\.[0-9]{3})Z\.log(?:\.gz|\.zst)?"
)
_EXTERNAL = re.compile(
    r"(?:ingest\.log[.-][0-9][0-9T.Z-]*(?:\.backup)?|ingest-[0-9-]+\.log)(?:\.gz|\.zst)?"
)
_FIRST_TIME = re.compile(rb'^\{"time":"([0-9T:.-]+)Z"', re.MULTILINE)
_SUFFIXES = ("", ".zst", ".gz")
_MILLISECOND = timedelta(milliseconds=1)
HEAD_SIZE = 512  # holds the time, device and number of any record


@dataclass(frozen=True)
class LogFile:
    """A file of the log; `compressed` is how its name ends: `""`, `.gz` or `.zst`."""

    path: Path
    compressed: str = ""

    @property
    def closed(self) -> str | None:
        """When a rotated file was closed, `2026-11-22T11:39:00.123`; None for other files."""
        match = _ROTATED.fullmatch(self.path.name)
        return "{}-{}-{}T{}:{}:{}".format(*match.groups()) if match else None


def rotated_name(closed: datetime, after: str | None) -> str:
    """Name a file that was closed at `closed` (aware), later than the rotated name `after`.

    Where the clock stands still or went back, the name is one millisecond after `after`.

    Raises:
        ValueError: `after` is not the name of a rotated file.
    """
    closed = closed.astimezone(UTC).replace(tzinfo=None)
    if after is not None:
        newest = LogFile(Path(after)).closed
        if newest is None:
            raise ValueError(f"{after!r} is not the name of a rotated file")
        closed = max(closed, datetime.fromisoformat(newest) + _MILLISECOND)
    return f"ingest-{closed:%Y%m%dT%H%M%S}.{closed.microsecond // 1000:03d}Z.log"


def log_files(folder: Path) -> list[LogFile]:
    """List the log, oldest file first and the active one last.

    A file that stands there both compressed and not is listed once: as the original, since that
    one is removed only after its copy is on disk. An external file is placed by its first record.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    names = {entry.name for entry in folder.iterdir()}
    rotated = [LogFile(folder / name, _suffix(name)) for name in names if _is_rotated(name, names)]
    rotated.sort(key=lambda file: (file.closed or _first_time(file), file.path.name))
    return [*rotated, LogFile(folder / ACTIVE)] if ACTIVE in names else rotated


def snapshot(folder: Path) -> tuple[list[LogFile], BinaryIO | None]:
    """List the files that are older than the active one, and open the active one.

    A rotation between the two steps would hide a file; then both are taken again. The active
    file is opened unbuffered: its reader sees what is there now, and None if there is none.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    while True:
        active = _open_active(folder)
        older = [file for file in log_files(folder) if file.path.name != ACTIVE]
        if identity(folder / ACTIVE) == (active and identity(active.fileno())):
            return older, active
        if active is not None:
            active.close()


def open_log(file: LogFile) -> BinaryIO:
    """Open a file of the log for reading, decompressed.

    If it was compressed after it was listed, the copy is opened.

    Raises:
        FileNotFoundError: neither it nor a compressed copy is there any more.
        OSError: it can't be opened. Reading raises one of `DAMAGED` if its content is damaged.
    """
    try:
        return _open(file.path, file.compressed)
    except FileNotFoundError:
        copies = {suffix: file.path.with_name(file.path.name + suffix) for suffix in _SUFFIXES[1:]}
        for suffix, copy in copies.items():
            if copy.exists():
                return _open(copy, suffix)
        raise


def identity(file: Path | int) -> tuple[int, int] | None:
    """The device and inode of a path or a descriptor; None if nothing is there."""
    try:
        status = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def head_of(start: bytes) -> bytes:
    """From the start of a file, take what tells its content from any other file's.

    That is its first line, or the first 512 bytes of it: they hold a device and a number, and no
    two records have both alike. Empty as long as there is no such thing.
    """
    end = start.find(b"\n", 0, HEAD_SIZE) + 1
    if end:
        return start[:end]
    return start[:HEAD_SIZE] if len(start) >= HEAD_SIZE else b""


def read_head(stream: BinaryIO) -> bytes:
    """Read `head_of` from a stream that stands at its start."""
    return head_of(stream.read(HEAD_SIZE))


def whole_end(stream: BinaryIO, size: int = 1 << 16) -> int:
    """Find where the last whole line of an uncompressed file ends; 0 if it holds none."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - size)
        stream.seek(start)
        found = stream.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def sync_folder(folder: Path) -> None:
    """Put on disk which names a folder holds (fsync(2): a file's own sync does not do that).

    Raises:
        OSError: the disk is failing.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_rotated(name: str, names: Collection[str]) -> bool:
    if not (_ROTATED.fullmatch(name) or _EXTERNAL.fullmatch(name)):
        return False
    suffix = _suffix(name)
    better = _SUFFIXES[: _SUFFIXES.index(suffix)]
    return not any(name.removesuffix(suffix) + other in names for other in better)


def _suffix(name: str) -> str:
    suffix = "." + name.rpartition(".")[2]
    return suffix if suffix in _SUFFIXES else ""


def _first_time(file: LogFile) -> str:
    try:
        with open_log(file) as stream:
            match = _FIRST_TIME.search(stream.read(1 << 16))
    except (OSError, *DAMAGED):
        return ""
    return match[1].decode() if match else ""


def _open_active(folder: Path) -> BinaryIO | None:
    try:
        return (folder / ACTIVE).open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _open(path: Path, compressed: str) -> BinaryIO:
    if compressed == ".gz":
        return cast(BinaryIO, gzip.open(path))
    if compressed == ".zst":
        frames = zstandard.ZstdDecompressor().stream_reader(
            path.open("rb"), read_across_frames=True
        )
        return cast(BinaryIO, frames)
    return path.open("rb")
