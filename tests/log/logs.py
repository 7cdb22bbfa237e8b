"""A log folder that a test writes, and rotates in every way a log is rotated."""

import gzip
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from ingest.log.files import ACTIVE, rotated_name

BEGIN = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A moment, in seconds after the log's begin."""
    return BEGIN + timedelta(seconds=seconds)


def line(
    seq: int, value: str = '"text":"x"', device: str = "a", time: float | None = None
) -> bytes:
    """A record without its LF, written `time` seconds after the log's begin, or else `seq`."""
    moment = at(seq if time is None else time).replace(tzinfo=None)
    stamp = moment.isoformat(timespec="microseconds")
    return f'{{"time":"{stamp}Z","device":"{device}","seq":{seq},{value}}}'.encode()


def write(path: Path, *lines: bytes) -> None:
    """Write a whole file, compressed as its name says."""
    content = b"".join(line + b"\n" for line in lines)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = zstandard.ZstdCompressor().compress(content)
    path.write_bytes(content)


class WrittenLog:
    """One device's log: lines are written in pieces, files are rotated between lines.

    Attributes:
        active: the file that is written.
        lines: all lines so far, without LF, the one that is begun included.
        clock: seconds by which the clock is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self.active = folder / ACTIVE
        self.lines: list[bytes] = []
        self.clock = 0.0
        self._folder = folder
        self._pending = b""
        self._newest: str | None = None

    def write(self, size: int) -> None:
        """Write up to `size` bytes of the line that is begun, or of a new one."""
        if not self._pending:
            seq = len(self.lines) + 1
            self.lines.append(line(seq, time=seq + self.clock))
            self._pending = self.lines[-1] + b"\n"
        with self.active.open("ab") as stream:
            stream.write(self._pending[:size])
        self._pending = self._pending[size:]

    def finish(self) -> None:
        """Complete the line that is begun."""
        while self._pending:
            self.write(1000)

    def rotate(self, suffix: str = "", create: bool = False) -> None:
        """Close the active file as the listener does; compress it to `suffix`."""
        self.finish()
        if not self.active.exists():
            return
        self._newest = rotated_name(at(len(self.lines) + 0.5 + self.clock), self._newest)
        closed = self._folder / self._newest
        self.active.rename(closed)
        if suffix:
            write(closed.with_name(closed.name + suffix), *closed.read_bytes().splitlines())
            closed.unlink()
        if create:
            self.active.touch()

    def rotate_outside(self, create: bool = True) -> None:
        """Rotate as logrotate does by default."""
        self.finish()
        if self.active.exists():
            self.active.rename(self._shifted())
        if create:
            self.active.touch()

    def copy_and_truncate(self) -> None:
        """Rotate as logrotate does with `copytruncate`."""
        self.finish()
        if self.active.exists():
            shutil.copy(self.active, self._shifted())
            self.active.write_bytes(b"")

    def _shifted(self) -> Path:
        numbered = {
            int(path.name.split(".")[2]): path for path in self._folder.glob("ingest.log.*")
        }
        for number in sorted(numbered, reverse=True):
            name = numbered[number].name.split(".")
            name[2] = str(number + 1)
            numbered[number].rename(self._folder / ".".join(name))
        return self._folder / "ingest.log.1"
