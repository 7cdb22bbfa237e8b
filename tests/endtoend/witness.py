"""What a power cut would leave: the order of writes, syncs and answers, as strace saw it.

A file's bytes count as on disk after a sync of it that began after they were written; a name, after
a sync of its folder. Nothing else counts.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from tests.support.listeners import is_traced
from tests.support.processes import run_tool
from tests.support.waiting import wait_for

_CALLS = "openat,close,write,writev,fsync,fdatasync,ftruncate,rename,unlink,sendto"
_EVENT = re.compile(r"(\d+) +([\d.]+) (?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))")
_RESULT = re.compile(r"(.*)\) += (-?\d+)(?: .*)?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_UNFINISHED = " <unfinished ...>"


@contextmanager
def recorded(pid: int, trace: Path) -> Iterator[None]:
    """Record what a process asks of the system, as long as the context lasts."""
    run_tool("strace", "-V")
    options = [
        "-f",
        "-ttt",
        "-xx",
        "-s",
        "256",
        "-qq",
        "-e",
        f"trace={_CALLS}",
        "-e",
        "signal=none",
    ]
    tracer = subprocess.Popen(["strace", *options, "-o", str(trace), "-p", str(pid)])
    try:
        wait_for(lambda: is_traced(pid), "strace is attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


@dataclass
class Call:
    """A system call; `result` is None as long as it has not returned."""

    name: str
    arguments: str
    time: float
    result: int | None = None

    @property
    def number(self) -> int:
        """Its first argument, a descriptor."""
        return int(self.arguments.split(",")[0])

    @property
    def strings(self) -> list[bytes]:
        """Its arguments that are strings."""
        found = _STRING.findall(self.arguments)
        return [bytes.fromhex(text.replace("\\x", "")) for text in found]


def calls(trace: Path) -> Iterator[Call]:
    """Go through the calls of a trace: each comes when it begins and again when it has ended."""
    pending: dict[str, Call] = {}
    with trace.open() as lines:
        for line in lines:
            match = _EVENT.fullmatch(line.rstrip("\n"))
            if match is None:
                continue
            pid, time, rest, name, arguments = match.groups()
            if name is not None:
                rest = arguments
                pending[pid] = Call(name, "", float(time))
            if pid not in pending:
                continue  # it had begun before strace came
            call = pending[pid]
            ended = _RESULT.fullmatch(rest)
            call.arguments += ended[1] if ended else rest.removesuffix(_UNFINISHED)
            if name is not None:
                yield replace(call)
            if ended:
                call.result = int(ended[2])
                yield pending.pop(pid)


@dataclass
class Inode:
    """A file, whatever its name.

    Attributes:
        number: how many files were known before it.
        size: bytes written.
        durable: bytes that are on disk for sure.
        syncing: bytes that will be when the sync that runs has ended.
    """

    number: int
    size: int = 0
    durable: int = 0
    syncing: int = 0


class Ack(NamedTuple):
    """An acknowledgement that left, or a `next` (then it speaks of the number before)."""

    device: str
    seq: int


@dataclass
class Disk:
    """What a folder holds, for a reader now and for one after a power cut.

    Attributes:
        names: what a reader finds now.
        durable_names: what a reader finds after a power cut, for sure.
        removed: by the names that they had, files that gave way to a compressed copy.
    """

    folder: Path
    names: dict[str, Inode] = field(default_factory=dict)
    durable_names: dict[str, Inode] = field(default_factory=dict)
    removed: dict[str, Inode] = field(default_factory=dict)
    _count: int = 0
    _syncing: dict[str, Inode] = field(default_factory=dict)
    _open: dict[int, Inode | None] = field(default_factory=dict)
    _devices: dict[int, str] = field(default_factory=dict)

    def begin(self, pid: int) -> None:
        """Take the files that a process has open in the folder for durable as they are."""
        for link in Path(f"/proc/{pid}/fd").iterdir():
            path = link.readlink()
            if path.parent == self.folder:
                size = path.stat().st_size
                inode = self._new(size)
                self.names[path.name] = self.durable_names[path.name] = inode
                self._open[int(link.name)] = inode

    def take(self, call: Call) -> list[Ack]:
        """Take a call that begins or has ended; return the acknowledgements that it sends."""
        if call.result is None:
            return self._begun(call)
        if call.result >= 0:
            self._ended(call, call.result)
        return []

    def contents(self) -> dict[int, Path]:
        """Return where the content of each file is now, by the file's number.

        That of a removed one is taken to be unpacked again beside its copy.
        """
        return {
            inode.number: self.folder / name for name, inode in (self.removed | self.names).items()
        }

    def holds(self, number: int, size: int) -> bool:
        """Tell whether the first `size` bytes of a file survive a power cut."""
        if any(inode.number == number for inode in self.removed.values()):
            return True  # its copy does
        found = (inode for inode in self.durable_names.values() if inode.number == number)
        return any(inode.durable >= size for inode in found)

    def _new(self, size: int = 0) -> Inode:
        self._count += 1
        return Inode(self._count, size, size)

    def _begun(self, call: Call) -> list[Ack]:
        match call.name:
            case "fsync" | "fdatasync":
                inode = self._open.get(call.number)
                if inode is not None:
                    inode.syncing = inode.size
                self._syncing = dict(self.names)
            case "unlink":
                self._remove(Path(call.strings[0].decode()))
            case "sendto":
                return self._sent(call)
        return []

    def _ended(self, call: Call, result: int) -> None:
        match call.name:
            case "openat":
                self._opened(Path(call.strings[0].decode()), call, result)
            case "close":
                self._open.pop(call.number, None)
            case "write" | "writev":
                if (inode := self._open.get(call.number)) is not None:
                    inode.size += result
            case "ftruncate":
                if (inode := self._open.get(call.number)) is not None:
                    inode.size = int(call.arguments.split(",")[1])
                    inode.durable = min(inode.durable, inode.size)
            case "fsync" | "fdatasync":
                self._synced(call)
            case "rename":
                source, target = (Path(name.decode()) for name in call.strings)
                if source.parent == self.folder:
                    self.names[target.name] = self.names.pop(source.name)

    def _opened(self, path: Path, call: Call, fd: int) -> None:
        self._open.pop(fd, None)
        if path == self.folder:
            self._open[fd] = None
        elif path.parent == self.folder and "O_RDONLY" not in call.arguments:
            self._open[fd] = self.names.setdefault(path.name, self._new())

    def _synced(self, call: Call) -> None:
        if call.number not in self._open:
            return
        inode = self._open[call.number]
        if inode is None:
            self.durable_names = self._syncing
        else:
            inode.durable = max(inode.durable, inode.syncing)

    def _remove(self, path: Path) -> None:
        """Take that a file is gone, at once; only a copy that is on disk may take its place."""
        if path.parent != self.folder or path.name not in self.names:
            return
        if path.suffix != ".tmp":
            copy = self.names[path.name + ".zst"]
            assert copy.durable == copy.size > 0, f"{path.name} went before its copy was synced"
            assert self.durable_names.get(path.name + ".zst") is copy, "nor had the copy a name"
            self.removed[path.name] = self.names[path.name]
        self.names.pop(path.name)
        self.durable_names.pop(path.name, None)

    def _sent(self, call: Call) -> list[Ack]:
        (data,) = call.strings
        acks = []
        for reply in _replies(data):
            if "ok" in reply:
                self._devices[call.number] = reply["ok"]["device"]
                acks.append(Ack(reply["ok"]["device"], int(reply["ok"]["next"]) - 1))
            elif "ack" in reply:
                acks.append(Ack(self._devices[call.number], int(reply["ack"])))
        return acks


def _replies(data: bytes) -> Iterator[dict[str, Any]]:
    if data >= b"\x80":
        unpacker = msgpack.Unpacker()
        unpacker.feed(data)
        yield from unpacker
        return
    for line in data.decode().splitlines():
        word, _, rest = line.partition(" ")
        pairs = dict(pair.split("=") for pair in rest.split()) if word == "OK" else rest
        yield {word.lower(): pairs}
