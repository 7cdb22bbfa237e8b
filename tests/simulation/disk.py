"""A model of a disk: what programs see of a folder now, and what a power cut would leave of it.

The files are real, in a folder in memory, so that readers, recovery and `positions.db` are the real
ones too: they see what the page cache would hold. Beside each file the model keeps what is durable
of it, and what was written since. For example:

    writev "ab"            seen "ab"      durable ""       a power cut leaves "", "a" or "ab"
    fdatasync              seen "ab"      durable "ab"
    writev "cd"            seen "abcd"    durable "ab"
    fdatasync fails        seen "abcd"    durable "ab"     and a later fdatasync leaves it so

A name is durable when its folder was synced (fsync(2)). `positions.db` is taken at SQLite's word:
a transaction that was committed with `synchronous = FULL` is durable.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

from ingest.journal.disk import Disk

PAGE = 256
"""Bytes of a page: fewer than a real one has, so that short histories have writes of many pages."""
_ERRORS = {
    "open": (errno.EMFILE, errno.ENFILE, errno.ENOSPC),
    "open_folder": (errno.EMFILE,),
    "writev": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "pwritev": (errno.EIO, errno.ENOSPC),
    "fdatasync": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO,),
    "fallocate": (errno.EROFS, errno.EIO),
    "ftruncate": (errno.EIO,),
    "rename": (errno.EROFS, errno.EACCES),
    "unlink": (errno.EROFS,),
}
_SHORT = 0.15  # of the writes
_INTENT_BOOT = slice(8, 24)  # where an intent names the boot of the system


class Killed(BaseException):
    """The process is no more: nothing in it acts on this."""


class Weather(NamedTuple):
    """How the disk is.

    Attributes:
        calls: those that fail.
        rate: how often they do.
        room: bytes that still fit.
    """

    calls: frozenset[str] = frozenset()
    rate: float = 0.0
    room: float = float("inf")


WELL = Weather()
FAILING = Weather(frozenset(_ERRORS), 0.3)
FLAKY = Weather(frozenset(_ERRORS), 0.03)
NO_SYNC = Weather(frozenset({"fdatasync", "fsync", "fallocate"}), 0.5)
NO_DESCRIPTOR = Weather(frozenset({"open", "open_folder"}), 1.0)


class _Change(NamedTuple):
    """Bytes that were written at an offset; None where the file was cut there."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data

    def pages(self) -> list["_Change"]:
        """Split it where pages end: they reach the disk in any order."""
        if self.data is None:
            return [self]
        end = self.offset + len(self.data)
        cuts = [self.offset, *range((self.offset // PAGE + 1) * PAGE, end, PAGE), end]
        return [
            _Change(start, self.data[start - self.offset : stop - self.offset])
            for start, stop in pairwise(cuts)
        ]


@dataclass(slots=True)
class _File:
    """What is durable of a file, and the changes since."""

    durable: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.changes:
            change.apply(self.durable)
        self.changes.clear()

    def drop(self, chance: Random) -> None:
        """Fail to sync: pages that the disk did not take are clean from now on, and not on it.

        Sizes are the file system's own, in its journal: it goes on to try.
        """
        self.durable = self.survivor(chance)
        self.changes = [change for change in self.changes if change.data is None]

    def survivor(self, chance: Random) -> bytearray:
        """Return what a power cut leaves."""
        content = bytearray(self.durable)
        pages = [page for change in self.changes for page in change.pages()]
        if chance.random() < 0.5:  # in order, as ext4 does
            pages = pages[: chance.randint(0, len(pages))]
        else:  # in any order; blocks that are missing are full of zeros
            kept = chance.choice((0.2, 0.5, 0.9))
            pages = [page for page in pages if chance.random() < kept]
        for page in pages:
            page.apply(content)
        return content


class ModelDisk(Disk):
    """The disk of one history.

    Attributes:
        weather: how it is now.
        kill_rate: how often the process is killed at a call.
        version: counts changes of what is durable.
        writes: counts changes of what is seen.
        looked: called at each change of what is seen, as a `tail` would look.
    """

    def __init__(self, folder: Path, intent: Path, chance: Random) -> None:
        """Begin with what is in `folder`, which is the log's; all of it is durable."""
        self.weather = WELL
        self.kill_rate = 0.0
        self.version = 0
        self.writes = 0
        self.looked: Callable[[], object] = lambda: None
        self._folder = folder
        self._prefix = f"{folder}/"
        self._intent = intent
        self._chance = chance
        self._room = WELL.room
        self._is_killed = False
        self._opened: dict[int, _File | None] = {}
        self._adopt()

    # What the history does with it.

    def become(self, weather: Weather) -> None:
        """Be well, or not."""
        self.weather = weather
        self._room = weather.room

    def durable(self) -> list[bytes]:
        """Return the files that a power cut leaves at the least, by the order of their names."""
        names = sorted(self._durable_names, key=lambda name: (name == "ingest.log", name))
        return [
            bytes(self._files[self._durable_names[name]].durable)
            for name in names
            if name.startswith("ingest")
        ]

    def end_process(self) -> None:
        """Close what it had opened; what it wrote stays in the page cache."""
        while self._opened:
            os.close(self._opened.popitem()[0])
        self._is_killed = False

    def cut_power(self) -> None:
        """Leave what is durable, and a part of the rest as chance has it."""
        self.end_process()
        names = self._chance.choice([self._durable_names, *self._unsynced_names])
        contents = {
            name: self._files[inode].survivor(self._chance) for name, inode in names.items()
        }
        for path in self._folder.iterdir():
            path.unlink()
        for name, content in contents.items():
            (self._folder / name).write_bytes(content)
        self._change_boot()
        self._adopt()

    def _change_boot(self) -> None:
        if self._chance.random() < 0.5:
            self._intent.unlink(missing_ok=True)
        elif self._intent.exists():
            with self._intent.open("r+b") as stream:
                stream.seek(_INTENT_BOOT.start)
                stream.write(bytes(16))

    def _adopt(self) -> None:
        """Take all that is in the folder for durable."""
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        for path in sorted(self._folder.iterdir()):
            inode = path.stat().st_ino
            self._names[path.name] = inode
            self._files[inode] = _File(bytearray(path.read_bytes()))
        self._durable_names = dict(self._names)
        self._unsynced_names: list[dict[str, int]] = []
        self.version += 1
        self.writes += 1

    # The calls.

    def _begin(self, call: str) -> None:
        """Be killed by chance, now or after the call; or let it fail."""
        if self._is_killed:
            raise Killed
        weather = self.weather
        if weather.rate and call in weather.calls and self._chance.random() < weather.rate:
            number = self._chance.choice(_ERRORS[call])
            raise OSError(number, os.strerror(number))
        if self.kill_rate and self._chance.random() < self.kill_rate:
            self._is_killed = True
            if self._chance.random() < 0.5:
                raise Killed

    def _end(self) -> None:
        if self._is_killed:
            raise Killed

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._begin("open")
        return self._note_open(Disk.open(path, flags, mode), path, flags)

    def open_found(self, path: Path, flags: int) -> int:  # type: ignore[override]
        self._begin("open")
        return self._note_open(Disk.open_found(path, flags), path, flags)

    def _note_open(self, fd: int, path: Path, flags: int) -> int:
        name = str(path).removeprefix(self._prefix)
        if "/" in name:
            self._opened[fd] = None
        else:
            inode = os.fstat(fd).st_ino
            self._opened[fd] = file = self._files.setdefault(inode, _File())
            if flags & os.O_TRUNC:
                file.changes.append(_Change(0, None))
            if self._names.get(name) != inode:
                self._rename({**self._names, name: inode})
        self._end()
        return fd

    def open_folder(self, path: Path) -> int:  # type: ignore[override]
        self._begin("open_folder")
        fd = Disk.open_folder(path)
        self._opened[fd] = None
        self._end()
        return fd

    def close(self, fd: int) -> None:
        if self._opened.pop(fd, self) is not self:
            os.close(fd)

    def writev(self, fd: int, blocks: Sequence[bytes]) -> int:  # type: ignore[override]
        self._begin("writev")
        if self._room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset = os.fstat(fd).st_size
        data = self._shortened(b"".join(blocks), offset, self._room)
        self._room -= len(data)
        return self._write(fd, data, offset)

    def pwritev(self, fd: int, blocks: Sequence[bytes], offset: int) -> int:  # type: ignore[override]
        self._begin("pwritev")
        return self._write(fd, self._shortened(b"".join(blocks), offset), offset)

    def _shortened(self, data: bytes, offset: int, room: float = float("inf")) -> bytes:
        """Let a write fall short; of one that is killed, whole pages are done."""
        size = len(data)
        if self._is_killed:
            size = self._chance.randint(0, size)
            size = max(0, size - (offset + size) % PAGE)
        elif size > 1 and self._chance.random() < _SHORT:
            size = self._chance.randint(1, size)
        return data[: int(min(size, room))]

    def _write(self, fd: int, data: bytes, offset: int) -> int:
        # Linux appends where the file was opened with O_APPEND, whatever the offset.
        written = os.pwrite(fd, data, offset)
        assert written == len(data)
        file = self._opened[fd]
        if file is not None and data:
            file.changes.append(_Change(offset, data))
            self._show()
        self._end()
        return written

    def fdatasync(self, fd: int) -> None:  # type: ignore[override]
        self._sync(fd, "fdatasync")

    def fsync(self, fd: int) -> None:  # type: ignore[override]
        self._sync(fd, "fsync")

    def _sync(self, fd: int, call: str) -> None:
        file = self._opened[fd]
        try:
            self._begin(call)
        except OSError:
            if file is not None:
                file.drop(self._chance)
                self.version += 1
            raise
        self.version += 1
        if file is not None:
            file.sync()
        else:
            self._durable_names = dict(self._names)
            self._unsynced_names.clear()
        self._end()

    def ftruncate(self, fd: int, size: int) -> None:
        self._begin("ftruncate")
        os.ftruncate(fd, size)
        file = self._opened[fd]
        assert file is not None
        file.changes.append(_Change(size, None))
        self._show()
        self._end()

    def fallocate(self, fd: int, offset: int, size: int) -> None:
        self._begin("fallocate")
        if os.fstat(fd).st_size < offset + size:
            os.ftruncate(fd, offset + size)  # sparse: to fill it takes longer than a history
        self._end()

    def fadvise(self, *arguments: int) -> None:
        pass

    def rename(self, source: Path, target: Path) -> None:  # type: ignore[override]
        self._begin("rename")
        source.rename(target)
        names = dict(self._names)
        names[target.name] = names.pop(source.name)
        self._rename(names)
        self._end()

    def unlink(self, path: Path) -> None:  # type: ignore[override]
        self._begin("unlink")
        path.unlink()
        names = dict(self._names)
        del names[path.name]
        self._rename(names)
        self._end()

    def _rename(self, names: dict[str, int]) -> None:
        self._names = names
        self._unsynced_names.append(names)
        self._show()

    def _show(self) -> None:
        self.writes += 1
        self.looked()
