"""Runs one stream of bytes in the ways that a network can bring it."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

from ingest.record import record_block
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.framing import Frames, Framing
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.ingest1.text_dialect import TextDialect

TIME = b"2026-11-22T11:39:00.123456Z"
FIRST = 98
"""The first number: a stream of a few frames reaches three digits."""


def text(max_frame: int = 65536) -> TextDialect:
    return TextDialect(max_frame)


def msgpack_dialect(max_frame: int = 65536) -> MsgpackDialect:
    return MsgpackDialect(max_frame)


def block_of(fields: Iterable[bytes], first: int = FIRST) -> bytes:
    """Write the lines of the log for `"text":…`, `"raw":…` or `"data":…` fields."""
    return b"".join(
        b'{"time":"%b","device":"sensor-1","seq":%d,%b}\n' % (TIME, seq, field)
        for seq, field in enumerate(fields, first)
    )


class Read(NamedTuple):
    """What a stream brought: lines of the log, how many, and the error that ended it."""

    block: bytes
    frames: int
    error: PeerError | None = None


def read(
    framing: Framing, pieces: Iterable[bytes], *, closed: bool = False, first: int = FIRST
) -> Read:
    """Feed `pieces` one by one, up to an error; put the blocks together."""
    total = Read(b"", 0)
    for piece in pieces:
        total = _add(total, framing.cut(piece), first)
        if total.error is not None:
            return total
    return _add(total, framing.finish(), first) if closed else total


def _add(total: Read, frames: Frames, first: int) -> Read:
    block, count, _ = total
    if frames.values.items:
        block += record_block(TIME, b"sensor-1", first + count, frames.values)
    return Read(block, count + len(frames.values.items), frames.error)


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `stream` at `places` (beyond its end they wrap around)."""
    inner = {place % len(stream) for place in places} if stream else set()
    edges = [0, *sorted(inner - {0}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


cuts = st.lists(st.integers(0, 10_000), max_size=12)


def check(
    make: Callable[[], Framing],
    stream: bytes,
    fields: Sequence[bytes],
    *,
    trailing: tuple[bytes, bytes, bytes],
) -> None:
    """Check the records of `stream`: whole, byte by byte, and with trailing data.

    Args:
        make: makes the dialect.
        stream: whole frames.
        fields: what their records have behind the number.
        trailing: a frame in two parts, and its field.
    """
    expected = Read(block_of(fields), len(fields))
    assert read(make(), [stream] if stream else []) == expected
    assert read(make(), bytewise(stream)) == expected
    head, tail, field = trailing
    dialect = make()
    assert read(dialect, [stream + head]) == expected
    following = FIRST + len(fields)
    assert read(dialect, [tail], first=following) == Read(block_of([field], following), 1)


def check_refused(
    make: Callable[[], Framing], stream: bytes, fields: Sequence[bytes], code: ErrorCode
) -> None:
    """Check that `stream` ends in an error: whole, byte by byte, and with trailing data.

    What stands before the error is kept, and nothing behind it is.
    """
    for pieces in ([stream], bytewise(stream), [stream + b"\xa1a\nb\n"], [stream, b"\xa1a\nb\n"]):
        records = read(make(), pieces)
        assert records[:2] == (block_of(fields), len(fields))
        assert records.error is not None
        assert records.error.code is code
