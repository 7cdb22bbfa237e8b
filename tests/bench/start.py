"""How long the journal takes to start with a million positions, and its memory then.

Run it: `python -m tests.bench.start`. Each round is a process of its own, which reads its own
memory before and after, and counts both the clock's time and the processor's.
"""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ingest.journal.events import Event
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.positions import Checkpoint, Mark, Positions
from ingest.layout import Layout

DEVICES = 1_000_000
ROUNDS = 5

_LOG = "a log"
_STATUS = Path("/proc/self/status")


class _Flow:
    """Nobody is there to be stopped."""

    def pause(self) -> None:
        """See `FlowControl.pause`."""

    def resume(self) -> None:
        """See `FlowControl.resume`."""


def prepare(layout: Layout, devices: int) -> None:
    """Make a data folder with as many positions, as a listener leaves it that has stopped."""
    layout.create()
    (layout.log_folder / ".ingest-log").write_text(f"{_LOG}\n")
    numbers = {f"sensor-{number:06}": number % 1000 + 1 for number in range(devices)}
    with closing(Positions(layout.positions)) as positions:
        positions.save(numbers, Checkpoint(_LOG, Mark("", "", 0), clean=True))


def start(layout: Layout) -> str:
    """Start a journal in this process; return seconds, seconds of the processor, and megabytes."""
    said: list[Event] = []
    before, begun, used = _resident(), time.perf_counter(), time.process_time()
    journal = FileJournal(
        layout, JournalPolicy(), lambda call, *rest: call(*rest), _Flow(), said.append
    )
    taken, used = time.perf_counter() - begun, time.process_time() - used
    memory = _resident() - before
    journal.close()
    assert not said, said
    return f"{taken} {used} {memory} {before + memory}"


def main() -> None:
    """Print the medians of some rounds."""
    if len(sys.argv) > 1:
        print(start(Layout(Path(sys.argv[1]))))
        return
    with TemporaryDirectory(prefix="ingest-start-") as folder:
        prepare(Layout(Path(folder)), DEVICES)
        command = [sys.executable, "-m", "tests.bench.start", folder]
        rounds = [
            map(float, subprocess.run(command, check=True, stdout=-1).stdout.split())
            for _ in range(ROUNDS)
        ]
    taken, used, memory, whole = map(median, zip(*rounds, strict=True))
    print(
        f"{DEVICES:,} positions: started in {taken:.2f} s ({used:.2f} s of the processor),"
        f" {memory:.0f} MB more, {whole:.0f} MB in all"
    )


def _resident() -> float:
    """Return this process's memory in megabytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
