"""Runs one stream of bytes in the ways that a network can bring it."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from hypothesis import strategies as st

from ingest.record import record_prefix
from ingest.wire.errors import ErrorCode
from ingest.wire.ingest1.messages import Dialect, Records
from ingest.wire.ingest1.msgpack_dialect import PackedDialect, QuickDecoder
from ingest.wire.ingest1.text_dialect import TextDialect

TIME = b"2026-11-22T11:39:00.123456Z"
PREFIX = record_prefix(TIME, b"sensor-1")
FIRST = 98
"""The first number: a stream of a few frames reaches three digits."""

QUICK = QuickDecoder()


def text(max_frame: int = 65536) -> TextDialect:
    return TextDialect(max_frame)


def packed(max_frame: int = 65536) -> PackedDialect:
    return PackedDialect(max_frame, QUICK)


def block_of(fields: Iterable[bytes], first: int = FIRST) -> bytes:
    """Write the lines of the log for `"text":…`, `"raw":…` or `"data":…` fields."""
    return b"".join(
        b'{"time":"%b","device":"sensor-1","seq":%d,%b}\n' % (TIME, seq, field)
        for seq, field in enumerate(fields, first)
    )


def read(
    dialect: Dialect, pieces: Iterable[bytes], *, closed: bool = False, first: int = FIRST
) -> Records:
    """Feed `pieces` one by one, up to an error; put the blocks together."""
    blocks, frames = [], 0
    error = None
    for piece in pieces:
        records = dialect.records(piece, PREFIX, first + frames)
        blocks.append(records.block)
        frames += records.frames
        error = records.error
        if error is not None:
            break
    if closed and error is None:
        records = dialect.last_record(PREFIX, first + frames)
        blocks.append(records.block)
        frames += records.frames
        error = records.error
    return Records(b"".join(blocks), frames, error)


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `stream` at `places` (beyond its end they wrap around)."""
    inner = {place % len(stream) for place in places} if stream else set()
    edges = [0, *sorted(inner - {0}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


cuts = st.lists(st.integers(0, 10_000), max_size=12)


def check(
    make: Callable[[], Dialect],
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
    expected = Records(block_of(fields), len(fields))
    assert read(make(), [stream] if stream else []) == expected
    assert read(make(), bytewise(stream)) == expected
    head, tail, field = trailing
    dialect = make()
    assert read(dialect, [stream + head]) == expected
    following = FIRST + len(fields)
    assert read(dialect, [tail], first=following) == Records(block_of([field], following), 1)


def check_refused(
    make: Callable[[], Dialect], stream: bytes, fields: Sequence[bytes], code: ErrorCode
) -> None:
    """Check that `stream` ends in an error: whole, byte by byte, and with trailing data.

    What stands before the error is kept, and nothing behind it is.
    """
    for pieces in ([stream], bytewise(stream), [stream + b"\xa1a\nb\n"], [stream, b"\xa1a\nb\n"]):
        records = read(make(), pieces)
        assert records[:2] == (block_of(fields), len(fields))
        assert records.error is not None
        assert records.error.code is code
