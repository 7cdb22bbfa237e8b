"""Compressed events: gzip and zstd, several streams of which may stand one behind the other."""

import zlib
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import zstandard

from ingest.wire.errors import ErrorCode, PeerError, bad_frame, too_long

MAX_STREAMS = 65_536
"""Streams of one message, each of which costs about a microsecond, however little it holds. Fluentd
writes one for each emit, and its chunks have 8 MiB by default: 128 bytes a stream."""

_PIECE = 1024
"""Bytes that are decompressed at once: the most that they can become is 32 MiB, of zstd."""
_GZIP = zlib.MAX_WBITS | 16
_ZSTD_WINDOW = 8 << 20
"""Bytes of a zstd window at most: what all levels up to 19 need (RFC 8878, section 3.1.1.1.2)."""


class _Stream(Protocol):
    """One stream that is decompressed, as `zlib` and `zstandard` both make it."""

    @property
    def eof(self) -> bool:
        """Whether it has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""

    def decompress(self, data: bytes, /) -> bytes:
        """Go on with more bytes."""


_Begin: TypeAlias = Callable[[], _Stream]


def _gzip() -> _Begin:
    return lambda: zlib.decompressobj(_GZIP)


def _zstd() -> _Begin:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj


_KINDS: Final = {"gzip": _gzip, "zstd": _zstd}
"""Of each kind, what makes the function that begins a stream of one message."""


def decompress(events: bytes, compressed: object, limit: int) -> bytes:
    """Decompress the events of a message.

    Args:
        events: as they came.
        compressed: the option of the message that says how; None or `text` where they are not.
        limit: the most bytes that they may become.

    Raises:
        PeerError: they are too long, too many streams, broken, or compressed in another way.
    """
    if compressed in (None, "text"):
        return events
    if not isinstance(compressed, str) or compressed not in _KINDS:
        raise bad_frame("the events of a message are compressed by gzip, zstd or not at all")
    try:
        return _decompress(events, _KINDS[compressed](), limit)
    except (zlib.error, zstandard.ZstdError, MemoryError):
        raise bad_frame(
            f"the events of a message are no {compressed}, or its window is too large"
        ) from None


def _decompress(data: bytes, begin: _Begin, limit: int) -> bytes:
    made: list[bytes] = []
    room = limit
    streams = 0
    stream: _Stream | None = None
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        while piece:
            if stream is None or stream.eof:
                if streams == MAX_STREAMS:
                    raise PeerError(
                        ErrorCode.FRAME_TOO_LONG,
                        f"more than {MAX_STREAMS} compressed streams in a message",
                    )
                stream = begin()
                streams += 1
            made.append(stream.decompress(piece))
            room -= len(made[-1])
            if room < 0:
                raise too_long(limit)
            piece = stream.unused_data if stream.eof else b""
    if stream is not None and not stream.eof:
        raise bad_frame("the compressed events of a message end too early")
    return b"".join(made)
