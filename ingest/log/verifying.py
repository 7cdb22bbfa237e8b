"""Proving that the log keeps its promises: whole lines, valid records, numbers without a gap."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import orjson

from ingest.log.decompressing import DAMAGED
from ingest.log.files import ACTIVE, LogFile, open_log
from ingest.log.jumps import read_jumps
from ingest.log.listing import snapshot
from ingest.log.reading import WholeLines
from ingest.log.wellformed import check_lines, check_run
from ingest.record import KEYS, numbers_in

MAX_BREACHES = 100

_BLOCK = 1 << 16  # what is made of it stays in the processor's cache


@dataclass(frozen=True)
class Breach:
    """A broken promise: the file, the line (from 1), the line's offset in bytes, and what.

    In a compressed file the offset counts decompressed bytes.
    """

    path: Path
    line: int
    offset: int
    what: str


@dataclass
class Report:
    """What was read, and what is wrong with it.

    `last` is the last number of each device. `breaches` holds the first 100 of `breach_count`.
    `unfinished` is the size of the last line of the active file if it has no end yet: it may be
    being written, or a crash left it and the next start cuts it off. `jumps` counts where numbers
    were left out on purpose: the listener noted it (`jumps.note_jump`), and it is no breach.
    """

    files: int = 0
    lines: int = 0
    bytes: int = 0
    unfinished: int = 0
    jumps: int = 0
    breach_count: int = 0
    breaches: list[Breach] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)


def _ignore(_size: int) -> None:
    """Progress that nobody watches."""


def verify(
    folder: Path,
    positions: Mapping[str, int] | None = None,
    progress: Callable[[int], object] = _ignore,
) -> Report:
    """Read the whole log and prove it.

    Every line is whole and a record to the byte; each device's numbers have no gap and no repeat
    across the files; its first may be above 1, since old files are removed. No position is ahead
    of the log. While the listener runs, `positions` must have been read before this is called.

    Args:
        positions: the last number of each device as the listener's cache has it.
        progress: is given the size of each piece of a file, as it is on disk, once it was read.

    Raises:
        OSError: the folder is missing, or a file can't be read.
    """
    proof = _Proof(read_jumps(folder))
    older, active = snapshot(folder)
    for file in older:
        try:
            stream = open_log(file)
        except FileNotFoundError:
            proof.restart()  # retention removed it since it was listed
            continue
        with stream:
            proof.read(file, stream, progress)
        if file.compressed:
            progress(_size(file.path))
    if active is not None:
        with active:
            proof.read(LogFile(folder / ACTIVE), active, progress)
    return proof.finish(positions or {})


class _Proof:
    """The state of one verification: where it is, and each device's last number."""

    def __init__(self, jumps: Mapping[str, Collection[int]]) -> None:
        self.report = Report()
        self._jumps = jumps
        self._last: dict[bytes, int] = {}
        self._path = Path()
        self._line = 0
        self._offset = 0

    def read(self, file: LogFile, stream: BinaryIO, progress: Callable[[int], object]) -> None:
        """Prove one file, the next younger one."""
        self._path, self._line, self._offset = file.path, 0, 0
        lines = WholeLines(stream, size=_BLOCK)
        try:
            for block in lines:
                self._prove(block)
                if not file.compressed:
                    progress(len(block))
        except DAMAGED as error:
            self._breach(f"the file is damaged from here on: {error}")
        if lines.torn and file.path.name == ACTIVE:
            self.report.unfinished = len(lines.torn)
        elif lines.torn:
            self._breach(f"the last line has no end, {len(lines.torn)} bytes")
        self.report.files += 1
        self.report.lines += self._line
        self.report.bytes += self._offset

    def restart(self) -> None:
        """Forget the numbers: files that were read are gone, and perhaps the next ones too."""
        self._last.clear()

    def finish(self, positions: Mapping[str, int]) -> Report:
        """Compare the positions with the log, which was read to its end."""
        last = self.report.last = {device.decode(): number for device, number in self._last.items()}
        for device, position in positions.items():
            if position > last.get(device, position) and not self._is_jump(device, position + 1):
                self._breach(
                    f"{device}: the log ends at {last[device]}, its position is {position}"
                )
        return self.report

    def _prove(self, block: bytes) -> None:
        """Prove long runs of records one by one, and what follows them line by line."""
        start = 0
        while run := check_run(block, start):
            last = self._last.get(run.device, run.first - 1)
            if run.first == last + 1:
                self._last[run.device] = last + run.count
                self._advance(run.count, run.end - start)
            else:
                self._find_breaches(block[start : run.end])
            start = run.end
        if rest := block[start:]:
            self._prove_lines(rest)

    def _prove_lines(self, block: bytes) -> None:
        records = check_lines(block)
        if records and self._continue(*records):
            self._advance(len(records[0]), len(block))
        else:
            self._find_breaches(block)

    def _advance(self, lines: int, size: int) -> None:
        self._line += lines
        self._offset += size

    def _continue(self, devices: Sequence[bytes], numbers: list[int]) -> bool:
        """Go on to each device's last number, or tell that one does not follow and stay.

            lines             a 5   b 8   a 6        where a was at 4 and b at 7
            wanted before     a 4   b 7   a 5        each number less one
            found before      a 4   b 7   a 5        equal: all follow

        Had the third been a 7, it would have wanted a 6 and found a 5. Then what each line
        replaced is put back, the last line's first, so that a is at 4 again.
        """
        wanted = list(map((-1).__add__, numbers))
        # zip asks for a line's last number, then sets it, before it goes on to the next line.
        replaced = zip(
            map(self._last.get, devices, wanted),
            map(self._last.__setitem__, devices, numbers),
            strict=True,
        )
        found = list(map(itemgetter(0), replaced))
        if found != wanted:
            self._last.update(zip(reversed(devices), reversed(found), strict=True))
        return found == wanted

    def _find_breaches(self, block: bytes) -> None:
        """Check line by line a block in which something is wrong."""
        for line in block.split(b"\n")[:-1]:
            number_fault = self._number_fault(line)
            if what := _fault(line) or number_fault:
                self._breach(what)
            self._line += 1
            self._offset += len(line) + 1

    def _number_fault(self, line: bytes) -> str | None:
        """What is wrong with a line's number. It counts even if the rest of the line is bad."""
        found = numbers_in(line)
        if not found:
            return None
        [(device, digits)] = found
        number = int(digits)
        last = self._last.get(device, number - 1)
        self._last[device] = number
        if number == last + 1:
            return None
        if number > last and self._is_jump(device.decode(), number):
            self.report.jumps += 1
            return None
        what = f"{number - last - 1} missing" if number > last else "a repeat"
        return f"{device.decode()}: number {number} follows {last}, {what}"

    def _is_jump(self, device: str, number: int) -> bool:
        return number in self._jumps.get(device, ())

    def _breach(self, what: str) -> None:
        self.report.breach_count += 1
        if self.report.breach_count <= MAX_BREACHES:
            self.report.breaches.append(Breach(self._path, self._line + 1, self._offset, what))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _fault(line: bytes) -> str | None:
    """What is wrong with a line, apart from its number."""
    if check_lines(line + b"\n"):
        return None
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(fields, dict):
        return "not a JSON object"
    if tuple(fields) not in KEYS:
        keys = ", ".join(map(ascii, fields))[:200]
        return f"its keys are {keys}, not time, device, seq and one of text, data, raw"
    return "not a record to the byte: its time, name, number, value or spacing is not as written"
