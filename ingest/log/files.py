"""The files of the log: their names, their order, and how they are opened.

The log is one folder. `ingest.log` is being written. A file that is closed is renamed after the
UTC time of its closing, `ingest-20261122T113900.123Z.log`, and may be compressed later to
`.log.zst` or `.log.gz`. Closing times strictly increase, so the order of names is the order of
age. Files that an external rotation left (`ingest.log.1`, `ingest.log-20261122.gz`) belong to the
log as well, where the numbers of their records place them. What has the same first record as
another file is a copy of it and is left out, as is what can't be read (`ingest.log.1.xz`) or what
has another name.
"""

import errno
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import zstandard

from ingest.log.order import Clues, oldest_first
from ingest.record import first_time, numbers_in, record_time

ACTIVE = "ingest.log"

# What reading a compressed file raises when its content is damaged or cut short.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)

_ROTATED = re.compile(
    r"ingest-([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2}\.[0-9]{3})Z\.log(?:\.gz|\.zst)?"
)
_EXTERNAL = re.compile(
    r"(?:ingest\.log[.-][0-9][0-9T.Z-]*(?:\.backup)?|ingest-[0-9-]+\.log)(?:\.gz|\.zst)?"
)
_SUFFIXES = ("", ".zst", ".gz")
_OTHER_COMPRESSION = (".xz", ".bz2", ".lz4", ".lzma", ".lzo", ".7z", ".zip", ".Z", ".br")
_LOOKS_LIKE_THE_LOG = re.compile(r"ingest(?:\.log|-)(?!.*\.tmp$).*", re.DOTALL)
_MILLISECOND = timedelta(milliseconds=1)
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
        return "{}-{}-{}T{}:{}:{}".format(*match.groups()) if match else None


class LeftOut(NamedTuple):
    """What lies in the folder, looks like a file of the log, and is not read; and why."""

    path: Path
    why: str


class Listing(NamedTuple):
    """The log, oldest file first and the active one last, and what is left out."""

    files: list[LogFile]
    left_out: list[LeftOut]


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


def list_log(folder: Path) -> Listing:
    """List the log, and what is left out of it.

    A file that stands there both compressed and not is listed once: as the original, since that
    one is removed only after its copy is on disk. If all names are the listener's no file is
    opened: their order is known.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    left_out: list[LeftOut] = []
    files: list[LogFile] = []
    names = _inodes(folder)
    for name, inode in names.items():
        file = LogFile(folder / name, _suffix(name), inode)
        if not _is_member(name):
            if _LOOKS_LIKE_THE_LOG.fullmatch(name):
                left_out.append(LeftOut(file.path, _why_not(name)))
        elif not _has_better(name, names):
            files.append(file)
    if all(file.closed or file.path.name == ACTIVE for file in files):
        files.sort(key=lambda file: file.closed or "")
    else:
        files = _without_copies(_only_regular(files, left_out), left_out)
        files = [files[place] for place in oldest_first([_clues(file) for file in files])]
    files.sort(key=lambda file: file.path.name == ACTIVE)
    return Listing(files, sorted(left_out))


def log_files(folder: Path) -> list[LogFile]:
    """List the log, oldest file first and the active one last: see `list_log`.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    return list_log(folder).files


def snapshot(folder: Path) -> tuple[list[LogFile], BinaryIO | None]:
    """List the files that are older than the active one, and open the active one.

    A rotation between the two steps would hide a file; then both are taken again. The active
    file is opened unbuffered: its reader sees what is there now, and None if there is none.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    while True:
        active = _open_active(folder)
        head = active and head_of_open(active)
        older = [file for file in log_files(folder) if file.path.name != ACTIVE]
        if identity(folder / ACTIVE) == (active and identity(active.fileno())) and head == (
            active and head_of_open(active)  # another one after a copytruncate
        ):
            return older, active
        if active is not None:
            active.close()


def open_log(file: LogFile) -> BinaryIO:
    """Open a file of the log for reading, decompressed.

    If it was renamed after it was listed (logrotate makes `ingest.log.2` of `ingest.log.1`), it
    is opened under its new name; if it was compressed, the copy is.

    Raises:
        FileNotFoundError: neither it nor a compressed copy is there any more.
        OSError: it can't be opened. Reading raises one of `DAMAGED` if its content is damaged.
    """
    try:
        return _decompressed(_open_listed(file), file.compressed)
    except FileNotFoundError:
        for suffix in _SUFFIXES[1:]:
            copy = file.path.with_name(file.path.name + suffix)
            if copy.exists():
                return _decompressed(copy.open("rb"), suffix)
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


def _is_member(name: str) -> bool:
    return name == ACTIVE or bool(_ROTATED.fullmatch(name) or _EXTERNAL.fullmatch(name))


def _has_better(name: str, names: Collection[str]) -> bool:
    suffix = _suffix(name)
    better = _SUFFIXES[: _SUFFIXES.index(suffix)]
    return any(name.removesuffix(suffix) + other in names for other in better)


def _why_not(name: str) -> str:
    if name.endswith(_OTHER_COMPRESSION):
        return "only .gz and .zst are read"
    return "its name is none of the log's"


def _only_regular(files: Iterable[LogFile], left_out: list[LeftOut]) -> list[LogFile]:
    regular = []
    for file in files:
        if _is_regular(file.path):
            regular.append(file)
        else:
            left_out.append(LeftOut(file.path, "it is no regular file"))
    return regular


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # compressed or removed meanwhile, as its reader will see
        return not path.is_symlink()


def _without_copies(files: Iterable[LogFile], left_out: list[LeftOut]) -> list[LogFile]:
    """Leave out what begins as another file does: a backup, or half of a copytruncate."""
    first: dict[bytes, LogFile] = {}
    kept = []
    for file in sorted(files, key=_rank):
        head = _head_or_nothing(file)
        if head and head in first:
            what = f"it begins with the same record as {first[head].path.name}"
            left_out.append(LeftOut(file.path, what))
        else:
            first[head] = file
            kept.append(file)
    return kept


def _rank(file: LogFile) -> tuple[bool, bool, int, str]:
    """Sort first what is to be read of files that begin alike; copies may be cut short."""
    try:
        size = file.path.stat().st_size
    except OSError:
        size = 0
    name = file.path.name
    return name != ACTIVE and not file.closed, bool(file.compressed), -size, name


def _head_or_nothing(file: LogFile) -> bytes:
    try:
        return head_in(file)
    except OSError:  # whoever reads the file will say so
        return b""


def _suffix(name: str) -> str:
    suffix = "." + name.rpartition(".")[2]
    return suffix if suffix in _SUFFIXES else ""


def _clues(file: LogFile) -> Clues:
    if file.path.name == ACTIVE:
        return Clues("", "", False, {})  # the newest, whatever its records say
    begun, numbers = sample(file)
    return Clues(file.closed or begun, file.path.name, bool(file.closed), numbers)


def _open_active(folder: Path) -> BinaryIO | None:
    try:
        return (folder / ACTIVE).open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _inodes(folder: Path) -> dict[str, int]:
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
    for name, inode in _inodes(file.path.parent).items():
        # The number of a file that is gone may be that of a new one by now.
        if inode == file.inode and name != ACTIVE and _is_member(name):
            return file.path.with_name(name).open("rb")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file.path))


def _decompressed(raw: BinaryIO, compressed: str) -> BinaryIO:
    if compressed == ".gz":
        return cast(BinaryIO, _Gzip(raw))
    if compressed == ".zst":
        frames = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast(BinaryIO, frames)
    return raw


class _Gzip(gzip.GzipFile):
    """A gzip file that closes the file below it, too."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw = raw

    def close(self) -> None:
        super().close()
        self._raw.close()
