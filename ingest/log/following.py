"""Following the log as it grows: across rotation, compression and copytruncate."""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from ingest.log.files import (
    ACTIVE,
    DAMAGED,
    HEAD_SIZE,
    LogFile,
    head_of,
    identity,
    log_files,
    open_log,
    read_head,
    snapshot,
    whole_end,
)
from ingest.log.reading import EVERYTHING, Filter, WholeLines, last_of, lines_of


def _wait() -> None:
    time.sleep(0.2)


def follow(
    folder: Path,
    wanted: Filter = EVERYTHING,
    *,
    first: int | None = 0,
    wait: Callable[[], object] = _wait,
) -> Iterator[bytes]:
    """Yield wanted lines for ever, each once and whole, without its LF, as they are written.

    Args:
        first: how many of the lines that are there already come first; None for all of them.
        wait: is called when there is nothing new.

    Raises:
        OSError: the folder is missing, or a file can't be read.
    """
    older, active = snapshot(folder)
    end = 0
    history: Iterable[bytes] = lines_of(older, wanted)
    if first is not None:
        end = whole_end(active) if active is not None else 0
        history = last_of(older, active, end, first, wanted)
    place = _Place(folder, next(filter(None, map(_head, reversed(older))), b""), active, end)
    try:
        yield from history
        for block in place.blocks(wait):
            yield from wanted.matching(block)
    finally:
        place.close()


class _Place:
    """Where a follower stands: in a file that it holds open, whatever its name is by now.

    A file is known again by its head, since neither a name nor an inode outlives rotation and
    compression. The heads of the two newest files that were reached are kept: if the newest was
    removed, the one before still tells which files are older.
    """

    def __init__(self, folder: Path, reached: bytes, active: BinaryIO | None, offset: int) -> None:
        self._folder = folder
        self._before = b""
        self._head = reached
        self._stream: BinaryIO = io.BytesIO()
        self._lines = WholeLines(self._stream)
        self._active: tuple[int, int] | None = None
        if active is not None:
            self._move_to(active, _head_of_open(active), offset)
            self._active = identity(active.fileno())

    def blocks(self, wait: Callable[[], object]) -> Iterator[bytes]:
        """Yield blocks of whole lines for ever; `wait` is called when there are none."""
        while True:
            if self._holds_active():
                self._look_for_a_cut()
            yield from self._lines
            rest = None if self._holds_active() else self._advance()
            if rest is None:
                wait()
            else:
                yield from rest

    def close(self) -> None:
        """Let go of the held file."""
        self._stream.close()

    def _move_to(self, stream: BinaryIO, head: bytes, offset: int = 0) -> None:
        self._before, self._head = self._head, head
        self._hold(stream, offset)

    def _hold(self, stream: BinaryIO, offset: int) -> None:
        if stream is not self._stream:
            self._stream.close()
        stream.seek(offset)
        self._stream = stream
        self._lines = WholeLines(stream, offset)
        self._active = None

    def _holds_active(self) -> bool:
        return self._active is not None and self._active == identity(self._folder / ACTIVE)

    def _look_for_a_cut(self) -> None:
        """Find the right place again if the active file was cut shorter.

        If it begins as before, all its whole lines were read. Otherwise it was emptied to be used
        again (copytruncate), and what was not read yet stands in the copy.
        """
        active, head = self._active, _head_of_open(self._stream)
        if head and head == self._head:
            size = os.fstat(self._stream.fileno()).st_size
            if size < self._lines.offset + len(self._lines.torn):
                self._hold(self._stream, whole_end(self._stream))
                self._active = active
        elif copy := self._copy():
            self._head = self._head or _head(copy)
            self._hold(open_log(copy), self._lines.offset)
        elif self._head:
            self._move_to(self._stream, head)
            self._active = active
        else:
            self._head = head

    def _copy(self) -> LogFile | None:
        """Find the copy of what the active file held; if it was empty, the next file after."""
        older = [file for file in log_files(self._folder) if file.path.name != ACTIVE]
        if not self._head:
            return self._oldest_newer(older)
        return next((file for file in reversed(older) if _head(file) == self._head), None)

    def _advance(self) -> list[bytes] | None:
        """Hold the next file that has a line; None if there is none yet.

        Nothing is written to a file once a newer one has a line. What was written to the held
        one until then is returned.
        """
        if self._active is not None:
            self._head = self._head or _head_of_open(self._stream)
        older, active = snapshot(self._folder)
        with ExitStack() as unused:
            if active is not None:
                unused.enter_context(active)
            if newer := self._oldest_newer(older):
                stream, rest = open_log(newer), list(self._lines)
                self._move_to(stream, _head(newer))
                return rest
            if active is None or not (head := _head_of_open(active)):
                return None
            unused.pop_all()
            rest = list(self._lines)
            self._move_to(active, head)
            self._active = identity(active.fileno())
            return rest

    def _oldest_newer(self, older: list[LogFile]) -> LogFile | None:
        newer = None
        for file in reversed(older):
            head = _head(file)
            if head and head in (self._before, self._head):
                break
            if self._active is not None and identity(file.path) == self._active:
                break
            newer = file if head else newer
        return newer


def _head(file: LogFile) -> bytes:
    try:
        with open_log(file) as stream:
            return read_head(stream)
    except (FileNotFoundError, *DAMAGED):
        return b""


def _head_of_open(stream: BinaryIO) -> bytes:
    return head_of(os.pread(stream.fileno(), HEAD_SIZE, 0))
