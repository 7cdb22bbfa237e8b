"""The most that one process can decode and encode: no socket, no disk, no numbers."""

import multiprocessing
import time
from typing import Any

import msgpack
import orjson

from ingest.bench.frames import make_block

_READS = (4096, 16384, 65536)
"""Bytes decoded at once; which of them is the fastest depends on the allocator."""


def objects_per_second(size: int, frames: int) -> float:
    """Measure `list(Unpacker)` and `orjson.dumps` over the frames of `ingest bench`, in memory.

    It runs in a process of its own, as the listener does, and takes what the best size of reads
    gives. Seconds are of CPU: nothing waits, and nothing else on the machine counts.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return max(pool.starmap(_measure, [(size, frames, read) for read in _READS]))


def _measure(size: int, frames: int, read: int) -> float:
    data = make_block("msgpack", size).data
    unpacker: Any = msgpack.Unpacker()
    done, begun = 0, time.process_time()
    while done < frames:
        for start in range(0, len(data), read):
            unpacker.feed(data[start : start + read])
            done += len(list(map(orjson.dumps, list(unpacker))))
    return done / (time.process_time() - begun)
