"""A power cut at any instant, replayed: what was acknowledged is on the disk."""

import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from ingest.layout import Layout
from tests.endtoend.evidence import check_lines, file_pieces, lines_of, log_pieces
from tests.endtoend.load import Device, Fleet, Kind
from tests.endtoend.witness import Call, Disk, Inode, calls, recorded
from tests.support.listeners import SteadyListener
from tests.support.waiting import wait_for

_OPTIONS = ("--rotate-size", "1MiB", "--compress", "zstd")
_KINDS = (Kind("text", 100), Kind("msgpack", 100), Kind("text", 60_000), Kind("msgpack", 60_000))
_STATES = 4


class Cut(NamedTuple):
    """What is on the disk after a power cut, and what the devices had been told until then.

    Attributes:
        time: when it came; seconds since 1970.
        files: for each name, the number of the content's file and how many of its bytes are left.
        acknowledged: each device's newest number.
    """

    time: float
    files: dict[str, tuple[int, int]]
    acknowledged: dict[str, int]


def test_what_is_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    devices = _devices()
    listener = SteadyListener(tmp_path / "data", *_OPTIONS)
    listener.add(*(device.name for device in devices))
    before = Disk(listener.layout.log_folder)
    with listener:
        before.begin(listener.pid)
        with recorded(listener.pid, tmp_path / "trace"):
            with Fleet(listener.port, devices) as fleet:
                wait_for(lambda: fleet.check() and listener.said("rotated") > 2, "a rotation")
                checkpoint = _copy_positions(listener, tmp_path / "early.db")
                wait_for(lambda: fleet.check() and listener.said("rotated") > 6, "rotations")
                wait_for(fleet.finish, "all frames are acknowledged")
            listener.stop()
    trace = list(calls(tmp_path / "trace"))
    after, count = _run(deepcopy(before), trace)
    _unpack(listener.layout.log_folder)
    _check_acknowledged(deepcopy(before), trace, _places(after, devices))
    moments = random.Random(20261122).sample(range(count), _STATES)
    for cut in _cuts(before, trace, moments):
        folder = tmp_path / f"cut-{cut.time}"
        _leave(cut, after.contents(), folder, listener)
        if cut.time > checkpoint:
            shutil.copy(tmp_path / "early.db", folder / "state" / "positions.db")
        _go_on(folder, cut.acknowledged, devices)


def _devices() -> list[Device]:
    return [
        Device(f"{kind.dialect}-{kind.size}-{index}", kind, 100_000 // kind.size + 1)
        for kind in _KINDS
        for index in range(4)
    ]


def _copy_positions(listener: SteadyListener, path: Path) -> float:
    """Copy the positions as they are, and return a time when they were on disk."""
    with (
        closing(sqlite3.connect(listener.layout.positions)) as source,
        closing(sqlite3.connect(path)) as target,
    ):
        source.backup(target)
    return time.time()


def _unpack(folder: Path) -> None:
    for path in folder.glob("*.zst"):
        path.with_suffix("").write_bytes(b"".join(file_pieces(path)))


def _run(disk: Disk, trace: list[Call]) -> tuple[Disk, int]:
    """Take the whole trace; return the disk and the number of acknowledgements."""
    return disk, sum(len(disk.take(call)) for call in trace)


def _places(disk: Disk, devices: list[Device]) -> dict[str, list[tuple[int, int]]]:
    """Find each device's frames in order: the file's number and the byte where each line ends."""
    places: dict[str, list[tuple[int, int]]] = {device.name: [] for device in devices}
    numbers = {path: number for number, path in disk.contents().items()}
    for path in sorted(path for path in numbers if path.suffix == ".log"):
        end = 0
        for line in lines_of(file_pieces(path)):
            end += len(line)
            places[line.split(b'"', 8)[7].decode()].append((numbers[path], end))
    return places


def _check_acknowledged(
    disk: Disk, trace: list[Call], places: dict[str, list[tuple[int, int]]]
) -> None:
    told = dict.fromkeys(places, 0)
    for call in trace:
        for device, seq in disk.take(call):
            for place in places[device][told[device] : seq]:
                assert disk.holds(*place), f"{device}: {seq} was acknowledged before it was on disk"
            told[device] = seq
    assert told == {device: len(found) for device, found in places.items()}


def _cuts(disk: Disk, trace: list[Call], moments: list[int]) -> Iterator[Cut]:
    """Cut the power just after some of the acknowledgements."""
    chance = random.Random(1)
    told: dict[str, int] = {}
    count = 0
    for call in trace:
        acks = disk.take(call)
        told.update(acks)
        if any(count <= moment < count + len(acks) for moment in moments):
            names = chance.choice([disk.names, disk.durable_names])
            yield Cut(
                call.time, {name: _left(inode, chance) for name, inode in names.items()}, dict(told)
            )
        count += len(acks)


def _left(inode: Inode, chance: random.Random) -> tuple[int, int]:
    """Of what was not synced, any part may be on the disk."""
    return inode.number, chance.randint(inode.durable, inode.size)


def _leave(cut: Cut, contents: dict[int, Path], data: Path, listener: SteadyListener) -> None:
    """Make the folder that the next start finds. What was about to be written is not trusted."""
    layout = Layout(data)
    layout.create()
    for name, (number, size) in cut.files.items():
        content = contents[number].read_bytes() if number in contents else b""
        (layout.log_folder / name).write_bytes(content[:size])
    shutil.copy(listener.layout.devices, layout.devices)
    shutil.copy(listener.layout.log_folder / ".ingest-log", layout.log_folder)


def _go_on(data: Path, acknowledged: dict[str, int], devices: list[Device]) -> None:
    """Start a listener there: it has all that was acknowledged, and numbers go on."""
    again = [Device(device.name, device.kind, device.window) for device in devices]
    for device, before in zip(again, devices, strict=True):
        device.acknowledged = acknowledged.get(device.name, 0)
        device.sent = before.sent
    with SteadyListener(data) as listener, Fleet(listener.port, again) as fleet:
        wait_for(lambda: fleet.connected() == len(again), "all are in")
        known = fleet.acknowledged()
        wait_for(lambda: fleet.acknowledged() > known, "numbers go on")
        wait_for(fleet.finish, "all frames are acknowledged")
        listener.stop()
    check_lines(lines_of(log_pieces(data / "log")), again)
