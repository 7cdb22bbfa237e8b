"""The contract of `Framing`, which all that cuts streams into frames keeps."""

from collections.abc import Callable
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.framing import NO_FRAMES, Framing
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.ingest1.text_dialect import TextDialect
from ingest.wire.stepwise import Steps, Stepwise, StepwiseFraming
from ingest.wire.syslog.framing import SyslogFraming
from ingest.wire.syslog.relp import RelpFraming
from tests.support.implementations import implementations
from tests.wire.streams import bytewise, cut, cuts, read

LIMIT = 100
STOPPING = PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping")


class Case(NamedTuple):
    """A framing.

    Attributes:
        make: makes it, for frames of at most so many bytes.
        begin: what a peer says before its first frame.
        frames: three whole frames.
        endless: the begin of a frame, and what it may go on with for ever.
    """

    make: Callable[[int], Framing]
    begin: bytes
    frames: list[bytes]
    endless: tuple[bytes, bytes]


class Counted(Stepwise):
    """Readings that begin with two bytes of length."""

    def frame(self) -> Steps[object]:
        size = yield 2
        return (yield int.from_bytes(size, "big"))


CASES = {
    TextDialect: Case(TextDialect, b"", [b"a\n", b"\xff\n", b"c\n"], (b"x", b"x")),
    MsgpackDialect: Case(
        MsgpackDialect, b"", [msgpack.packb({"n": n}) for n in range(3)], (b"\xdb\0\1\0\0", b"x")
    ),
    SyslogFraming: Case(SyslogFraming, b"", [b"<1>a\n", b"4 <1>b", b"<1>c\n"], (b"<1>", b"x")),
    RelpFraming: Case(
        RelpFraming, b"1 open 0\n", [b"%d syslog 4 <1>a\n" % n for n in (2, 3, 4)],
        (b"2 syslog 101 ", b"x"),
    ),
    StepwiseFraming: Case(
        lambda limit: StepwiseFraming(Counted(), limit), b"",
        [b"\0\1a", b"\0\0", b"\0\2bc"], (b"\0", b"\xff"),
    ),
}  # fmt: skip
in_every_case = pytest.mark.parametrize(
    "case", CASES.values(), ids=[kind.__name__ for kind in CASES]
)


def opened(case: Case) -> Framing:
    framing = case.make(LIMIT)
    if case.begin:
        assert framing.cut(case.begin) == NO_FRAMES
    return framing


def test_no_framing_is_left_out() -> None:
    assert implementations(Framing, "ingest.wire") == set(CASES)


@in_every_case
@given(where=cuts)
def test_in_any_pieces_the_frames_are_the_same(case: Case, where: list[int]) -> None:
    stream = b"".join(case.frames)
    whole = read(opened(case), [stream], closed=True)
    assert (whole.frames, whole.error) == (3, None)
    assert read(opened(case), cut(stream, where), closed=True) == whole
    assert read(opened(case), bytewise(stream), closed=True) == whole


@in_every_case
def test_a_frame_comes_as_soon_as_it_is_whole(case: Case) -> None:
    framing = opened(case)
    for frame in case.frames:
        assert all(not framing.cut(byte).values.items for byte in bytewise(frame[:-1]))
        assert len(framing.cut(frame[-1:]).values.items) == 1
    assert framing.finish() == NO_FRAMES


@in_every_case
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_a_frame_without_end_is_given_up_soon(case: Case, size: int) -> None:
    """And what came before it is kept."""
    framing = opened(case)
    begin, more = case.endless
    frames = framing.cut(case.frames[0] + begin)
    count, taken = len(frames.values.items), len(begin)
    while frames.error is None:
        assert taken < LIMIT + 4096 + len(begin), "it is kept for ever"
        frames = framing.cut(more * size)
        count += len(frames.values.items)
        taken += size
    assert count == 1
    assert frames.error.code is ErrorCode.FRAME_TOO_LONG
    assert frames.error.__traceback__ is None, "it keeps what made it"


@in_every_case
@given(pieces=st.lists(st.binary(min_size=1, max_size=80), max_size=8))
def test_no_bytes_are_our_fault(case: Case, pieces: list[bytes]) -> None:
    found = read(opened(case), pieces, closed=True)
    assert found.error is None or found.error.code in ErrorCode


@in_every_case
def test_acknowledgements_may_skip_numbers_and_the_end_has_words(case: Case) -> None:
    framing = opened(case)
    framing.cut(b"".join(case.frames))
    assert all(isinstance(framing.ack(seq), bytes) for seq in (1, 3, 1000))
    assert isinstance(framing.error(STOPPING), bytes)
