"""The most that one process can decode and encode: no socket, no disk, no numbers."""

import multiprocessing
import time
from typing import Any

import msgpack
import orjson

from ingest.bench.frames import make_block

_READ = 65536  # bytes that Twisted reads at once


def objects_per_second(size: int, frames: int) -> float:
    """Measure `list(Unpacker)` and `orjson.dumps` over the frames of `ingest bench`, in memory.

    It runs in a process of its own, as the listener does.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (size, frames))


def _measure(size: int, frames: int) -> float:
    data = memoryview(make_block("msgpack", size).data)
    unpacker: Any = msgpack.Unpacker()
    done, begun = 0, time.perf_counter()
    while done < frames:
        for start in range(0, len(data), _READ):
            unpacker.feed(data[start : start + _READ])
            done += len(list(map(orjson.dumps, list(unpacker))))
    return done / (time.perf_counter() - begun)
