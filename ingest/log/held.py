"""A file of the log that is held open and read at any place, as blocks of whole lines."""

import io
import os
from contextlib import suppress
from typing import BinaryIO

from ingest.log.decompressing import DAMAGED
from ingest.log.files import HEAD_SIZE, SAMPLE, head_of, head_of_open, identity, whole_end
from ingest.record import first_since

BLOCK = 1 << 20


class HeldFile:
    """An open file. Offsets count decompressed bytes, and are where a line begins.

    Attributes:
        head: what tells it from any other file; empty as long as there is no such thing.
        identity: its device and inode; None if it is compressed.
    """

    head: bytes
    identity: tuple[int, int] | None = None

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def reaches(self, offset: int) -> bool:
        """Tell whether it can still be read from `offset` on."""
        raise NotImplementedError

    def read(self, offset: int) -> tuple[int, bytes]:
        """Read whole lines: about `BLOCK` bytes, or one line if that is longer.

        Returns:
            Where they begin, and the lines; nothing at the end. They begin before `offset` only
            where the file was cut shorter: then at its end.

        Raises:
            OSError: the disk is failing. One of `DAMAGED` if the content is damaged.
        """
        raise NotImplementedError

    def is_as_it_was(self) -> bool:
        """Tell whether it still begins as it did when it was opened."""
        raise NotImplementedError

    def begin(self) -> bytes:
        """Return its begin, which may end within a line."""
        raise NotImplementedError

    def end(self, offset: int) -> bytes:
        """Return lines from before `offset`, up to which it was read."""
        raise NotImplementedError

    def whole_end(self) -> int:
        """Return where its last whole line ends."""
        raise NotImplementedError

    def find_time(self, since: bytes) -> int | None:
        """Return where its first record begins that has this time or a later one."""
        offset = 0
        while True:
            offset, block = self.read(offset)
            if not block:
                return None
            if (found := first_since(block, since)) is not None:
                return offset + found
            offset += len(block)

    def close(self) -> None:
        """Close it."""
        self._stream.close()


class PlainFile(HeldFile):
    """A file that is not compressed; it may grow, and be cut."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._fd = stream.fileno()
        self.head = head_of_open(stream)
        self.identity = identity(self._fd)

    def reaches(self, offset: int) -> bool:  # noqa: ARG002
        """See `HeldFile.reaches`."""
        return True

    def read(self, offset: int) -> tuple[int, bytes]:
        """See `HeldFile.read`."""
        if os.fstat(self._fd).st_size < offset:
            offset = self.whole_end()
        size = BLOCK
        while True:
            chunk = os.pread(self._fd, size, offset)
            end = chunk.rfind(b"\n") + 1
            if end or len(chunk) < size:
                return offset, chunk[:end]
            size *= 2

    def is_as_it_was(self) -> bool:
        """See `HeldFile.is_as_it_was`."""
        return os.pread(self._fd, HEAD_SIZE, 0).startswith(self.head)

    def begin(self) -> bytes:
        """See `HeldFile.begin`."""
        return os.pread(self._fd, SAMPLE, 0)

    def end(self, offset: int) -> bytes:
        """See `HeldFile.end`."""
        size = min(offset, SAMPLE)
        return _last_lines(os.pread(self._fd, size, offset - size), whole=size == offset)

    def whole_end(self) -> int:
        """See `HeldFile.whole_end`."""
        return whole_end(self._stream)


class CompressedFile(HeldFile):
    """A file that is compressed: it never changes, and is read from its begin to its end."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._error: Exception | None = None
        self._begin = self._rest = b""
        try:
            self._begin = self._rest = stream.read(SAMPLE)
        except DAMAGED as error:
            self._error = error  # for whoever reads it
        self._offset = 0  # where `_rest` begins
        self._last = b""
        self.head = head_of(self._begin)

    def reaches(self, offset: int) -> bool:
        """See `HeldFile.reaches`."""
        return offset >= self._offset

    def read(self, offset: int) -> tuple[int, bytes]:
        """See `HeldFile.read`."""
        if self._error is not None:
            raise self._error
        self._skip_to(offset)
        chunk = self._rest
        while not (end := chunk.rfind(b"\n") + 1):
            more = self._stream.read(BLOCK)
            if not more:
                break
            chunk += more
        block, self._rest = chunk[:end], chunk[end:]
        self._offset = offset + end
        self._last = block or self._last
        return offset, block

    def is_as_it_was(self) -> bool:
        """See `HeldFile.is_as_it_was`."""
        return True

    def begin(self) -> bytes:
        """See `HeldFile.begin`."""
        return self._begin

    def end(self, offset: int) -> bytes:  # noqa: ARG002
        """See `HeldFile.end`."""
        return _last_lines(self._last[-SAMPLE:], whole=len(self._last) <= SAMPLE)

    def whole_end(self) -> int:
        """See `HeldFile.whole_end`."""
        end, block = self._offset, b"-"
        with suppress(*DAMAGED):  # whoever reads on from there hears of it
            while block:
                offset, block = self.read(end)
                end = offset + len(block)
        return end

    def _skip_to(self, offset: int) -> None:
        skipped = offset - self._offset
        if skipped > len(self._rest):
            self._stream.seek(offset)
        self._rest = self._rest[skipped:]
        self._offset = offset


def hold(stream: BinaryIO) -> HeldFile:
    """Hold what `files.open_log` opened, or an uncompressed file."""
    is_plain = isinstance(stream, io.BufferedReader | io.FileIO)
    try:
        return PlainFile(stream) if is_plain else CompressedFile(stream)
    except BaseException:
        stream.close()
        raise


def _last_lines(end: bytes, *, whole: bool) -> bytes:
    return end if whole else end.partition(b"\n")[2]
