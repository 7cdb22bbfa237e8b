"""Which chunks of Fluent Forward the end of a log holds."""

from itertools import chain
from pathlib import Path

from ingest.log.files import DAMAGED, LogFile, log_files, open_log
from ingest.log.reading import read_blocks, read_blocks_backwards
from ingest.record import chunks_in

WINDOW = 64 << 20
"""Bytes at the end of the log that are looked at: many times what a journal takes before it makes
its devices wait, so that whatever was on its way at a crash is there."""

_Chunks = list[tuple[str, str]]


def recent_chunks(folder: Path, window: int = WINDOW) -> _Chunks:
    """Return the chunks whose records end a log, the oldest first.

    Returns:
        The device and the `chunk` of records; of those of one chunk at least the last.

    Raises:
        OSError: the log can't be read.
    """
    found: list[_Chunks] = []
    for file in reversed(log_files(folder)):
        if window <= 0:
            break
        try:
            size, chunks = _read_packed(file) if file.compressed else _read_end(file, window)
        except (FileNotFoundError, *DAMAGED):
            continue  # retention has removed it, or `ingest verify` will name it
        window -= size
        found.append(chunks)
    return list(chain.from_iterable(reversed(found)))


def _read_end(file: LogFile, window: int) -> tuple[int, _Chunks]:
    """Return how many bytes were read, and the chunks in them."""
    found: list[_Chunks] = []
    size = 0
    with open_log(file) as stream:
        for block in read_blocks_backwards(stream, stream.seek(0, 2)):
            found.append(chunks_in(block))
            size += len(block)
            if size >= window:
                break
    return size, list(chain.from_iterable(reversed(found)))


def _read_packed(file: LogFile) -> tuple[int, _Chunks]:
    """Do the same with a file that is read from its start only."""
    found: dict[tuple[str, str], None] = {}
    size = 0
    with open_log(file) as stream:
        for block in read_blocks(stream):
            size += len(block)
            found.update(dict.fromkeys(chunks_in(block)))
    return size, list(found)
