"""Reading compressed files: whatever is cut short or damaged is an error, after what is good.

`gzip` throws away what it has read when it comes to the end of a file that was cut short, and
`zstandard` takes such a file for a whole one. Both have decoders of one frame (RFC 1952 calls it a
member) that say whether they have come to its end.
"""

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

import zstandard

DAMAGED = (EOFError, zlib.error, zstandard.ZstdError)
"""What reading a compressed file raises when its content is damaged or cut short."""

_READ = 1 << 14  # bytes; a decoder makes all at once of what it is given
_GZIP = 16 + zlib.MAX_WBITS  # see zlib.decompressobj


class _Decoder(Protocol):
    """Decodes one frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    ".gz": lambda: zlib.decompressobj(_GZIP),
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}
SUFFIXES = ("", ".zst", ".gz")
"""How the names of the log's files end."""


class Decompressed(io.BufferedIOBase):
    """A compressed file, read from its begin to its end.

    What can be read of a damaged one comes first; after it each `read` raises one of `DAMAGED`.
    """

    def __init__(self, raw: BinaryIO, suffix: str) -> None:
        """Read `raw`, which is closed with this.

        Args:
            raw: the file.
            suffix: how its name ends: `.gz` or `.zst`.
        """
        self._raw = raw
        self._make_decoder = _DECODERS[suffix]
        self._decoder = self._make_decoder()
        self._is_within = True  # a frame; an empty file is no frame at all
        self._held = bytearray()  # what was decoded and not asked for yet
        self._place = 0
        self._error: Exception | None = None

    def readable(self) -> bool:
        """See `io.IOBase.readable`."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer at the end, all that is left if it is negative.

        Raises:
            OSError: the disk is failing. One of `DAMAGED` if what follows is damaged or missing.
        """
        wanted = None if size is None or size < 0 else size
        while wanted is None or len(self._held) < wanted:
            if not self._decode_more():
                break
        if self._error is not None and not self._held and size != 0:
            raise self._error
        found = bytes(memoryview(self._held)[:wanted])
        del self._held[: len(found)]
        self._place += len(found)
        return found

    def seekable(self) -> bool:
        """See `io.IOBase.seekable`; forward only."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go forward to an offset, or to the end if that comes before.

        Raises:
            io.UnsupportedOperation: the offset lies behind.
            OSError: see `read`.
        """
        if whence != io.SEEK_SET or offset < self._place:
            raise io.UnsupportedOperation("a compressed file is read forward only")
        while self._place < offset and self.read(min(offset - self._place, 1 << 20)):
            pass
        return self._place

    def close(self) -> None:
        """Close the file below it, too."""
        super().close()
        self._raw.close()

    def _decode_more(self) -> bool:
        """Decode a piece; return whether there may be more."""
        if self._error is not None:
            return False
        piece = self._raw.read(_READ)
        try:
            if not piece:
                self._check_end()
                return False
            self._decode(piece)
        except DAMAGED as error:
            self._error = error
        return self._error is None

    def _decode(self, piece: bytes) -> None:
        while piece:
            if not self._is_within:
                piece = piece.lstrip(b"\0")  # what pads a file of gzip to a block's size
                if not piece:
                    return
                self._decoder, self._is_within = self._make_decoder(), True
            self._held += self._decoder.decompress(piece)
            piece = b""
            if self._decoder.eof:
                self._is_within = False
                piece = self._decoder.unused_data

    def _check_end(self) -> None:
        if self._is_within:
            raise EOFError("it ends too early: it was cut short, or never finished")
