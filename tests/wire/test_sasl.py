"""How a device proves its name."""

import pytest
import scramp.core
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.sasl import Credentials, ScramExchange, parse_plain
from tests.wire.ingest1.peer import find_keys

CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


@pytest.mark.parametrize(
    ("message", "device", "token"),
    [
        (b"\0sensor-1\0s3cr3t", "sensor-1", "s3cr3t"),
        (b"sensor-1\0sensor-1\0s3cr3t", "sensor-1", "s3cr3t"),
        ("\0sensor-1\0schlüssel".encode(), "sensor-1", "schlüssel"),
        (b"\0sensor-1\0", "sensor-1", ""),
    ],
)
def test_plain(message: bytes, device: str, token: str) -> None:
    assert parse_plain(message) == Credentials(device, token)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", ErrorCode.BAD_FRAME),
        (b"sensor-1", ErrorCode.BAD_FRAME),
        (b"sensor-1\0s3cr3t", ErrorCode.BAD_FRAME),
        (b"\0sensor-1\0s3\0cret", ErrorCode.BAD_FRAME),
        (b"\0sensor-1\0\xff", ErrorCode.BAD_FRAME),
        (b"sensor-2\0sensor-1\0s3cr3t", ErrorCode.AUTH_FAILED),
        (b"\0\0", ErrorCode.AUTH_FAILED),
        (b"\0sensor 1\0s3cr3t", ErrorCode.AUTH_FAILED),
        (b"\0" + b"x" * 129 + b"\0s3cr3t", ErrorCode.AUTH_FAILED),
        (("\0" + "\ufdfa" * 1300 + "\0s3cr3t").encode(), ErrorCode.AUTH_FAILED),
    ],
)
def test_plain_refused(message: bytes, code: ErrorCode) -> None:
    with pytest.raises(PeerError) as caught:
        parse_plain(message)
    assert caught.value.code is code


def test_scram_by_the_example_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scramp.core, "token_hex", lambda: SERVER_NONCE)
    exchange = ScramExchange(find_keys)
    nonce = CLIENT_NONCE + SERVER_NONCE
    assert exchange.challenge(f"n,,n=user,r={CLIENT_NONCE}".encode()) == (
        f"r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    )
    proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert exchange.verify(f"c=biws,r={nonce},p={proof}".encode()) == (
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )
    assert exchange.device == "user"


def converse(device: str, token: str) -> ScramExchange:
    """Let a client prove itself, and check the server's own proof."""
    exchange = ScramExchange(find_keys)
    client = ScramClient(["SCRAM-SHA-256"], device, token)
    client.set_server_first(exchange.challenge(client.get_client_first().encode()).decode())
    client.set_server_final(exchange.verify(client.get_client_final().encode()).decode())
    return exchange


def test_scram() -> None:
    assert converse("sensor-1", "s3cr3t").device == "sensor-1"


@pytest.mark.parametrize(
    ("device", "token"), [("sensor-1", "wrong"), ("sensor-2", "s3cr3t"), ("sensor-2", "none")]
)
def test_a_wrong_token_and_an_unknown_device_get_one_answer(device: str, token: str) -> None:
    with pytest.raises(PeerError) as caught:
        converse(device, token)
    assert caught.value.args == (
        ErrorCode.AUTH_FAILED,
        "unknown device, wrong token or device disabled",
    )


@pytest.mark.parametrize(
    "name",
    ["sensor 1", "=2C", "x" * 129, "\ufdfa" * 1330, "\uff53ensor-1", "sensor\u00ad-1", "\x7f"],
)
def test_what_is_no_device_name_fails_before_anything_costly(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(scramp.core, "saslprep", prepared.append)
    with pytest.raises(PeerError) as caught:
        ScramExchange(find_keys).challenge(f"n,,n={name},r=abc".encode())
    assert caught.value.code is ErrorCode.AUTH_FAILED
    assert prepared == []


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=sensor-1",
        b"n,,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=a=b,r=abc",
        b"n,a=other,n=sensor-1,r=abc",
        b"p=tls-unique,,n=sensor-1,r=abc",
        b"n,,m=x,n=sensor-1,r=abc",
        b"\xff",
    ],
)
def test_a_malformed_first_message(first: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        ScramExchange(find_keys).challenge(first)
    assert caught.value.code is ErrorCode.BAD_FRAME


_PARTS = st.one_of(
    st.sampled_from(["n,,", "y,,", "n=", "r=", "c=biws", "p=", ",", "=", "=2C", "AAAA", "é", "\0"]),
    st.text(max_size=3),
)
_MESSAGES = st.lists(_PARTS, max_size=8).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
)


@given(_MESSAGES, _MESSAGES)
def test_no_message_raises_anything_else(first: bytes, final: bytes) -> None:
    good = b"n,,n=sensor-1,r=" + CLIENT_NONCE.encode()
    for opening in (first, good):
        exchange = ScramExchange(find_keys)
        try:
            challenge = exchange.challenge(opening)
        except PeerError:
            continue
        nonce = challenge.split(b",")[0]
        with pytest.raises(PeerError):
            exchange.verify(final if opening == first else b"c=biws,%b,p=%b" % (nonce, final))


def test_a_look_up_that_fails_is_not_the_devices_fault() -> None:
    def find(device: str) -> None:
        raise OSError("disk I/O error")

    exchange = ScramExchange(find)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="disk"):
        exchange.challenge(b"n,,n=sensor-1,r=abc")
