"""A file of the log: its name, how it is opened, and what its ends show of it.

The log is one folder. `ingest.log` is being written. A file that is closed is renamed after the
UTC time of its closing, `ingest-20261122T113900.123Z.log`, and may be compressed later to
`.log.zst` or `.log.gz`. Closing times strictly increase, so the order of names is the order of
age; what time a record has, no name tells: the clock may have jumped. Files that an external
rotation left (`ingest.log.1`, `ingest.log-20261122.gz`) belong to the log as well. Which of them
all make the log is told by `listing`.
"""

import errno
import io
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from ingest.log.decompressing import DAMAGED, SUFFIXES, Decompressed
from ingest.record import first_time, numbers_in, record_time

ACTIVE = "ingest.log"

_ROTATED = re.compile(
    r"ingest-([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2}\.[0-9]{3})Z\.log(?:\.gz|\.zst)?"
)
_EXTERNAL = re.compile(
    r"(?:ingest\.log[.-][0-9][0-9T.Z-]*(?:\.backup)?|ingest-[0-9-]+\.log)(?:\.gz|\.zst)?"
)
_MILLISECOND = timedelta(milliseconds=1)
_CHUNK = 1 << 20
HEAD_SIZE = 512  # holds the time, device and number of any record
SAMPLE = 1 << 16
"""Bytes at either end of a file that are searched for what tells its age."""


@dataclass(frozen=True)
class LogFile:
    """A file of the log.

    Attributes:
        path: where it was when it was listed.
        compressed: how its name ends: `""`, `.gz` or `.zst`.
        inode: its number in the file system, by which it is found under another name.
    """

    path: Path
    compressed: str = ""
    inode: int | None = field(default=None, compare=False)

    @property
    def closed(self) -> str | None:
        """When a rotated file was closed, `2026-11-22T11:39:00.123`; None for other files."""
        match = _ROTATED.fullmatch(self.path.name)
        return None if match is None else _sane("{}-{}-{}T{}:{}:{}".format(*match.groups()))

    @property
    def name_when_closed(self) -> str:
        """Its name before it was compressed."""
        return self.path.name.removesuffix(self.compressed)


def _sane(closed: str) -> str | None:
    """Return a time of closing if there is such a time, and one after it."""
    try:
        datetime.fromisoformat(closed) + _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return closed


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


def open_log(file: LogFile) -> BinaryIO:
    """Open a file of the log for reading, decompressed.

    If it was renamed after it was listed (logrotate makes `ingest.log.2` of `ingest.log.1`), it
    is opened under its new name; if it was compressed, the copy is.

    Raises:
        FileNotFoundError: neither it nor a compressed copy is there any more.
        OSError: it can't be opened. Reading raises one of `DAMAGED` if its content is damaged
            or cut short, once what is good has been read.
    """
    try:
        return _readable(_open_listed(file), file.compressed)
    except FileNotFoundError:
        for suffix in SUFFIXES[1:]:
            copy = file.path.with_name(file.path.name + suffix)
            if copy.exists():
                return _readable(copy.open("rb"), suffix)
        raise


def find_damage(file: LogFile) -> str | None:
    """Read a compressed file to its end, and return why not all of it can be read; None if it can.

    Others may not notice: DuckDB takes a file that was cut short for a whole one.

    Raises:
        OSError: it can't be opened, or the disk is failing.
    """
    if not file.compressed:
        return None
    end = b"\n"
    try:
        with open_log(file) as stream:
            while chunk := stream.read(_CHUNK):
                end = chunk[-1:]
    except DAMAGED as error:
        return str(error)
    return None if end == b"\n" else "it ends within a line"


def describe_damage(path: Path, why: object) -> str:
    """Say that of a file only the first part was read, and what to do."""
    return (
        f"{path} is damaged ({why}): what follows in it is left out; put a good copy in its place,"
        " or move it away"
    )


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


def head_of_open(stream: BinaryIO) -> bytes:
    """Read `head_of` from an uncompressed file that is open; its place stays."""
    return head_of(os.pread(stream.fileno(), HEAD_SIZE, 0))


def head_in(file: LogFile) -> bytes:
    """Read `head_of` from a file of the log; empty if it is gone or damaged."""
    try:
        with open_log(file) as stream:
            return read_head(stream)
    except (FileNotFoundError, *DAMAGED):
        return b""


class Sample(NamedTuple):
    """What the two ends of a file show of it.

    Attributes:
        begun: the time of its first record, as records have it; empty without one.
        numbers: a number of each device that was seen.
    """

    begun: str
    numbers: dict[bytes, int]


def is_plain(stream: BinaryIO) -> bool:
    """Tell whether a stream of `open_log` is not compressed, and so can be read from its end.

    A file that is not compressed when it is listed may be so when it is opened.
    """
    return isinstance(stream, io.BufferedReader)


def sample(file: LogFile) -> Sample:
    """Look at the first and the last records of a file; of a compressed one at the first only.

    One that can't be read shows nothing.
    """
    end = b""
    try:
        with open_log(file) as stream:
            begin = stream.read(SAMPLE)
            if is_plain(stream):
                stream.seek(max(len(begin), stream.seek(0, os.SEEK_END) - SAMPLE))
                end = stream.read().partition(b"\n")[2]  # it may begin within a line
    except (OSError, *DAMAGED):
        return Sample("", {})
    begun = first_time(begin)
    found = numbers_in(begin) + numbers_in(end)
    numbers = {device: int(number) for device, number in dict(found).items()}
    return Sample("" if begun is None else record_time(begun).decode(), numbers)


def whole_end(stream: BinaryIO, size: int = 1 << 16, before: int | None = None) -> int:
    """Find where the last whole line of an uncompressed file ends; 0 if it holds none.

    Args:
        stream: the file.
        size: how many bytes to read at once.
        before: where to begin; None for the end of the file.
    """
    end = stream.seek(0, os.SEEK_END) if before is None else before
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


def is_member(name: str) -> bool:
    """Tell whether a name is one that a file of the log may have."""
    return name == ACTIVE or bool(LogFile(Path(name)).closed or _EXTERNAL.fullmatch(name))


def suffix_of(name: str) -> str:
    """Return how the name of a file of the log ends: `""`, `.gz` or `.zst`."""
    suffix = "." + name.rpartition(".")[2]
    return suffix if suffix in SUFFIXES else ""


def inodes(folder: Path) -> dict[str, int]:
    """Return the names in a folder, and the numbers of the files that bear them."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries}


def _open_listed(file: LogFile) -> BinaryIO:
    """Open the very file that was listed."""
    try:
        raw = file.path.open("rb")
    except FileNotFoundError:
        if file.inode is None:
            raise
    else:
        if file.inode in (None, os.fstat(raw.fileno()).st_ino):
            return raw
        raw.close()
    for name, inode in inodes(file.path.parent).items():
        # The number of a file that is gone may be that of a new one by now.
        if inode == file.inode and name != ACTIVE and is_member(name):
            return file.path.with_name(name).open("rb")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file.path))


def _readable(raw: BinaryIO, compressed: str) -> BinaryIO:
    return cast(BinaryIO, Decompressed(raw, compressed)) if compressed else raw
