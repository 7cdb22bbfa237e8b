"""RELP: each message is answered, once it is on disk."""

import orjson
import pytest
from hypothesis import given

from ingest.wire.conversation import Ended
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.options import Options
from ingest.wire.syslog.relp import make_converse
from tests.wire.forward.peer import Client
from tests.wire.streams import bytewise, cut, cuts

NAMED = make_converse(Options({"device": "syslog"}))
OPEN = b"1 open 30 relp_version=0\ncommands=syslog\n"
OFFERS = b"1 rsp 58 200 OK\nrelp_version=0\nrelp_software=ingest\ncommands=syslog\n"
SESSION = OPEN + b"2 syslog 4 <1>a\n3 syslog 0\n4 syslog 5 <1>\nb\n5 close 0\n"
ANSWERS = OFFERS + b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 6 200 OK\n5 rsp 0\n0 serverclose 0\n"


def client(*pieces: bytes, slow: bool = False, max_frame: int = 65536) -> Client:
    made = Client(NAMED, slow=slow, max_frame=max_frame)
    made.receive(*pieces)
    return made


def raws(made: Client) -> list[str]:
    return [orjson.loads(line)["data"]["raw"] for line in made.log.lines]


def check(made: Client) -> None:
    assert raws(made) == ["<1>a", "<1>\nb"]
    assert made.sent == ANSWERS
    assert made.ended == [Ended(None)]


def test_the_lengths_of_this_test() -> None:
    assert len(OPEN) == len(b"1 open 30 ") + 30 + 1
    assert len(OFFERS) == len(b"1 rsp 58 ") + 58 + 1


def test_a_session_whole_and_byte_by_byte() -> None:
    check(client(SESSION))
    check(client(*bytewise(SESSION)))


@given(cuts)
def test_a_session_in_any_pieces(where: list[int]) -> None:
    check(client(*cut(SESSION, where)))


def test_answers_wait_for_the_disk() -> None:
    made = client(OPEN, slow=True)
    assert made.take() == OFFERS
    made.receive(b"2 syslog 4 <1>a\n", b"3 syslog 4 <1>b\n4 close 0\n")
    assert made.take() == b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 0\n0 serverclose 0\n"
    made = client(OPEN, slow=True)
    made.receive(b"2 syslog 4 <1>a\n")
    assert made.take() == OFFERS
    made.sync()
    assert made.take() == b"2 rsp 6 200 OK\n"


def test_a_line_end_that_is_counted_is_not_of_the_message() -> None:
    made = client(OPEN, b"2 syslog 5 <1>a\n\n3 syslog 6 <1>b\r\n\n4 syslog 1 \n\n")
    assert raws(made) == ["<1>a", "<1>b"]
    assert made.sent == OFFERS + b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n4 rsp 6 200 OK\n"


def test_an_unknown_command() -> None:
    made = client(OPEN, b"2 quux 1 x\n3 syslog 4 <1>a\n")
    assert made.sent == OFFERS + b"2 rsp 19 500 unknown command\n3 rsp 6 200 OK\n"


def test_the_end_from_our_side_is_said() -> None:
    made = client(OPEN)
    made.take()
    error = PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping")
    (ended,) = made.conversation.fail(error)
    assert ended == Ended(error)
    assert made.conversation.farewell(error) == b"0 serverclose 0\n"


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"1 syslog 1 x\n", ErrorCode.BAD_FRAME),
        (OPEN + OPEN, ErrorCode.BAD_FRAME),
        (OPEN + b"2 syslog 1 xy\n", ErrorCode.BAD_FRAME),
        (OPEN + b"2 syslog 1\nx\n", ErrorCode.BAD_FRAME),
        (OPEN + b"x", ErrorCode.BAD_FRAME),
        (OPEN + b"2 sys\n", ErrorCode.BAD_FRAME),
        (OPEN + b"1234567890", ErrorCode.BAD_FRAME),
        (OPEN + b"2 syslog 999999999 x", ErrorCode.FRAME_TOO_LONG),
        (OPEN + b"2 syslog 101 x", ErrorCode.FRAME_TOO_LONG),
        (SESSION + b"6 syslog 1 x\n", None),
    ],
)
def test_what_is_no_session(stream: bytes, code: ErrorCode | None) -> None:
    for pieces in ([stream], bytewise(stream)):
        made = client(*pieces, max_frame=100)
        error = made.ended[0].error
        assert (error and error.code) == code or code is None


def test_a_stream_that_ends_within_a_frame() -> None:
    made = client(OPEN, b"2 syslog 4 <1>")
    made.close_side()
    error = made.ended[0].error
    assert error is not None and error.code is ErrorCode.BAD_FRAME
    assert made.log.last == 0


def test_the_largest_message() -> None:
    made = client(OPEN, b"2 syslog 100 " + b"x" * 100 + b"\n", max_frame=100)
    assert made.log.last == 1 and not made.ended
