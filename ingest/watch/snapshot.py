"""All of the log at one instant: each closed file as Parquet or as lines, and the active one.

The files are opened at once, and are read by their descriptors: a rotation, a compression or a
retention that comes afterwards changes nothing for the reader.
"""

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from ingest.layout import Layout
from ingest.log.files import ACTIVE, LogFile
from ingest.log.listing import log_files
from ingest.log.reading import Filter

_ATTEMPTS = 100
_PARQUET = ".parquet"
_MAGIC = b"PAR1"  # https://parquet.apache.org/docs/file-format/
_SUFFIXES = ("", ".zst", ".gz")
_LAST = datetime.max.replace(tzinfo=UTC)
_LATE = timedelta(days=1)
"""How much older than the closing of the file before a record may be: its time is when it was
read, and while the disk is full it waits."""


def columns_path(layout: Layout, file: LogFile) -> Path:
    """Return where the Parquet of a rotated file lies: in the folder of the day of its closing."""
    assert file.closed is not None, file
    stem = file.path.name.partition(".log")[0]
    return layout.columns_folder / file.closed[:10] / f"{stem}.parquet"


@dataclass(frozen=True)
class Piece:
    """One file of the log, opened.

    Attributes:
        file: the file of the log.
        fd: the descriptor: of the file itself, of its compressed copy or of its Parquet.
        parquet: whether it is Parquet; else lines, `compressed` as in `LogFile`.
        size: its size when it was opened.
    """

    file: LogFile
    fd: int
    parquet: bool
    compressed: str
    size: int

    @property
    def path(self) -> str:
        """A path by which this process opens it, whatever its name is by now."""
        return f"/proc/self/fd/{self.fd}"


class Snapshot:
    """The log at one instant, oldest file first; a context manager that closes the files."""

    def __init__(self, layout: Layout) -> None:
        """Open the files.

        Raises:
            OSError: the folder of the log is missing, or a file can't be read.
        """
        with ExitStack() as opened:
            self.pieces = _open_all(layout, opened)
            self._opened = opened.pop_all()

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    def between(self, since: datetime | None, until: datetime | None) -> list[Piece]:
        """Return the files that may hold records from `since` on and before `until`.

        What a file holds is told by its records, not by its name: the clock may have jumped.
        Parquet files are always among them: their statistics tell.
        """
        limit = None if until is None or until >= _LAST - _LATE else until + _LATE
        wanted = Filter(since=since, until=limit)
        found: list[Piece] = []
        begun = ""
        for piece in self.pieces:
            file = piece.file
            if piece.parquet or not (wanted.is_past(file) or wanted.is_ahead(file, begun)):
                found.append(piece)
            begun = file.closed or begun
        return found

    def was_cut(self) -> bool:
        """Tell whether another program cut a file shorter since it was opened (copytruncate)."""
        return any(os.fstat(piece.fd).st_size < piece.size for piece in self.pieces)


def _open_all(layout: Layout, opened: ExitStack) -> list[Piece]:
    """Open the file in use, and all that are older; again if one of those came or was renamed.

    The file in use is opened first: what is closed, compressed or begun afterwards is behind the
    instant of the snapshot. Of what retention removes meanwhile, nothing older is kept either.
    What a rotated file holds never changes, so it is opened once: only the first attempt takes
    longer the more files there are. Any other file is opened anew in each attempt.
    """
    held: dict[str, Piece] = {}
    active = layout.log_folder / ACTIVE
    for number in range(_ATTEMPTS):
        time.sleep(number / 1000)  # ever longer, until nothing happens meanwhile
        newest = _open_path(LogFile(active), active, "", opened)
        inode = os.fstat(newest.fd).st_ino if newest else None
        files = _up_to(inode, log_files(layout.log_folder))
        pieces: list[Piece] = []
        for file in files:
            if newest and file.inode == inode:
                pieces.append(replace(newest, file=file))
            elif piece := _opened_once(layout, file, held, opened):
                pieces.append(piece)
            else:
                pieces.clear()
        now = _up_to(inode, log_files(layout.log_folder))
        if _names(now, inode) == _names(files, inode)[len(files) - len(now) :]:
            return pieces
    raise OSError(0, "its files change too quickly to be read", str(layout.log_folder))


def _up_to(inode: int | None, files: list[LogFile]) -> list[LogFile]:
    """Return the files up to the one with this inode; all, if there is none."""
    places = [place for place, file in enumerate(files) if file.inode == inode]
    return files[: places[0] + 1] if places else files


def _opened_once(
    layout: Layout, file: LogFile, held: dict[str, Piece], opened: ExitStack
) -> Piece | None:
    """Open a file, unless `held` has it from an earlier attempt; None if it is gone."""
    name = file.name_when_closed
    piece = held.get(name) or _open(layout, file, opened)
    if piece is not None and file.closed:
        held[name] = piece
    return piece


def _names(files: Iterable[LogFile], inode: int | None) -> list[object]:
    """Return what tells one state of the folder from another.

    The name of a rotated file says what it holds, compressed or not. That of any other file is
    given to one after another, and the newest, which has this inode, gets another one.
    """
    return [
        file.name_when_closed if file.closed and file.inode != inode else file.inode
        for file in files
    ]


def _open(layout: Layout, file: LogFile, opened: ExitStack) -> Piece | None:
    """Open a file as Parquet if that is there and whole, else as lines; None if it is gone."""
    if file.closed:
        piece = _open_path(file, columns_path(layout, file), _PARQUET, opened)
        if piece is not None and is_whole_parquet(piece.fd):
            return piece
    return open_lines(file, opened)


def is_whole_parquet(fd: int) -> bool:
    """Tell whether a file begins and ends as Parquet does, so that nothing of it is cut off."""
    size = os.fstat(fd).st_size
    ends = os.pread(fd, len(_MAGIC), 0), os.pread(fd, len(_MAGIC), max(0, size - len(_MAGIC)))
    return size > 2 * len(_MAGIC) and ends == (_MAGIC, _MAGIC)


def open_lines(file: LogFile, opened: ExitStack) -> Piece | None:
    """Open a file as it stands there, or its copy if it was compressed; None if it is gone."""
    original = file.path.with_name(file.name_when_closed)
    copies = (_open_path(file, Path(f"{original}{suffix}"), suffix, opened) for suffix in _SUFFIXES)
    return next(filter(None, copies), None)


def _open_path(file: LogFile, path: Path, kind: str, opened: ExitStack) -> Piece | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    opened.callback(os.close, fd)
    parquet = kind == _PARQUET
    return Piece(file, fd, parquet, "" if parquet else kind, os.fstat(fd).st_size)
