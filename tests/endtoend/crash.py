"""Kill a listener again and again under full load, and read what is left.

The test suite does it 30 times. For a longer run:

    python -m tests.endtoend.crash --kills 300
"""

import argparse
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.endtoend.evidence import check_lines, digest, file_pieces, lines_of, log_pieces
from tests.endtoend.load import Device, Fleet, Kind
from tests.support.listeners import SteadyListener, Tail
from tests.support.waiting import wait_for

ROTATE_SIZE = 8 << 20
_OPTIONS = ("--rotate-size", str(ROTATE_SIZE), "--compress", "zstd")
_KINDS = (
    (Kind("text", 60), 8, 50_000),
    (Kind("msgpack", 90), 8, 30_000),
    (Kind("text", 65_000), 4, 40),
    (Kind("msgpack", 65_000), 4, 40),
)

# Kills when the size of the file changes: in the midst of a write, if it is a large one, or of a
# rotation. It goes before all others, or on busy cores it would look when the write is over.
# Its arguments: the process, the file, and how many seconds to wait for that.
_SNIPER = """
import contextlib, os, signal, sys, time
with contextlib.suppress(PermissionError):
    os.setpriority(os.PRIO_PROCESS, 0, -20)
pid, path, patience = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
deadline = time.monotonic() + patience
last = None
while time.monotonic() < deadline:
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        size = 0
    if last not in (None, size):
        break
    last = size
os.kill(pid, signal.SIGKILL)
"""


class Outcome(NamedTuple):
    """What a run brought: kills, lines, bytes, rotated files, and torn writes that were mended."""

    kills: int
    lines: int
    size: int
    rotated: int
    completed: int


def fleet_of_all_kinds() -> list[Device]:
    """Make devices of both dialects, with small frames and with 64 KiB ones."""
    return [
        Device(f"{kind.dialect}-{kind.size}-{index}", kind, window)
        for kind, count, window in _KINDS
        for index in range(count)
    ]


def crash(folder: Path, kills: int, seed: int) -> Outcome:
    """Run a fleet at full speed against a listener that is killed `kills` times.

    Raises:
        AssertionError: the log, or what `tail -F` printed of it, is not what was sent.
    """
    devices = fleet_of_all_kinds()
    listener = SteadyListener(folder / "data", *_OPTIONS)
    listener.add(*(device.name for device in devices))
    log = listener.layout.log_folder
    with (
        Tail(listener.log_file, folder / "tail") as tail,
        Fleet(listener.port, devices) as fleet,
        listener,
    ):
        # `tail -F` never sees a file that is begun and closed while it reads the one before.
        fleet.throttle = lambda: _size(devices) - tail.printed() > ROTATE_SIZE // 2
        _kill_often(listener, fleet, kills, random.Random(seed))
        wait_for(fleet.finish, "all frames are acknowledged")
        listener.stop()
        size = sum(map(len, log_pieces(log)))
        with suppress(AssertionError):  # what is missing then is told below
            wait_for(lambda: tail.printed() >= size, "tail has printed all")
    assert {error for device in devices for error in device.errors} <= {"shutting-down"}
    counts = check_lines(lines_of(log_pieces(log)), devices)
    if digest(log_pieces(log)) != digest(file_pieces(tail.output)):
        check_lines(lines_of(file_pieces(tail.output)), devices)
        raise AssertionError("tail -F printed the lines in another order")
    completed = listener.said("is completed")
    return Outcome(kills, counts.total(), size, listener.said("rotated to"), completed)


def _kill_often(listener: SteadyListener, fleet: Fleet, kills: int, chance: random.Random) -> None:
    """Kill at any time, in the midst of a write, and in the midst of a start."""
    for _ in range(kills):
        before = fleet.acknowledged()
        way = chance.random()
        if way < 0.2:
            listener.kill()
            listener.launch()
            time.sleep(chance.uniform(0.2, 0.7))
        elif way < 0.4:
            time.sleep(chance.uniform(0, 0.5))
        else:
            wait_for(lambda: fleet.acknowledged() > before, "the fleet makes progress")  # noqa: B023
            time.sleep(chance.uniform(0, 0.2))
            _shoot(listener)
        listener.kill()
        listener.start()


def _shoot(listener: SteadyListener) -> None:
    command = [sys.executable, "-c", _SNIPER, str(listener.pid), str(listener.log_file), "1"]
    subprocess.run(command, check=True)


def _size(devices: list[Device]) -> int:
    return sum(device.log_size() for device in devices)


def main() -> None:
    """Run it for as long as asked, and say what it brought."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.endtoend.crash", description=main.__doc__
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with TemporaryDirectory() as folder:
        outcome = crash(Path(folder), arguments.kills, arguments.seed)
    print(
        f"{outcome.kills} kills, {outcome.lines:,} lines of {outcome.size >> 20} MiB in"
        f" {outcome.rotated + 1} files: each frame once, in order and whole, in the log and in"
        f" what tail -F printed; {outcome.completed} torn writes were completed"
    )


if __name__ == "__main__":
    main()
