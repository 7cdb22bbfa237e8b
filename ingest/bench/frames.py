"""Frames made beforehand, all of one length, so that counting bytes counts frames."""

import random
from typing import NamedTuple

import msgpack

from ingest.bench.plan import Dialect

_BLOCK = 256 << 10  # bytes: more than a socket takes at once, and it stays in the core's cache
_SMALLEST_MAP = 52  # bytes of the map below with an empty note


class Block(NamedTuple):
    """Whole frames, one after another.

    Attributes:
        data: the frames.
        stride: bytes of each on the wire.
    """

    data: bytes
    stride: int


def make_block(dialect: Dialect, size: int) -> Block:
    """Make frames of `size` bytes each; a text frame has an LF besides.

    The same size gives the same bytes at every call.
    """
    source = random.Random(size)
    make, stride = (_line, size + 1) if dialect == "text" else (_object, size)
    count = max(1, _BLOCK // stride)
    return Block(b"".join(make(source, size) for _ in range(count)), stride)


def _line(source: random.Random, size: int) -> bytes:
    text = " ".join(
        f"{key}={source.randrange(100, 1000)}" for key in ("temp", "hum", "volt", "amp")
    )
    return text.ljust(size, "x")[:size].encode() + b"\n"


def _object(source: random.Random, size: int) -> bytes:
    """Pack a map of six fields, or a plain string where a map is too long."""
    if size < _SMALLEST_MAP:
        return _string(size)
    fields = (
        ("temp", source.uniform(10, 30)),
        ("volt", source.uniform(220, 240)),
        ("hum", source.randrange(256, 65536)),
        ("on", source.random() < 0.5),
        ("up", source.randrange(256, 65536)),
    )
    packed = b"".join(msgpack.packb(part) for field in fields for part in field)
    start: bytes = b"\x86" + packed + msgpack.packb("note")
    return start + _string(size - len(start))


def _string(size: int) -> bytes:
    """Pack a string so that it takes `size` bytes, its header included.

    Not with `msgpack.packb`, which always takes the shortest header: no string has 33 bytes then.
    """
    if size <= 32:
        return bytes([0xA0 + size - 1]) + b"x" * (size - 1)
    if size <= 257:
        return bytes([0xD9, size - 2]) + b"x" * (size - 2)
    if size <= 65538:
        return b"\xda" + (size - 3).to_bytes(2) + b"x" * (size - 3)
    return b"\xdb" + (size - 5).to_bytes(4) + b"x" * (size - 5)
