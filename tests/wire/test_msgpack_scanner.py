"""Where a msgpack object ends."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.mapping import MAX_DEPTH
from ingest.wire.msgpack_scanner import Scanner
from tests.wire.streams import cut, cuts
from tests.wire.values import pack, values

LIMIT = 65536


def ends_of(pieces: list[bytes], limit: int = LIMIT) -> list[int]:
    """Feed a growing buffer to one scanner; return where its objects end."""
    scanner = Scanner(limit)
    buffer = bytearray()
    ends = []
    for piece in pieces:
        buffer += piece
        while (end := scanner.end(buffer)) is not None:
            ends.append(end)
    return ends


def ends_by_decoder(stream: bytes) -> list[int]:
    """Ask the C decoder."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(stream) + 1)
    unpacker.feed(stream)
    ends: list[int] = []
    try:
        while True:
            unpacker.skip()
            ends.append(unpacker.tell())
    except msgpack.OutOfData:
        return ends


@given(st.lists(values, max_size=5), cuts, st.integers(0, 10))
def test_ends_where_the_decoder_ends(objects: list[Any], places: list[int], missing: int) -> None:
    stream = b"".join(map(pack, objects))
    stream = stream[: max(0, len(stream) - missing)]
    assert ends_of(cut(stream, places)) == ends_by_decoder(stream)


def _with_lengths() -> list[bytes]:
    """Write one object of each of the formats that name their length or their count."""
    body = b"\x01" * 3
    return [
        *(bytes([0xC4 + i]) + (3).to_bytes(1 << i, "big") + body for i in range(3)),  # bin
        *(bytes([0xC7 + i]) + (2).to_bytes(1 << i, "big") + body for i in range(3)),  # ext
        *(bytes([0xD9 + i]) + (3).to_bytes(1 << i, "big") + body for i in range(3)),  # str
        *(bytes([0xDC + i]) + (3).to_bytes(2 << i, "big") + body for i in range(2)),  # array
        *(bytes([0xDE + i]) + (3).to_bytes(2 << i, "big") + body * 2 for i in range(2)),  # map
    ]


def _of_fixed_size() -> list[bytes]:
    return [
        *(bytes([first]) for first in (0x00, 0x7F, 0xC0, 0xC2, 0xC3, 0xE0, 0xFF)),
        b"\x82" + b"\x01" * 4, b"\x93" + b"\x01" * 3, b"\xa3abc", b"\x80", b"\x90", b"\xa0",
        *(bytes([0xCA + i]) + b"\0" * size for i, size in enumerate((4, 8))),
        *(bytes([0xCC + i]) + b"\0" * (1 << i % 4) for i in range(8)),
        *(bytes([0xD4 + i, 5]) + b"\0" * (1 << i) for i in range(5)),
    ]  # fmt: skip


@pytest.mark.parametrize("packed", _with_lengths() + _of_fixed_size())
def test_each_format_whole_byte_by_byte_and_with_trailing_data(packed: bytes) -> None:
    whole = [len(packed)]
    assert ends_by_decoder(packed) == whole
    assert ends_of([packed]) == whole
    assert ends_of([packed[i : i + 1] for i in range(len(packed))]) == whole
    assert ends_of([packed + b"\x92\x01"]) == whole
    assert ends_of([packed[:-1]]) == []


def refused(stream: bytes, limit: int = LIMIT) -> ErrorCode:
    with pytest.raises(PeerError) as caught:
        ends_of([stream], limit)
    with pytest.raises(PeerError) as slowly:
        ends_of([stream[i : i + 1] for i in range(len(stream))], limit)
    assert slowly.value.code is caught.value.code
    return caught.value.code


@pytest.mark.parametrize("before", [b"", b"\x01", b"\x92\x01", b"\x81"])
def test_the_byte_that_starts_nothing(before: bytes) -> None:
    assert refused(before + b"\xc1") is ErrorCode.BAD_FRAME


def test_nesting_up_to_the_limit() -> None:
    assert ends_of([b"\x91" * (MAX_DEPTH - 1) + b"\x90"]) == [MAX_DEPTH]
    assert ends_of([b"\x81\x01" * (MAX_DEPTH - 1) + b"\x80"]) == [2 * MAX_DEPTH - 1]


@pytest.mark.parametrize("header", [b"\x91", b"\x81\x01", b"\xdd\0\0\0\x01", b"\x92\x01", b"\x81"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 10_000])
def test_deeper_nesting(header: bytes, depth: int) -> None:
    assert refused(header * (MAX_DEPTH + 1)) is ErrorCode.BAD_FRAME
    with pytest.raises(PeerError):
        ends_of([header * depth])


def test_many_flat_objects_are_not_nested() -> None:
    assert len(ends_of([b"\x91\x90" * 1000])) == 1000


@pytest.mark.parametrize("first", [0xC6, 0xC9, 0xDB, 0xDD, 0xDF])
def test_an_announcement_of_four_gibibytes_is_refused_at_its_header(first: int) -> None:
    assert refused(bytes([first]) + b"\xff" * 4) is ErrorCode.FRAME_TOO_LONG
    assert refused(b"\x92\x01" + bytes([first]) + b"\xff" * 4) is ErrorCode.FRAME_TOO_LONG


@pytest.mark.parametrize(
    "packed", [b"\xc4\x05" + b"x" * 5, b"\x96" + b"\x01" * 6, b"\x83" + b"\x01" * 6, b"\xa6abcdef"]
)
def test_the_limit_is_the_size_of_one_object(packed: bytes) -> None:
    size = len(packed)
    assert ends_of([packed * 3], limit=size) == [size, 2 * size, 3 * size]
    assert refused(packed, limit=size - 1) is ErrorCode.FRAME_TOO_LONG
    assert refused(b"\x01" + packed, limit=size - 1) is ErrorCode.FRAME_TOO_LONG


def test_an_object_that_only_its_items_make_too_long() -> None:
    assert refused(b"\x93\xa3abc\xa3abc\xa3abc", limit=12) is ErrorCode.FRAME_TOO_LONG


@given(st.binary(max_size=60), cuts)
def test_noise_ends_the_same_way_however_it_is_cut(noise: bytes, places: list[int]) -> None:
    assert _outcome([noise]) == _outcome(cut(noise, places))


def _outcome(pieces: list[bytes]) -> tuple[list[int], ErrorCode | None]:
    ends: list[int] = []
    scanner, buffer = Scanner(30), bytearray()
    try:
        for piece in pieces:
            buffer += piece
            while (end := scanner.end(buffer)) is not None:
                ends.append(end)
    except PeerError as error:
        return ends, error.code
    return ends, None


@pytest.mark.parametrize(
    "item",
    [b"\x01", b"\x90", b"\x91\x01", b"\x81\xa1k" * 60 + b"\xc0", b"\xda\x01\x2c" + b"x" * 300],
)
@pytest.mark.parametrize("piece", [63, 64, 65, 700, 5000])
def test_a_large_object_in_pieces(item: bytes, piece: int) -> None:
    count = 20_000 // len(item)
    stream = b"\xdc" + count.to_bytes(2, "big") + item * count
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    assert ends_of([*pieces, b"\x02"]) == [len(stream), len(stream) + 1]
    assert ends_of([stream[:-1]]) == []
