"""What a device runs, against scripted servers: the real listener has end-to-end tests."""

import contextlib
import socket
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgpack
import pytest
import scramp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp.utils import saslprep

from ingest.client import (
    Acked,
    AuthenticationError,
    Challenge,
    Client,
    Ok,
    OutOfStepError,
    Packed,
    ProtocolError,
    Scram,
    ServerError,
    Text,
    backoff,
)
from tests.scripted_server import Plan, Server, pack, serve_once

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
     b"\xc1", b"\x81\xa3ack\xc1", b"\x81\xa1\xff\x01", b"\x81\x90\x01"],
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


def test_backoff_grows_to_its_cap() -> None:
    ceilings = list(islice(backoff(1.0, 5.0, lambda low, high: high), 6))
    assert ceilings == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert all(0 <= delay <= 5.0 for delay in islice(backoff(1.0, 5.0), 50))


# Connections


def test_frames_are_acknowledged() -> None:
    with Server(stored=[b"older"]) as server:
        with server.client() as client:
            assert (client.next, client.acknowledged) == (2, 1)
            client.send("temp=20.5")
            client.send_many(["a", b"b"])
            client.wait()
            assert (client.next, client.acknowledged, client.unacknowledged) == (5, 4, 0)
            client.send("last")
        assert server.stored == [b"older", b"temp=20.5", b"a", b"b", b"last"]
        assert server.connections == 1


def test_without_acknowledgements_closing_waits_for_the_server() -> None:
    with Server([Plan(acks=False)]) as server:
        with server.client(ack="none", queue=3) as client:
            client.send_many(map(str, range(1000)))
        assert server.stored == [b"%d" % i for i in range(1000)]


def test_without_acknowledgements_closing_tells_of_a_broken_connection() -> None:
    with (
        Server([Plan(1, acks=False, farewell=b"ERR revoked by the operator\n")]) as server,
        pytest.raises(ServerError, match="revoked: by the operator"),
        server.client(ack="none") as client,
    ):
        client.send("a")


PLANS = st.builds(Plan, st.integers(1, 40), st.booleans(), st.sampled_from([b"", b"ERR busy\n"]))


@settings(deadline=None, max_examples=25)
@given(st.lists(PLANS, max_size=4), st.integers(1, 100), st.integers(1, 20), st.booleans())
def test_each_frame_is_stored_once_and_in_order_whatever_breaks(
    plans: list[Plan], count: int, queue: int, singly: bool
) -> None:
    frames = [f"frame {i}" for i in range(count)]
    with Server(plans) as server:
        with server.client(queue=queue, timeout=0.2) as client:
            if singly:
                for frame in frames:
                    client.send(frame)
            else:
                client.send_many(frames)
        assert server.stored == [frame.encode() for frame in frames]
        assert client.acknowledged == count


def test_frames_wait_in_the_queue_until_they_are_acknowledged() -> None:
    with Server([Plan(acks=False)]) as server:
        client = server.client(queue=5)
        client.connect()
        client.send_many("12345")
        with pytest.raises(TimeoutError, match="5 frames wait"):
            client.wait(timeout=0.05)
        assert client.unacknowledged == 5
        client.reconnect()
        assert (client.unacknowledged, client.acknowledged) == (0, 5)
        client.close()
        assert server.stored == [b"1", b"2", b"3", b"4", b"5"]


def test_a_silent_server_counts_as_broken() -> None:
    with Server([Plan(acks=False)]) as server:
        with server.client(timeout=0.1) as client:
            client.send("a")
        assert server.stored == [b"a"]
        assert server.connections == 2


def test_an_error_that_stays_is_raised_atserve_once() -> None:
    plan = Plan(take=1, farewell=b"ERR replaced a newer connection took over\n")
    with Server([plan]) as server:
        client = server.client()
        client.connect()
        client.send("a")
        with pytest.raises(ServerError) as caught:
            client.wait()
            client.send_many(["b"] * 10)
            client.wait()
        assert (caught.value.code, caught.value.text) == (
            "replaced",
            "a newer connection took over",
        )
        assert server.connections == 1


def test_a_client_stops_when_its_numbers_are_no_longer_its_own() -> None:
    with Server([Plan(acks=False, take=3), Plan(following=9)]) as server:
        client = server.client()
        client.connect()
        client.send_many("abc")
        with pytest.raises(OutOfStepError, match="next frame is 9, this client's is 4"):
            client.wait()


def test_a_server_that_takes_no_step_forward_is_given_up() -> None:
    plans = [Plan(take=0, farewell=b"ERR shutting-down\n") for _ in range(50)]
    with Server(plans) as server:
        client = server.client(retry=0.3)
        client.connect()
        with pytest.raises((ServerError, ConnectionError)):
            client.send("a")
            client.wait()


def test_an_unreachable_server_is_given_up_and_the_frame_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    client = Client("127.0.0.1", port, "a", "t", retry=0)
    with pytest.raises(ConnectionRefusedError):
        client.send("a")
    assert client.unacknowledged == 0
    client.close()


def test_an_acknowledgement_of_what_was_not_sent_is_refused() -> None:
    with Server([Plan(take=1, acks=False, farewell=b"ACK 7\n")]) as server:
        client = server.client()
        client.connect()
        with pytest.raises(ProtocolError, match="before frame 2"):
            client.send("a")
            client.wait()


def test_a_frame_that_is_too_long_is_refused_and_none_after_it_taken() -> None:
    with Server() as server, server.client() as client:
        client.send("x" * 100)
        with pytest.raises(ValueError, match="has 101 bytes, the server takes 100"):
            client.send_many(["fits", "x" * 101, "never"])
        assert client.next == 3


def test_an_error_within_the_block_closes_without_waiting() -> None:
    with Server([Plan(acks=False)]) as server, pytest.raises(KeyError), server.client() as client:
        client.send("a")
        raise KeyError


def test_a_name_that_is_no_device_is_refused() -> None:
    with pytest.raises(ValueError, match="no device name"):
        Client("127.0.0.1", 1, "a b", "t")


def test_a_server_that_must_be_read_before_it_reads_on() -> None:
    """Both directions carry more than the kernel holds, so each side must read to go on."""
    padding = "x" * 1000
    frames = [{"n": i, "padding": padding} for i in range(8_000)]
    stored: list[object] = []

    def serve(connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        while data := connection.recv(65536):
            unpacker.feed(data)
            for message in unpacker:
                if "auth" in message:
                    connection.sendall(pack({"ok": {"next": 1, "max_frame": 2000}}))
                else:
                    stored.append(message)
                    connection.sendall(pack({"ack": len(stored), "padding": padding}))

    with (
        serve_once(serve) as port,
        Client("127.0.0.1", port, "a", "t", dialect="msgpack", queue=100_000) as client,
    ):
        client.send_many(frames)
    assert stored == frames


@pytest.mark.parametrize("knows_token", [True, False])
def test_scram_on_a_connection(knows_token: bool) -> None:
    make_server = _scram_server("token")

    def serve(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        server = make_server()
        word, mechanism, first, _ = lines.readline().split()
        assert (word, mechanism) == (b"AUTH", b"SCRAM-SHA-256")
        server.set_client_first(b64decode(first).decode())
        connection.sendall(b"+ %b\n" % b64encode(server.get_server_first().encode()))
        server.set_client_final(b64decode(lines.readline()).decode())
        proof = server.get_server_final().encode() if knows_token else b"v=AAAA"
        connection.sendall(b"OK data=%b next=1 max_frame=100\nACK 0\n" % b64encode(proof))
        lines.read()
        lines.close()

    with serve_once(serve) as port:
        client = Client("127.0.0.1", port, "a", "token", mechanism="SCRAM-SHA-256")
        if knows_token:
            client.connect()
            client.close()
        else:
            with pytest.raises(AuthenticationError, match="signature"):
                client.connect()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with the key and the self-signed certificate of `localhost`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(encoding))
    return path


@pytest.mark.parametrize("ack", ["durable", "none"])
def test_over_tls(certificate: Path, ack: Literal["durable", "none"]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    frames = [f"{i} {'x' * 1000}" for i in range(2000)]
    stored: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls, tls.makefile("rb") as lines:
            lines.readline()
            tls.sendall(b"OK next=1 max_frame=2000\n")
            for line in lines:
                stored.append(line[:-1])
                if ack == "durable":
                    tls.sendall(b"ACK %d\n" % len(stored))
            with contextlib.suppress(OSError):
                tls.unwrap()

    trusting = ssl.create_default_context(cafile=certificate)
    with (
        serve_once(serve) as port,
        Client("localhost", port, "a", "t", tls=trusting, ack=ack) as client,
    ):
        client.send_many(frames)
    assert stored == [frame.encode() for frame in frames]


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    with serve_once(serve) as port:
        client = Client("localhost", port, "a", "t", tls=ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            client.reconnect()
