"""Which chunks of Fluent Forward the end of a log holds."""

from itertools import chain
from pathlib import Path
from typing import BinaryIO

from ingest.log.decompressing import DAMAGED
from ingest.log.files import is_plain, open_log
from ingest.log.listing import log_files
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
            with open_log(file) as stream:
                read = _read_end(stream, window) if is_plain(stream) else _read_packed(stream)
            size, chunks = read
        except (FileNotFoundError, *DAMAGED):
            continue  # retention has removed it, or `ingest verify` will name it
        window -= size
        found.append(chunks)
    return list(chain.from_iterable(reversed(found)))


def _read_end(stream: BinaryIO, window: int) -> tuple[int, _Chunks]:
    """Return how many bytes were read, and the chunks in them."""
    found: list[_Chunks] = []
    size = 0
    for block in read_blocks_backwards(stream, stream.seek(0, 2)):
        found.append(chunks_in(block))
        size += len(block)
        if size >= window:
            break
    return size, list(chain.from_iterable(reversed(found)))


def _read_packed(stream: BinaryIO) -> tuple[int, _Chunks]:
    """Do the same with a stream that is read from its start only."""
    found: dict[tuple[str, str], None] = {}
    size = 0
    for block in read_blocks(stream):
        size += len(block)
        found.update(dict.fromkeys(chunks_in(block)))
    return size, list(found)
