"""Which numbers the records of some files carry, in whatever order files and lines are."""

from collections.abc import Iterable
from io import BytesIO
from typing import BinaryIO, NamedTuple

from ingest.journal.events import FileDamaged, Report
from ingest.log.decompressing import DAMAGED
from ingest.log.files import LogFile, open_log
from ingest.log.reading import WholeLines
from ingest.record import numbers_in

_BLOCK = 4 << 20


class Survey(NamedTuple):
    """What was found.

    Attributes:
        newest: each device's highest number.
        oldest: each device's lowest number.
        damaged: whether a file could be read in part only.
    """

    newest: dict[str, int]
    oldest: dict[str, int]
    damaged: bool = False


def survey(places: Iterable[tuple[LogFile, int]], report: Report) -> Survey:
    """Find each device's highest and lowest number in some files, each read from its place on.

    These count, in whatever order the files and the lines in them are.
    """
    newest: dict[bytes, int] = {}
    oldest: dict[bytes, int] = {}
    damaged = False
    for file, offset in places:
        try:
            with open_log(file) as stream:
                stream.seek(offset)
                _find_numbers(stream, newest, oldest)
        except DAMAGED as error:
            damaged = True
            report(FileDamaged(file.path, error))
    return Survey(_decoded(newest), _decoded(oldest), damaged)


def numbers_of(lines: bytes) -> dict[str, int]:
    """Find each device's highest number in some lines."""
    newest: dict[bytes, int] = {}
    _find_numbers(BytesIO(lines), newest, {})
    return _decoded(newest)


def _decoded(found: dict[bytes, int]) -> dict[str, int]:
    return {device.decode(): last for device, last in found.items()}


def _find_numbers(stream: BinaryIO, newest: dict[bytes, int], oldest: dict[bytes, int]) -> None:
    for block in WholeLines(stream, size=_BLOCK):
        for device, digits in numbers_in(block):
            number = int(digits)
            if number > newest.get(device, 0):
                newest[device] = number
                oldest.setdefault(device, number)
            elif number < oldest.get(device, 0):
                oldest[device] = number
