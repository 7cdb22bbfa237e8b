"""Protocols in steps: generators that ask for bytes."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Claim, Ended, Standing
from ingest.wire.errors import ErrorCode, PeerError, bad_frame
from ingest.wire.options import OptionError, Options
from ingest.wire.stepwise import Steps, Stepwise, stepwise
from tests.wire.forward.peer import ELSEWHERE, Client
from tests.wire.streams import bytewise, cut, cuts


class Meter(Stepwise):
    """A serial number; then readings that begin with two bytes of length."""

    def login(self) -> Steps[str]:
        (size,) = yield 1
        serial = yield size
        return serial.decode("ascii")

    def welcome(self) -> bytes:
        return b"\x01"

    def frame(self) -> Steps[object]:
        size = yield 2
        return (yield int.from_bytes(size, "big"))

    def stored(self, count: int) -> bytes:
        return b"%d," % count

    def farewell(self, error: PeerError) -> bytes:
        return f"!{error.code}".encode()


class Lines(Stepwise):
    """Lines that end in CRLF, of which each says what it is; there is no login."""

    def frame(self) -> Steps[object]:
        kind, text = (yield b"\r\n").split(b":")
        if kind == b"x":
            raise bad_frame("no x")
        made: dict[bytes, Callable[[bytes], object]] = {
            b"t": bytes.decode, b"n": int, b"m": lambda text: {"m": [text, float("nan")]},
            b"0": lambda text: None,
        }  # fmt: skip
        return made[kind](text)


METERS = stepwise(Meter, shared=False)(Options({}))
LINES = stepwise(Lines)(Options({"device": "lines"}))


def meter(*pieces: bytes, **more: Any) -> Client:
    client = Client(METERS, **more)
    client.receive(*pieces)
    return client


def lines(*pieces: bytes, **more: Any) -> Client:
    client = Client(LINES, **more)
    client.receive(*pieces)
    return client


def stored(client: Client) -> list[Any]:
    return [list(orjson.loads(line).items())[3:] for line in client.log.lines]


def packed(*readings: bytes) -> bytes:
    return b"".join(len(reading).to_bytes(2, "big") + reading for reading in readings)


STREAM = b"\x04wm-1" + packed(b"\x00\xff", b"", b"abc")


def check_meter(client: Client) -> None:
    assert client.claims == [Claim("wm-1", Standing.REGISTERED, shared=False)]
    assert stored(client) == [[("raw", "AP8=")], [("raw", "")], [("raw", "YWJj")]]
    welcome, *counts = client.sent[:1], *client.sent[1:].split(b",")[:-1]
    assert welcome == b"\x01" and sum(map(int, counts)) == 3
    assert not client.ended


@given(places=cuts)
def test_a_login_and_frames_in_any_pieces(places: list[int]) -> None:
    for pieces in ([STREAM], bytewise(STREAM), cut(STREAM, places)):
        check_meter(meter(*pieces))


def test_trailing_data_waits() -> None:
    client = meter(STREAM + b"\x00\x02x")
    check_meter(client)
    client.take()
    client.receive(b"y")
    assert (client.log.last, client.take()) == (4, b"1,")


def test_what_frames_may_be() -> None:
    stream = b"t:a\x9b\r\n".replace(b"\x9b", b"\xc2\x9b") + b"n:5\r\n0:\r\nm:\xff\r\n"
    for pieces in ([stream], bytewise(stream)):
        client = lines(*pieces)
        assert client.claims == [Claim("lines", Standing.REGISTERED, shared=True)]
        assert stored(client) == [
            [("text", "a\x9b")],
            [("data", 5)],
            [("data", {"m": [{"$binary": "/w=="}, {"$number": "NaN"}]})],
        ]
        assert b"\xc2\x9b" not in client.log.block and client.sent == b""
        client.close_side()
        assert client.ended == [Ended(None)]


def test_answers_wait_for_the_disk() -> None:
    client = meter(STREAM, slow=True)
    assert client.take() == b"\x01"
    client.receive(packed(b"d"))
    client.sync()
    assert client.take() == b"4,"


@pytest.mark.parametrize(
    ("stream", "kept", "code"),
    [
        (b"t:a\r\nx:\r\nt:b\r\n", 1, ErrorCode.BAD_FRAME),
        (b"t:a\r\nt:\xff\r\nt:b\r\n", 1, ErrorCode.BAD_FRAME),
        (b"t:a\r\nn:x\r\n", 1, ErrorCode.BAD_FRAME),
        (b"t:" + b"a" * 99, 0, ErrorCode.FRAME_TOO_LONG),
        (b"t:a\r\nt:" + b"a" * 97 + b"\r\n", 1, ErrorCode.FRAME_TOO_LONG),
    ],
)
def test_what_is_no_frame(stream: bytes, kept: int, code: ErrorCode) -> None:
    for pieces in ([stream], bytewise(stream)):
        client = lines(*pieces, max_frame=98)
        error = client.ended[0].error
        assert error is not None and error.code is code
        assert client.log.last == kept


@pytest.mark.parametrize("extra", [0, 1])
def test_the_largest_frame(extra: int) -> None:
    for make, frame in ((lines, b"t:" + b"a" * (96 + extra) + b"\r\n"),
                        (meter, b"\x01m" + packed(b"x" * (96 + extra)))):  # fmt: skip
        for pieces in ([frame], bytewise(frame)):
            client = make(*pieces, max_frame=98)
            assert (client.log.last, len(client.ended)) == (1 - extra, extra)


def test_a_stream_that_ends_within_a_frame() -> None:
    for behind in (b"\x00", b"\x00\x02", b"\x00\x02x"):
        client = meter(STREAM + behind)
        client.close_side()
        error = client.ended[0].error
        assert error is not None and error.code is ErrorCode.BAD_FRAME
        assert client.log.last == 3 and client.sent.endswith(b"!bad-frame")


@pytest.mark.parametrize("login", [b"\x02\xff\xff", b"\x00", b"\x02a b"])
def test_what_is_no_login(login: bytes) -> None:
    """A name that is empty or can be none is not the name of the host instead."""
    client = meter(login + packed(b"x"))
    assert client.claims == [] and client.log.last == 0
    assert client.ended[0].error is not None


def test_a_client_that_closes_before_its_login() -> None:
    client = meter(b"\x04wm")
    client.close_side()
    assert client.ended == [Ended(None)]


def test_who_may_come() -> None:
    assert meter(STREAM, peer=ELSEWHERE).claims == []
    with pytest.raises(OptionError, match="there is no option 'x'"):
        stepwise(Meter)(Options({"x": 1}))


class Header(Stepwise):
    """A length that counts itself, as many protocols have it."""

    def frame(self) -> Steps[object]:
        (size,) = yield 1
        return (yield size - 1)


def test_a_length_below_zero() -> None:
    client = Client(stepwise(Header)(Options({"device": "d"})))
    client.receive(b"\x02a\x00\x02b")
    error = client.ended[0].error
    assert error is not None and error.code is ErrorCode.BAD_FRAME
    assert client.log.last == 1


class Nothing(Stepwise):
    """A fault: a frame that takes no bytes."""

    def frame(self) -> Steps[object]:
        return (yield 0)


def test_a_frame_of_no_bytes_does_not_hang() -> None:
    client = Client(stepwise(Nothing)(Options({"device": "d"})))
    with pytest.raises(RuntimeError, match="a frame of no bytes"):
        client.receive(b"a")


@given(readings=st.lists(st.binary(max_size=300)), places=cuts)
def test_any_readings_in_any_pieces(readings: Sequence[bytes], places: list[int]) -> None:
    client = meter(b"\x04wm-1", *cut(packed(*readings), places))
    assert client.log.last == len(readings) and not client.ended
