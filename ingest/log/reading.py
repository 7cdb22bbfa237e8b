"""Reading the log back: lines and records, filtered, from the oldest or from the newest."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from ingest.log.decompressing import DAMAGED
from ingest.log.files import LogFile, is_plain, open_log, whole_end
from ingest.log.listing import snapshot
from ingest.record import (
    TIME_SPAN,
    Record,
    first_since,
    has_before,
    line_finder,
    parse,
    record_time,
)

_BLOCK = 1 << 20
_END = 1 << 12
"""Bytes at either end of a file that are looked at before all of it is passed over."""


@dataclass(frozen=True)
class Filter:
    """Which records are wanted: those that pass every condition that is given.

    Args:
        device: a pattern for the device's name; `*` is any characters, `?` is any one.
        since: an aware time; records from then on.
        until: an aware time; records before then.
        grep: searched in the line as it stands in the log.
    """

    device: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    grep: re.Pattern[bytes] | None = None

    def matching(self, block: bytes) -> list[bytes]:
        """Pick the wanted lines, without their LF, from a block of whole lines.

        A line that does not begin as a record does is never wanted: `ingest verify` reports it.
        """
        lines = cast(list[bytes], self._line.findall(b"\n" + block))
        if self._since is not None:
            lines = [line for line in lines if line[TIME_SPAN] >= self._since]
        if self._until is not None:
            lines = [line for line in lines if line[TIME_SPAN] < self._until]
        if self.grep is not None:
            lines = list(filter(self.grep.search, lines))
        return lines

    def is_past(self, file: LogFile) -> bool:
        """Tell whether all of `file` is older than the first moment that is wanted.

        Its name says when it was closed, by the clock of that moment. A clock that was ahead and
        was corrected has stamped younger records before, so what can be read cheaply of them has to
        agree: both ends of the file, and the begin alone of a compressed one.
        """
        # What remains: records that were stamped while the clock was ahead and lie far from both
        # ends, or far from the begin of a compressed file. To find these would be to read it all.
        closed, since = file.closed, self._since
        if closed is None or since is None or closed >= since[:23].decode():
            return False
        return all(first_since(end, since) is None for end in _ends(file))

    def is_ahead(self, file: LogFile, begun: str) -> bool:
        """Tell whether all of `file` is younger than the last moment that is wanted.

        As in `is_past`, a name alone is not believed. For example, with `until` 2026-11-22, and
        the file before closed in 2036, while the clock was ahead:

            first record of 2036, last of 2036     the clock is right: it is ahead
            first record of 2036, last of 2026     the clock was set back: it is not

        Of a compressed file, in place of its last record the time tells when it was last changed.

        Args:
            file: the file.
            begun: when the file before it was closed, by its name: `2026-11-22T11:39:00.123`.
        """
        until = self._until
        if until is None or begun < until[:23].decode():
            return False
        ends = _ends(file)
        return bool(ends) and not (
            any(has_before(end, until) for end in ends) or _changed(file) < until
        )

    @cached_property
    def _since(self) -> bytes | None:
        return None if self.since is None else record_time(self.since)

    @cached_property
    def _until(self) -> bytes | None:
        return None if self.until is None else record_time(self.until)

    @cached_property
    def _line(self) -> re.Pattern[bytes]:
        return line_finder(self.device)


EVERYTHING = Filter()


class WholeLines:
    """A stream as blocks of whole lines.

    It may be iterated again when the stream has grown, and goes on where it stood. `torn` is the
    start of a line whose end is not there yet, `offset` the end of the last whole line.
    """

    def __init__(self, stream: BinaryIO, offset: int = 0, size: int = _BLOCK) -> None:
        self.torn = bytearray()
        self.offset = offset
        self._stream = stream
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._stream.read(self._size):
            end = chunk.rfind(b"\n") + 1
            if not end:
                self.torn += chunk
                continue
            block = bytes(self.torn) + chunk[:end]
            self.torn[:] = chunk[end:]
            self.offset += len(block)
            yield block


def read_blocks(stream: BinaryIO, size: int = _BLOCK) -> Iterator[bytes]:
    """Read a stream as blocks of whole lines of about `size` bytes, without a torn last line."""
    return iter(WholeLines(stream, size=size))


def read_blocks_backwards(stream: BinaryIO, end: int, size: int = 1 << 18) -> Iterator[bytes]:
    """Read the lines before the offset `end`, where a line ends, the last block first."""
    rest = b""  # the end of a line that begins in an earlier block
    while end:
        start = max(0, end - size)
        stream.seek(start)
        chunk = stream.read(end - start)
        cut = chunk.find(b"\n") + 1 if start else 0
        end = start
        if start and not cut:
            rest = chunk + rest
            continue
        if block := chunk[cut:] + rest:
            yield block
        rest = chunk[:cut]


Damaged = Callable[[Path, Exception], object]
"""Is told which file can be read in part only, and why; reading goes on with the next one."""


def give_up(_path: Path, error: Exception) -> None:
    """Read no further: raise the error, one of `DAMAGED`."""
    raise error


def lines(folder: Path, wanted: Filter = EVERYTHING, damaged: Damaged = give_up) -> Iterator[bytes]:
    """The wanted lines of the log, oldest first, without their LF.

    Raises:
        OSError: the folder is missing, or a file can't be read. Whatever `damaged` raises.
    """
    older, active = snapshot(folder)
    with active or nullcontext():
        yield from lines_of(older, wanted, damaged)
        if active is not None:
            yield from chain.from_iterable(map(wanted.matching, read_blocks(active)))


def records(folder: Path, wanted: Filter = EVERYTHING) -> Iterator[Record]:
    """The wanted records of the log, oldest first. Lines that are not records are left out.

    Raises:
        OSError: the folder is missing, or a file can't be read.
    """
    for line in lines(folder, wanted):
        try:
            yield parse(line)
        except ValueError:
            continue


def last(
    folder: Path, count: int, wanted: Filter = EVERYTHING, damaged: Damaged = give_up
) -> list[bytes]:
    """The last `count` wanted lines, oldest first. Older files than needed are not read.

    Raises:
        OSError: the folder is missing, or a file can't be read. Whatever `damaged` raises.
    """
    older, active = snapshot(folder)
    if active is None:
        return last_of(older, None, 0, count, wanted, damaged)
    with active:
        return last_of(older, active, whole_end(active), count, wanted, damaged)


def lines_of(files: list[LogFile], wanted: Filter, damaged: Damaged = give_up) -> Iterator[bytes]:
    """The wanted lines of `files`."""
    for file in files:
        if not wanted.is_past(file):
            yield from _file_lines(file, wanted, damaged)


def last_of(
    older: list[LogFile],
    active: BinaryIO | None,
    end: int,
    count: int,
    wanted: Filter,
    damaged: Damaged = give_up,
) -> list[bytes]:
    """The last `count` wanted lines of `older` and of the first `end` bytes of `active`."""
    found = _last_in(active, end, count, wanted) if active is not None else []
    for file in reversed(older):
        if len(found) >= count:
            break
        if not wanted.is_past(file):
            found[:0] = _last_in_file(file, count - len(found), wanted, damaged)
    return found


def _ends(file: LogFile) -> list[bytes]:
    """Read the begin and the end of a file; of a compressed one the begin, of a bad one nothing."""
    try:
        with open_log(file) as stream:
            begin = stream.read(_END)
            if len(begin) < _END or not is_plain(stream):
                return [begin]
            end = whole_end(stream, _END)
            return [begin, next(read_blocks_backwards(stream, end, _END), b"")]
    except (FileNotFoundError, *DAMAGED):
        return []


def _changed(file: LogFile) -> bytes:
    """Return when a file was last changed, as records have it; empty if it is gone."""
    with suppress(FileNotFoundError, ValueError, OverflowError):
        return record_time(datetime.fromtimestamp(file.path.stat().st_mtime, UTC))
    return b""


def _file_lines(file: LogFile, wanted: Filter, damaged: Damaged) -> Iterator[bytes]:
    try:
        stream = open_log(file)
    except FileNotFoundError:  # retention removed it after it was listed
        return
    with stream:
        try:
            yield from chain.from_iterable(map(wanted.matching, read_blocks(stream)))
        except DAMAGED as error:
            damaged(file.path, error)


def _last_in_file(file: LogFile, count: int, wanted: Filter, damaged: Damaged) -> list[bytes]:
    if not file.compressed:
        # If this one was compressed since it was listed, it is read as a compressed one is.
        with suppress(FileNotFoundError), file.path.open("rb") as stream:
            return _last_in(stream, whole_end(stream), count, wanted)
    return list(deque(_file_lines(file, wanted, damaged), count))


def _last_in(stream: BinaryIO, end: int, count: int, wanted: Filter) -> list[bytes]:
    found: deque[bytes] = deque()
    for block in read_blocks_backwards(stream, end):
        if len(found) >= count:
            break
        found.extendleft(reversed(wanted.matching(block)))
    return list(found)[max(0, len(found) - count) :]
