"""Whole conversations, in both dialects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Claim, Ended
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.ingest1.session import State
from tests.wire.ingest1.peer import (
    CREDENTIALS,
    DEVICES,
    Device,
    Listener,
    PackedDevice,
    TextDevice,
    both,
    in_scram,
    logged_in,
)
from tests.wire.streams import TIME, block_of, bytewise, cut, cuts

WRONG = b"\0sensor-1\0wrong"
SHUTTING_DOWN = PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping")

each = st.sampled_from(DEVICES)


def ok(following: int = 1, max_frame: int = 65536) -> tuple[str, dict[str, object]]:
    return "ok", {
        "device": "sensor-1",
        "next": following,
        "max_frame": max_frame,
        "time": TIME.decode(),
    }


@both
def test_plain(device: Device) -> None:
    listener = Listener(following=43)
    listener.receive(device.auth("PLAIN", CREDENTIALS))
    assert device.replies(listener.sent) == [ok(43)]
    assert (listener.session.state, listener.session.device) == (State.OPEN, "sensor-1")
    listener.sent = b""
    listener.receive(device.frame("a") + device.frame("b"))
    listener.receive(device.frame("c"))
    assert device.replies(listener.sent) == [("ack", 44), ("ack", 45)]
    assert listener.block == block_of(map(device.field, "abc"), first=43)
    listener.close_side()
    assert listener.ended == [Ended(None)]


@both
def test_scram(device: Device) -> None:
    listener, client = in_scram(device)
    listener.receive(device.response(client.get_client_final().encode()))
    ((kind, content),) = device.replies(listener.sent)
    assert (kind, content["device"], content["next"]) == ("ok", "sensor-1", 1)
    client.set_server_final(content["data"].decode())  # raises unless the server proved itself
    listener.receive(device.frame("a"))
    assert listener.block == block_of([device.field("a")], first=1)


@given(each, cuts, st.booleans())
def test_frames_sent_straight_after_auth_count(
    device: Device, places: list[int], closes: bool
) -> None:
    stream = device.auth("PLAIN", CREDENTIALS) + device.frame("a") + device.frame("b")
    listener = Listener(following=7)
    listener.receive(*cut(stream, places))
    if closes:
        listener.close_side()
    replies = device.replies(listener.sent)
    assert replies[0] == ok(7)
    assert replies[-1] == ("ack", 8)
    assert listener.block == block_of(map(device.field, "ab"), first=7)
    assert len(listener.ended) == closes


@given(each, cuts)
def test_frames_sent_straight_after_a_scram_response_count(
    device: Device, places: list[int]
) -> None:
    listener, client = in_scram(device)
    response = device.response(client.get_client_final().encode())
    listener.receive(*cut(response + device.frame("a"), places))
    assert [kind for kind, _ in device.replies(listener.sent)] == ["ok", "ack"]
    assert listener.block == block_of([device.field("a")], first=1)


@both
def test_frames_that_arrive_while_the_listener_is_busy_wait(device: Device) -> None:
    listener = Listener(slow=True)
    listener.receive(device.auth("PLAIN", CREDENTIALS) + device.frame("a"))
    listener.receive(device.frame("b"))
    assert listener.session.state is State.CHECKING
    listener.answer()
    listener.receive(device.frame("c")[:1], device.frame("c")[1:])
    assert listener.asked == [Claim("sensor-1")]
    assert (listener.sent, listener.block) == (b"", b"")
    listener.answer()
    assert device.replies(listener.sent) == [ok(), ("ack", 1), ("ack", 3)]
    assert listener.block == block_of(map(device.field, "abc"), first=1)


@both
def test_frames_sent_ahead_of_a_refusal_are_discarded(device: Device) -> None:
    listener = Listener()
    listener.receive(device.auth("PLAIN", WRONG) + device.frame("a"))
    listener.receive(device.frame("b"))
    assert device.replies(listener.sent) == [("err", "auth-failed")]
    assert listener.block == b""


@both
def test_without_acks(device: Device) -> None:
    listener = Listener()
    listener.receive(device.auth("PLAIN", CREDENTIALS, ack="none") + device.frame("a"))
    listener.close_side()
    assert device.replies(listener.sent) == [ok()]
    assert listener.block == block_of([device.field("a")], first=1)


@both
def test_asking_for_acks_is_the_default(device: Device) -> None:
    listener = Listener()
    listener.receive(device.auth("PLAIN", CREDENTIALS, ack="durable") + device.frame("a"))
    assert device.replies(listener.sent) == [ok(), ("ack", 1)]


# The device closes its side.


@pytest.mark.parametrize("data", [b"", b"AUTH PLAIN", b"\x82\xa4auth"])
def test_half_close_before_the_first_message_is_whole(data: bytes) -> None:
    listener = Listener()
    listener.receive(*bytewise(data))
    listener.close_side()
    assert listener.ended == [Ended(None)]
    assert listener.sent == b""


@both
def test_half_close_within_scram(device: Device) -> None:
    listener, _ = in_scram(device)
    listener.close_side()
    assert listener.ended == [Ended(None)]


@both
@pytest.mark.parametrize("answers", [0, 1])
def test_half_close_while_the_listener_is_busy(device: Device, answers: int) -> None:
    """`printf … | nc -N` has closed its side long before the token is checked."""
    listener = Listener(slow=True)
    listener.receive(device.auth("PLAIN", CREDENTIALS) + device.frame("a"))
    for _ in range(answers):
        listener.answer()
    listener.close_side()
    assert listener.ended == []
    while listener.asked:
        listener.answer()
    assert device.replies(listener.sent) == [ok(), ("ack", 1)]
    assert listener.ended == [Ended(None)]
    assert listener.block == block_of([device.field("a")], first=1)


@both
def test_half_close_and_a_wrong_token(device: Device) -> None:
    listener = Listener(slow=True)
    listener.receive(device.auth("PLAIN", WRONG) + device.frame("a"))
    listener.close_side()
    listener.answer()
    assert device.replies(listener.sent) == [("err", "auth-failed")]
    assert len(listener.ended) == 1


def test_half_close_completes_a_last_line_but_no_msgpack_object() -> None:
    listener = logged_in(TextDevice())
    listener.receive(b"a\nlast")
    listener.close_side()
    assert listener.block == block_of([b'"text":"a"', b'"text":"last"'], first=1)
    assert listener.sent == b"ACK 1\nACK 2\n"
    device = PackedDevice()
    listener = logged_in(device)
    listener.receive(b"\x01\x92\x01")
    listener.close_side()
    assert listener.block == block_of([b'"data":1'], first=1)
    assert device.replies(listener.sent) == [("ack", 1), ("err", "bad-frame")]


def test_half_close_after_frames_and_an_error_sent_ahead() -> None:
    device = PackedDevice()
    listener = Listener(slow=True)
    listener.receive(device.auth("PLAIN", CREDENTIALS) + b"\x01\xc1")
    listener.close_side()
    listener.answer()
    listener.answer()
    assert device.replies(listener.sent) == [ok(), ("ack", 1), ("err", "bad-frame")]


# What the device does wrong.


@pytest.mark.parametrize(
    "first", [b"\n", b"\0", b"\x7f", b"\x16\x03\x01", b"\xa1", b"\xc0", b"\xff"]
)
def test_a_first_byte_of_neither_dialect(first: bytes) -> None:
    listener = Listener()
    listener.receive(first + b"AUTH PLAIN\n")
    assert listener.sent.startswith(b"ERR bad-frame ")
    assert listener.ended


@pytest.mark.parametrize("first", [b"\x80", b"\x9f", b"\xdc", b"\xdf", b" ", b"~"])
def test_the_first_byte_picks_the_dialect(first: bytes) -> None:
    listener = Listener()
    listener.receive(first)
    assert listener.session.state is not State.OPENING
    listener.fail(SHUTTING_DOWN)
    device: Device = PackedDevice() if first[0] >= 0x80 else TextDevice()
    ((kind, _),) = device.replies(listener.sent)
    assert kind == "err"


def test_tls_and_http_get_a_readable_answer() -> None:
    listener = Listener()
    listener.receive(b"\x16\x03\x01\x02\x00\x01")
    assert b"TLS" in listener.sent
    listener = Listener()
    listener.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert listener.sent.startswith(b"ERR auth-required ")
    assert b"HTTP" in listener.sent


@both
@pytest.mark.parametrize(
    ("mechanism", "data", "code"),
    [
        ("PLAIN", WRONG, "auth-failed"),
        ("PLAIN", b"\0sensor-2\0s3cr3t", "auth-failed"),
        ("PLAIN", b"sensor-2\0sensor-1\0s3cr3t", "auth-failed"),
        ("PLAIN", b"", "bad-frame"),
        ("PLAIN", b"sensor-1", "bad-frame"),
        ("SCRAM-SHA-256", b"sensor-1", "bad-frame"),
        ("plain", CREDENTIALS, "mechanism-unsupported"),
        ("SCRAM-SHA-1", b"n,,n=sensor-1,r=abc", "mechanism-unsupported"),
    ],
)
def test_a_failed_opening(device: Device, mechanism: str, data: bytes, code: str) -> None:
    listener = Listener()
    listener.receive(device.auth(mechanism, data))
    assert device.replies(listener.sent) == [("err", code)]
    assert listener.session.state is State.ENDED


@both
def test_a_frame_before_auth(device: Device) -> None:
    listener = Listener()
    frame = device.frame("temp") if isinstance(device, TextDevice) else b"\x81\xa4temp\x01"
    listener.receive(frame)
    assert device.replies(listener.sent) == [("err", "auth-required")]


@both
def test_a_token_in_clear_is_refused_unread(device: Device) -> None:
    listener = Listener(plaintext=False)
    listener.receive(device.auth("PLAIN", CREDENTIALS))
    assert device.replies(listener.sent) == [("err", "plaintext-refused")]
    assert listener.asked == []


@both
@pytest.mark.parametrize("final", [b"", b"c=biws,r=abc,p=AAAA", b"\xff"])
def test_a_bad_scram_response(device: Device, final: bytes) -> None:
    listener, _ = in_scram(device)
    listener.receive(device.response(final) + device.frame("a"))
    assert device.replies(listener.sent) == [("err", "auth-failed")]
    assert listener.block == b""
    assert listener.session.device == "sensor-1"  # for the count of failures, and the log
    assert listener.session.state is State.ENDED


@both
def test_a_wrong_token_in_scram(device: Device) -> None:
    listener, client = in_scram(device, token="wrong")
    listener.receive(device.response(client.get_client_final().encode()))
    assert device.replies(listener.sent) == [("err", "auth-failed")]


@both
def test_a_first_message_that_never_ends(device: Device) -> None:
    listener = Listener()
    listener.receive(b"AUTH " if isinstance(device, TextDevice) else b"\x81\xda\xff\xff")
    listener.receive(*[b"A" * 1000] * 5)
    assert device.replies(listener.sent) == [("err", "frame-too-long")]


@both
def test_a_frame_too_long_ends_it_and_the_frames_before_are_acknowledged(device: Device) -> None:
    listener = logged_in(device, max_frame=10)
    listener.receive(device.frame("a") + device.frame("x" * 20) + device.frame("b"))
    assert device.replies(listener.sent) == [("ack", 1), ("err", "frame-too-long")]
    assert listener.block == block_of([device.field("a")], first=1)


# What the listener decides.


@pytest.mark.parametrize(
    "code",
    ["auth-timeout", "replaced", "revoked", "idle-timeout", "busy", "shutting-down"],
)
@both
def test_the_listener_ends_it(device: Device, code: str) -> None:
    listener = logged_in(device)
    listener.receive(device.frame("a"))
    listener.fail(PeerError(ErrorCode(code), "for a reason"))
    assert device.replies(listener.sent) == [("ack", 1), ("err", code)]


@both
def test_a_refusal_is_told_in_the_devices_dialect(device: Device) -> None:
    listener = Listener(refusal=PeerError(ErrorCode.BUSY, "too many connections"))
    assert listener.sent == b""
    listener.receive(device.auth("PLAIN", CREDENTIALS))
    assert device.replies(listener.sent) == [("err", "busy")]


def test_the_listener_ends_what_has_said_nothing_in_text() -> None:
    listener = Listener()
    listener.fail(PeerError(ErrorCode.AUTH_TIMEOUT, "not authenticated in 10 s"))
    assert listener.sent == b"ERR auth-timeout not authenticated in 10 s\n"
