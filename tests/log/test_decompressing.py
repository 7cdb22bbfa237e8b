"""Compressed files: whole, cut short at any byte, damaged, in pieces."""

import gzip
import io

import pytest
import zstandard

from ingest.log.decompressing import DAMAGED, Decompressed

_CONTENT = b"".join(b"%d: a line of the log\n" % number for number in range(20_000))
_PACK = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}
each_kind = pytest.mark.parametrize("suffix", [".gz", ".zst"])


def _read(packed: bytes, suffix: str, size: int = 5000) -> tuple[bytes, bool]:
    """Return what can be read, and whether it ends in good order."""
    stream = Decompressed(io.BytesIO(packed), suffix)
    found = b""
    try:
        while piece := stream.read(size):
            assert len(piece) <= size
            found += piece
    except DAMAGED as error:
        with pytest.raises(type(error)):
            stream.read(1)
        return found, False
    assert stream.read() == b""
    return found, True


@each_kind
@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 22])
def test_a_whole_one(suffix: str, size: int) -> None:
    assert _read(_PACK[suffix](_CONTENT), suffix, size) == (_CONTENT, True)


@each_kind
def test_several_one_after_another(suffix: str) -> None:
    pack = _PACK[suffix]
    assert _read(pack(b"a\n") + pack(b"") + pack(_CONTENT), suffix) == (b"a\n" + _CONTENT, True)


def test_gzip_may_be_padded() -> None:
    assert _read(gzip.compress(b"a\n") + bytes(600) + gzip.compress(b"b\n"), ".gz") == (
        b"a\nb\n",
        True,
    )


@each_kind
def test_one_that_was_cut_short_at_any_byte(suffix: str) -> None:
    packed = _PACK[suffix](_CONTENT[:3000])
    for cut in range(len(packed)):
        found, is_whole = _read(packed[:cut], suffix)
        assert not is_whole
        assert _CONTENT.startswith(found)


@each_kind
def test_what_is_good_of_it_comes_first(suffix: str) -> None:
    packed = _PACK[suffix](_CONTENT)
    found, is_whole = _read(packed[:-20], suffix, 1 << 22)
    assert not is_whole
    assert len(found) > len(_CONTENT) // 2
    assert _CONTENT.startswith(found)


@each_kind
def test_one_that_is_damaged(suffix: str) -> None:
    packed = bytearray(_PACK[suffix](_CONTENT))
    packed[len(packed) // 2] ^= 0xFF
    assert not _read(bytes(packed), suffix)[1]
    assert _read(b"not packed at all", suffix) == (b"", False)
    assert not _read(_PACK[suffix](b"a\n") + b"rest", suffix)[1]


@each_kind
def test_it_is_read_forward_only(suffix: str) -> None:
    raw = io.BytesIO(_PACK[suffix](_CONTENT))
    stream = Decompressed(raw, suffix)
    assert stream.seek(70_000) == 70_000
    assert stream.read(10) == _CONTENT[70_000:70_010]
    assert stream.tell() == 70_010
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(0)
    assert stream.seek(1 << 30) == len(_CONTENT)
    stream.close()
    assert raw.closed
