"""What the client says and understands, as bytes."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgpack
import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st
from scramp.utils import saslprep

from ingest.client import (
    Acked,
    AuthenticationError,
    Challenge,
    Ok,
    Packed,
    ProtocolError,
    RefusedError,
    Scram,
    ServerError,
    Text,
    backoff,
)
from tests.support.scripted_server import pack

# Replies


def said(feed: Callable[[bytes], Iterator[Any]], *chunks: bytes) -> list[object]:
    replies = [reply for chunk in chunks for reply in feed(chunk)]
    return [reply.args if isinstance(reply, ServerError) else reply for reply in replies]


CASES: list[tuple[type[Text] | type[Packed], bytes, list[object]]] = [
    (Text, b"OK device=a next=1 max_frame=65536\n", [Ok(1, 65536, b"")]),
    (Text, b"OK max_frame=9 new=x=y data=dj0x next=43\n", [Ok(43, 9, b"v=1")]),
    (Text, b"ACK 2\nACK 30\n", [Acked(2), Acked(30)]),
    (Text, b"+ cj14\n", [Challenge(b"r=x")]),
    (Text, b"+ \n", [Challenge(b"")]),
    (Text, b"ACK 7\nERR replaced by a newer one\n", [Acked(7), ("replaced", "by a newer one")]),
    (Text, b"ERR busy\n", [("busy", "")]),
    (Text, "ERR busy zu voll für Sie\n".encode(), [("busy", "zu voll für Sie")]),
    (Packed, pack({"ok": {"device": "a", "next": 1, "max_frame": 9}}), [Ok(1, 9, b"")]),
    (Packed, pack({"ok": {"next": 5, "max_frame": 9, "data": b"v=", "x": 1}}), [Ok(5, 9, b"v=")]),
    (Text, b"OK next=1 max_frame=9 time=2026\n", [Ok(1, 9, b"", "2026")]),
    (Packed, pack({"ok": {"next": 5, "max_frame": 9, "time": "2026"}}), [Ok(5, 9, b"", "2026")]),
    (Packed, pack({"ack": 2}, {"ack": 1 << 40}), [Acked(2), Acked(1 << 40)]),
    (Packed, pack({"challenge": b"r=x"}), [Challenge(b"r=x")]),
    (Packed, pack({"err": "busy", "text": "too many"}), [("busy", "too many")]),
    (Packed, pack({"err": "busy"}), [("busy", "")]),
]


@pytest.mark.parametrize(("dialect", "data", "replies"), CASES)
def test_replies_whole_byte_by_byte_and_with_trailing_data(
    dialect: type[Text] | type[Packed], data: bytes, replies: list[object]
) -> None:
    assert said(dialect().feed, data) == replies
    assert said(dialect().feed, *(data[i : i + 1] for i in range(len(data)))) == replies
    assert said(dialect().feed, data + data[:-1]) == replies + replies[:-1]
    assert said(dialect().feed, data + data[:-1], data[-1:]) == replies * 2


@pytest.mark.parametrize(
    "line",
    [b"", b"HTTP/1.1 400 Bad Request", b"ACK", b"ACK x", b"OK next=1", b"OK next=a max_frame=1",
     b"OK device", b"+ ???", b"\xff\xfe", b"ack 1"],
)  # fmt: skip
def test_a_line_that_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        said(Text().feed, line + b"\n")


@pytest.mark.parametrize(
    "data",
    [pack(1), pack({}), pack({"ack": "1"}), pack({"ok": {"next": 1}}), pack({"challenge": "r"}),
     pack({"ok": {"next": 1, "max_frame": 1, "time": 1}}), b"\xc1",
     b"\x81\xa3ack\xc1", b"\x81\xa1\xff\x01", b"\x81\x90\x01"],
)  # fmt: skip
def test_an_object_that_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        said(Packed().feed, data)


@pytest.mark.parametrize("dialect", [Text, Packed])
def test_a_reply_without_end_is_refused(dialect: type[Text] | type[Packed]) -> None:
    feed = dialect().feed
    with pytest.raises(ProtocolError):
        said(feed, b"\xdb\x7f\xff\xff\xff", *[b"x" * 1000] * 200)


@given(st.binary(max_size=200), st.sampled_from([Text, Packed]))
def test_any_bytes_are_replies_or_a_protocol_error(
    data: bytes, dialect: type[Text] | type[Packed]
) -> None:
    try:
        replies = said(dialect().feed, data)
    except ProtocolError:
        return
    assert said(dialect().feed, *(data[i : i + 1] for i in range(len(data)))) == replies


# Frames


def test_frames_as_bytes() -> None:
    assert Text().frame("größe=1") == ("größe=1\n".encode(), 9)
    assert Text().frame(b"\xff") == (b"\xff\n", 1)
    assert Packed().frame({"temp": 20.5}) == (pack({"temp": 20.5}), 15)


@pytest.mark.parametrize("frame", ["", b"", "a\nb", "a\n", b"a\r", "\r", "\ud800"])
def test_what_is_no_text_frame(frame: object) -> None:
    with pytest.raises(ValueError):
        Text().frame(frame)


def test_what_no_dialect_can_hold() -> None:
    with pytest.raises(TypeError, match="str or bytes, not int"):
        Text().frame(1)
    with pytest.raises(ValueError, match="keep-alive"):
        Packed().frame(None)
    with pytest.raises(ValueError):
        Packed().frame(1 << 64)
    with pytest.raises(TypeError):
        Packed().frame(object())


def test_the_first_messages() -> None:
    assert Text().auth("PLAIN", b"\0a\0t", "durable") == b"AUTH PLAIN AGEAdA== ack=durable\n"
    assert Text().response(b"c=biws") == b"Yz1iaXdz\n"
    packed = Packed().auth("PLAIN", b"\0a\0t", "none")
    assert msgpack.unpackb(packed) == {"auth": "PLAIN", "data": b"\0a\0t", "ack": "none"}


# SCRAM


def test_the_exchange_of_rfc_7677_section_3() -> None:
    scram = Scram("user", "pencil", lambda: "rOprNGfwEbeRWgbNEkqO")
    assert scram.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert scram.final(b"r=%b,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096" % nonce) == (
        b"c=biws,r=%b,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=" % nonce
    )
    scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def _scram_server(token: str) -> Any:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    info = mechanism.make_auth_info(token)
    return lambda: mechanism.make_server(lambda name: info)


def test_scram_against_another_implementation() -> None:
    token = "paß wort\u00a0\u2168\u00ad"
    make_server = _scram_server(token)
    scram = Scram("sensor-1", token)
    for _ in range(2):
        server = make_server()
        server.set_client_first(scram.first().decode())
        server.set_client_final(scram.final(server.get_server_first().encode()).decode())
        scram.verify(server.get_server_final().encode())


@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), min_size=1, max_size=20))
def test_tokens_are_prepared_as_the_server_prepares_them(token: str) -> None:
    try:
        expected = saslprep(token)
    except scramp.ScramException:
        return
    assert Scram("a", token)._password == expected.encode()


def test_the_key_is_derived_once_for_a_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    scram = Scram("a", "t")
    for _ in range(2):
        scram.first()
        scram.final(f"r={scram._nonce}x,s=AAAA,i=4096".encode())
        monkeypatch.setattr("hashlib.pbkdf2_hmac", None)
    with pytest.raises(TypeError):
        scram.final(f"r={scram._nonce}x,s=AAAB,i=4096".encode())


@pytest.mark.parametrize(
    "challenge",
    ["", "r=other,s=AAAA,i=4096", "r=mine,s=AAAA,i=4096", "r=mineX,s=AAAA,i=1",
     "r=mineX,s=AAAA,i=99999999", "r=mineX,s=A,i=4096", "r=mineX,s=AAAA", "e=other-error",
     "m=x,r=mineX,s=AAAA,i=4096", "r=mine\x80,s=AAAA,i=4096"],
)  # fmt: skip
def test_a_challenge_of_an_impostor_is_refused(challenge: str) -> None:
    scram = Scram("a", "t", lambda: "mine")
    scram.first()
    with pytest.raises(AuthenticationError):
        scram.final(challenge.encode("latin-1"))


@pytest.mark.parametrize("proof", [b"", b"v=", b"e=invalid-proof", b"v=" + b64encode(bytes(32))])
def test_a_server_that_does_not_know_the_token_is_refused(proof: bytes) -> None:
    scram = Scram("a", "t", lambda: "mine")
    scram.first()
    scram.final(b"r=mineX,s=AAAA,i=4096")
    with pytest.raises(AuthenticationError):
        scram.verify(proof)


def test_backoff_doubles_up_to_its_limit() -> None:
    ceilings = list(islice(backoff(1.0, 5.0, lambda low, high: high), 5))
    floors = list(islice(backoff(1.0, 5.0, lambda low, high: low), 5))
    assert ceilings == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert floors == [0.5, 1.0, 2.0, 2.5, 2.5]
    assert len(set(islice(backoff(5.0, 5.0), 50))) > 40, "it must be random"


@pytest.mark.parametrize(
    ("dialect", "said_by_server"),
    [
        (Text, b"ERR auth-failed unknown device\n"),
        (Packed, pack({"err": "auth-failed", "text": "unknown device"})),
    ],
)
def test_a_wrong_token_is_an_authentication_error_and_a_server_error(
    dialect: type[Text] | type[Packed], said_by_server: bytes
) -> None:
    (reply,) = dialect().feed(said_by_server)
    assert isinstance(reply, RefusedError)
    assert isinstance(reply, AuthenticationError)
    assert isinstance(reply, ServerError)
    assert (reply.code, str(reply)) == ("auth-failed", "auth-failed: unknown device")
