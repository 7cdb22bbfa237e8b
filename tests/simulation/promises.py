"""What must be true after every step of a history."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ingest.listener.books import Account, total
from ingest.log.files import ACTIVE
from tests.simulation.device import Device
from tests.simulation.disk import ModelDisk
from tests.simulation.listener import Listener
from tests.simulation.wire import Message, Wire

_RECORD = re.compile(
    rb'\{"time":"[-0-9]{10}T[:0-9]{8}\.[0-9]{6}Z","device":"([a-z]+)","seq":([0-9]+),'
    rb'"(?:text|data)":"([-a-z0-9]*)"\}'
)
_LINE = re.compile(rb"^" + _RECORD.pattern + rb"\n", re.MULTILINE)


class Records:
    """Knows what each record must be."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = devices

    def read(self, match: re.Match[bytes]) -> tuple[str, int]:
        """Return the device and the number of a record, which is as it was sent."""
        name, seq, text = match[1].decode(), int(match[2]), match[3].decode()
        frames = self._devices[name].frames
        assert text.startswith(f"{name}-"), f"a line under another name: {match[0]!r}"
        assert 1 <= seq <= len(frames), f"a number that was never sent: {match[0]!r}"
        assert text == frames[seq - 1], f"{name} sent {frames[seq - 1]!r} as {seq}: {match[0]!r}"
        return name, seq

    def read_whole(self, content: bytes, name: str) -> list[tuple[str, int]]:
        """Read a file that must be nothing but whole records."""
        assert content.endswith(b"\n") or not content, f"{name} ends within a line"
        records = []
        for line in content.splitlines():
            match = _RECORD.fullmatch(line)
            assert match is not None, f"{name} has a torn line: {line!r}"
            records.append(self.read(match))
        return records


class Durable:
    """What a power cut would leave now, at the least."""

    def __init__(self, disk: ModelDisk, records: Records, names: list[str]) -> None:
        self._disk = disk
        self._records = records
        self._names = names
        self._version = -1
        self._last: dict[str, int] = {}

    def last(self, device: str) -> int:
        """Return the number up to which all records of a device are durable."""
        if self._version != self._disk.version:
            self._version = self._disk.version
            found: dict[str, set[int]] = {name: set() for name in self._names}
            for content in self._disk.durable():
                for match in _LINE.finditer(content):
                    name, seq = self._records.read(match)
                    found[name].add(seq)
            self._last = {name: _unbroken(numbers) for name, numbers in found.items()}
        return self._last[device]


def _unbroken(numbers: set[int]) -> int:
    last = len(numbers)
    if not numbers or max(numbers) == last:
        return last
    return next(seq for seq in range(1, last + 2) if seq not in numbers) - 1


class Tail:
    """A `tail -F` that looks after every call of the system.

    It prints each line whole, and once; after a sync that has failed, lines that nobody was told
    of may be written again. Where a rotation fails and is undone, it goes on in the file that it
    had left.
    """

    def __init__(self, folder: Path, records: Records, acknowledged: Mapping[str, int]) -> None:
        self._path = folder / ACTIVE
        self._records = records
        self._acknowledged = acknowledged
        self._fd = -1
        self._inode = 0
        self._offset = 0
        self._left = (0, 0)
        self._rest = b""
        self._last: dict[str, int] = {}

    def look(self) -> None:
        """Print what is new."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return  # it was renamed, and may get its name back
        if status.st_ino != self._inode:
            left = (self._inode, self._offset)
            self.close()
            self._fd, self._inode = os.open(self._path, os.O_RDONLY), status.st_ino
            self._offset = self._left[1] if self._left[0] == self._inode else 0
            self._left = left
        elif status.st_size < self._offset:
            raise AssertionError("the file that is tailed has shrunk")
        self._print()

    def close(self) -> None:
        """Print the rest of the file, and leave it."""
        if self._fd >= 0:
            self._print()
            assert not self._rest, f"a torn line was printed: {self._rest!r}"
            os.close(self._fd)
        self._fd, self._inode, self._offset = -1, 0, 0

    def leave(self) -> None:
        """Be ended by a power cut."""
        self._rest = b""
        self._offset = 1 << 40
        self.close()
        self._left = (0, 0)
        self._last.clear()

    def _print(self) -> None:
        block = os.pread(self._fd, 1 << 20, self._offset)
        if not block:
            return
        self._offset += len(block)
        whole, newline, self._rest = (self._rest + block).rpartition(b"\n")
        for device, seq in self._records.read_whole(whole + newline, "what is tailed"):
            last = self._last.get(device)
            is_again = last is not None and self._acknowledged[device] < seq <= last
            assert last is None or seq == last + 1 or is_again, (
                f"{device}'s {seq} was printed after {last}"
            )
            self._last[device] = seq


class Promises:
    """Checks what must be true of a listener and of the log that it writes.

    Attributes:
        acknowledged: of each device, the number that the listener has told at last, by `ACK` or
            by `next`.
    """

    def __init__(self, folder: Path, disk: ModelDisk, devices: Mapping[str, Device]) -> None:
        self._folder = folder
        self._disk = disk
        self._devices = devices
        self.acknowledged = dict.fromkeys(devices, 0)
        self._records = Records(devices)
        self._durable = Durable(disk, self._records, list(devices))
        self.tail = Tail(folder, self._records, self.acknowledged)
        disk.looked = self.tail.look
        self._before: dict[str, int] = {}
        self._held_at: int | None = None

    def started(self) -> None:
        """Called when a listener has started: all that it found is durable by now."""
        self._before = {name: self._durable.last(name) for name in self._devices}
        self._held_at = None
        for name, last in self.acknowledged.items():
            assert self._before[name] >= last, f"{name}'s {last} is gone"

    def power_was_cut(self) -> None:
        """Called when nothing but what is durable is left."""
        self.tail.leave()

    def held(self) -> None:
        """Called when the log stands still from now on."""
        self._held_at = self._disk.writes

    def released(self) -> None:
        """Called when it may be written again."""
        self._held_at = None

    def said(self, device: str, wire: Wire, message: Message) -> None:
        """Called when the listener says something.

        Args:
            device: to whom; empty for one that has not proved its name.
            wire: where.
            message: what.
        """
        if message.kind == "err":
            assert message.code in wire.may_hear, f"no reason for {message.code}"
            return
        assert device, f"{message} to somebody who proved nothing"
        last = message.number - (message.kind == "ok")
        durable = self._durable.last(device)
        assert last <= durable, (
            f"{device} is told that {last} is on disk, and a power cut now leaves {durable}"
        )
        assert last >= self.acknowledged[device], f"{device} is told {last}, less than before"
        self.acknowledged[device] = last

    def check(self, listener: Listener) -> None:
        """Check what must be true at any time."""
        for name, last in self.acknowledged.items():
            durable = self._durable.last(name)
            assert durable >= last, f"{name} was told of {last}, and a power cut leaves {durable}"
        if self._held_at is not None and listener.journal.hold_ends_in:
            assert self._held_at == self._disk.writes, "the log is written while it is held"
        self._check_books(listener)
        if listener.is_at_rest and listener.journal.health is None:
            assert not listener.fleet.paused, "the devices wait for a disk that is well"

    def _check_books(self, listener: Listener) -> None:
        accounts = listener.fleet.accounts()
        for name, account in accounts.items():
            written = self._before[name] + account.written_frames
            assert written <= self._durable.last(name), f"{name}: {account} counts too many"
            assert account.acknowledged_frames <= account.written_frames, f"{name}: {account}"
            assert account.waiting_frames >= 0, f"{name}: {account}"
        waiting = total(accounts.values()).waiting_frames
        assert (waiting == 0) == (listener.journal.backlog == 0), (
            f"{waiting} frames wait, and {listener.journal.backlog} bytes"
        )

    def check_at_rest(self, listener: Listener) -> None:
        """Check what must be true when all has come and all is written."""
        accounts = listener.fleet.accounts()
        for name, device in self._devices.items():
            account = accounts.get(name, Account())
            assert account.waiting_frames == 0, f"{name}: {account}"
            count = self._before[name] + account.written_frames
            assert count == len(device.frames), f"{name}: {account} after {self._before[name]}"
        assert listener.journal.health is None
        assert not listener.fleet.paused

    def check_log(self) -> None:
        """Check the whole log: each number once, in order, across all files."""
        last = dict.fromkeys(self._devices, 0)
        names = sorted(path.name for path in self._folder.glob("ingest-*"))
        for name in (*names, ACTIVE):
            content = (self._folder / name).read_bytes()
            for device, seq in self._records.read_whole(content, name):
                assert seq == last[device] + 1, f"{name}: {device}'s {seq} after {last[device]}"
                last[device] = seq
        for device, seq in last.items():
            assert seq >= self.acknowledged[device], f"{device}'s {seq + 1} is not in the log"
