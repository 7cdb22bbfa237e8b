"""Places in the log: values that can be kept, and the files that they lie in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import orjson

from ingest.log.decompressing import DAMAGED
from ingest.log.files import ACTIVE, LogFile, head_in, head_of_open, open_log, read_head, sample
from ingest.log.held import HeldFile, hold
from ingest.log.listing import snapshot
from ingest.record import first_time, numbers_in, record_time


class Place(NamedTuple):
    """A place in the log: the start of a line.

    Neither a name nor an inode outlives rotation and compression, so a file is known again by its
    head.

    Attributes:
        closed: the name of the newest file that was closed before it, as it was named when it was
            closed; empty for none.
        head: what tells the file from any other (`files.head_of`), in hexadecimal; empty for the
            start of the first file after `closed`.
        offset: bytes from the start of that file, decompressed.
    """

    closed: str
    head: str
    offset: int

    def to_json(self) -> str:
        """Write the place, to be kept."""
        return orjson.dumps(tuple(self)).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it did not write that.
        """
        match orjson.loads(text):
            case [str(closed), str(head), int(offset)] if offset >= 0:
                bytes.fromhex(head)
                return cls(closed, head, offset)
        raise ValueError(f"not a place in a log: {text!r}")


START = Place("", "", 0)
"""Where the oldest file begins."""


class Files:
    """The files of the log at one moment; a file is named by its place in `all`.

    Attributes:
        older: the files that are older than the active one, the oldest first.
        active: the active one, open until the end of the `with` block; None if there is none.
        all: both.
    """

    def __init__(self, folder: Path) -> None:
        """Take a snapshot.

        Raises:
            OSError: the folder can't be read, or is missing.
        """
        self.older, self.active = snapshot(folder)
        self.all = [*self.older, LogFile(folder / ACTIVE)] if self.active else self.older

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.active is not None:
            self.active.close()

    def head(self, index: int) -> bytes:
        """Read the file's head; empty if it has none, or is gone or damaged."""
        if self._is_active(index):
            return head_of_open(self._active)
        return head_in(self.all[index])

    def index_of(self, place: Place) -> int | None:
        """Find the file that a place lies in; None if it is gone, or if it is not known yet."""
        if not place.head:
            return None
        for index in reversed(range(len(self.all))):
            if self._closed_name(index) > place.closed and self.head(index).hex() == place.head:
                return index
        return None

    def first_with_head(self, index: int) -> int | None:
        """Find the first file from `index` on that has a line."""
        return next((found for found in range(index, len(self.all)) if self.head(found)), None)

    def damaged(self, first: int, end: int) -> Path | None:
        """Return the path of a file in a range whose very begin can't be read; None without one."""
        for file in self.all[first:end]:
            try:
                with suppress(FileNotFoundError), open_log(file) as stream:
                    read_head(stream)
            except DAMAGED:
                return file.path
        return None

    def first_after(self, place: Place) -> int:
        """Find the first file that is newer than that of a place, which is gone."""
        newer = (index for index in reversed(range(len(self.all))) if self._is_older(index, place))
        return next(newer, -1) + 1

    def has_closed(self, name: str) -> bool:
        """Tell whether the file with this name is there still; without a name, that it is."""
        return not name or any(self._closed_name(index) == name for index in range(len(self.older)))

    def start_after(self, index: int) -> Place | None:
        """Return the place where what follows a file begins; None if that can't be told yet."""
        following = self.first_with_head(index + 1)
        if following is not None:
            return self.start_of(following)
        return Place(self._closed_name(index), "", 0) if self.all[index].closed else None

    def start_of(self, index: int) -> Place:
        """Return the place where the file begins."""
        names = [self._closed_name(older) for older in range(index) if self.all[older].closed]
        return Place(max(names, default=""), self.head(index).hex(), 0)

    def end(self) -> Place:
        """Return the place behind the last whole line of all."""
        index = next((found for found in reversed(range(len(self.all))) if self.head(found)), None)
        if index is None:
            return START
        if self.all[index].closed:
            return Place(self._closed_name(index), "", 0)
        with self.opened(index) as held:
            return self.start_of(index)._replace(offset=held.whole_end())

    def take(self, index: int) -> HeldFile:
        """Open a file; whoever takes it closes it.

        Raises:
            OSError: it can't be opened, or is gone.
        """
        if self._is_active(index):
            return hold(os.fdopen(os.dup(self._active.fileno()), "rb", buffering=0))
        return hold(open_log(self.all[index]))

    @contextmanager
    def opened(self, index: int) -> Iterator[HeldFile]:
        """Open a file, and close it again: see `take`."""
        held = self.take(index)
        try:
            yield held
        finally:
            held.close()

    @property
    def _active(self) -> BinaryIO:
        assert self.active is not None
        return self.active

    def _is_active(self, index: int) -> bool:
        return index == len(self.older)

    def _closed_name(self, index: int) -> str:
        """Return the name that the file was closed under; for others one that is after all."""
        file = self.all[index]
        return file.name_when_closed if file.closed else "~"

    def _is_older(self, index: int, place: Place) -> bool:
        """Tell whether a file is older than that of a place: by name, by numbers or by time."""
        if self._is_active(index):
            return False
        if self._closed_name(index) <= place.closed:
            return True
        head = bytes.fromhex(place.head)
        found = sample(self.all[index])
        for device, number in numbers_in(head):
            if device in found.numbers:
                return found.numbers[device] < int(number)
        begun = first_time(head)
        return (
            begun is not None
            and not self.all[index].closed
            and found.begun < record_time(begun).decode()
        )
