"""Which chunks of Fluent Forward the end of a log holds."""

from collections.abc import Iterator
from pathlib import Path

from ingest.log.files import DAMAGED, LogFile, log_files, open_log
from ingest.log.reading import read_blocks, read_blocks_backwards
from ingest.record import chunks_in

WINDOW = 64 << 20
"""Bytes at the end of the log that are looked at: many times what a journal takes before it makes
its devices wait, so that whatever was on its way at a crash is there."""


def recent_chunks(folder: Path, window: int = WINDOW) -> list[tuple[str, str]]:
    """Return the chunks whose records end a log, the oldest first.

    Returns:
        The device and the `chunk` of each record.

    Raises:
        OSError: the log can't be read.
    """
    found: list[list[tuple[str, str]]] = []
    for block in _blocks_backwards(folder):
        found.append(chunks_in(block))
        window -= len(block)
        if window <= 0:
            break
    return [chunk for chunks in reversed(found) for chunk in chunks]


def _blocks_backwards(folder: Path) -> Iterator[bytes]:
    for file in reversed(log_files(folder)):
        try:
            yield from _blocks_of(file)
        except (FileNotFoundError, *DAMAGED):
            continue  # retention has removed it, or `ingest verify` will name it


def _blocks_of(file: LogFile) -> Iterator[bytes]:
    with open_log(file) as stream:
        if file.compressed:
            yield from reversed(list(read_blocks(stream)))
        else:
            yield from read_blocks_backwards(stream, stream.seek(0, 2))
