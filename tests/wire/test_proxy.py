"""PROXY headers: whole, byte by byte, cut anywhere, with what follows, and damaged."""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.proxy import Endpoint, ProxyError, ProxyHeader, ProxyParser
from tests.wire.streams import bytewise, cut, cuts

BEGIN = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4 = b"\xc0\x00\x02\x07\xc0\x00\x02\x01\xc3\xcb\x1d\xe2"
DEVICE, LISTENER = Endpoint("192.0.2.7", 50123), Endpoint("192.0.2.1", 7650)
NOBODY = ProxyHeader()


def v2(command: int, family: int, block: bytes = b"") -> bytes:
    return BEGIN + struct.pack("!BBH", command, family, len(block)) + block


def field(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def with_tls(client: int, failure: int, name: bytes) -> bytes:
    parts = field(0x21, b"TLSv1.3") + field(0x22, name) + field(0x23, b"ECDHE")
    return field(0x01, b"h2") + field(0x20, struct.pack("!BI", client, failure) + parts)


def parse(*pieces: bytes) -> tuple[ProxyHeader | None, bytes]:
    """Feed the pieces up to the header's end; return it and all that follows."""
    parser = ProxyParser()
    for i, piece in enumerate(pieces):
        header = parser.feed(piece)
        if header is not None:
            return header, parser.rest + b"".join(pieces[i + 1 :])
        assert not parser.rest
    return None, b""


def check(stream: bytes, header: ProxyHeader) -> None:
    """Check the header of `stream`: whole, byte by byte, cut short, and with what follows."""
    for follows in (b"", b"AUTH PLAIN AAAA\n", b"PROXY UNKNOWN\r\n", BEGIN):
        assert parse(stream + follows) == (header, follows)
        assert parse(*bytewise(stream + follows)) == (header, follows)
    assert parse(stream[:-1]) == (None, b"")


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (b"TCP4 192.0.2.7 192.0.2.1 50123 7650", DEVICE, LISTENER),
        (b"TCP4 0.0.0.0 255.255.255.255 0 65535", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
        (b"TCP6 2001:db8::7 ::1 50123 7650", ("2001:db8::7", 50123), ("::1", 7650)),
        (b"TCP6 2001:DB8:0:0::7 ::1 1 2", ("2001:db8::7", 1), ("::1", 2)),
        (b"TCP6 ::ffff:192.0.2.7 ::FFFF:c000:201 1 2", ("::ffff:192.0.2.7", 1),
         ("::ffff:192.0.2.1", 2)),
    ],
)  # fmt: skip
def test_a_line(line: bytes, source: Endpoint, destination: Endpoint) -> None:
    check(b"PROXY " + line + b"\r\n", ProxyHeader(source, destination))


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::ffff ffff::ffff 65535 65535\r\n",
        b"PROXY UNKNOWN what\x1bever\n\r it says\xff\r\n",
        b"PROXY UNKNOWN" + b" " * 92 + b"\r\n",
    ],
)
def test_a_line_without_addresses(line: bytes) -> None:
    assert len(line) <= 107
    check(line, NOBODY)


@pytest.mark.parametrize(
    ("stream", "header"),
    [
        (v2(0x21, 0x11, TCP4), ProxyHeader(DEVICE, LISTENER)),
        (
            v2(0x21, 0x21, IPv6Address("2001:db8::7").packed + bytes(15) + b"\1\0\1\0\2"),
            ProxyHeader(Endpoint("2001:db8::7", 1), Endpoint("::1", 2)),
        ),
        (v2(0x20, 0x00), NOBODY),
        (v2(0x20, 0xFF, b"ignored"), NOBODY),
        (v2(0x21, 0x00), NOBODY),
        (v2(0x21, 0x00, b"ignored"), NOBODY),
        (v2(0x21, 0x10, TCP4), NOBODY),
        (v2(0x21, 0x12, TCP4), NOBODY),
        (v2(0x21, 0x31, b"/run/socket".ljust(108, b"\0") * 2), NOBODY),
        (v2(0x21, 0x11, TCP4 + field(0x04, b"")), ProxyHeader(DEVICE, LISTENER)),
        (v2(0x21, 0x11, TCP4 + field(0x04, bytes(4096 - 15))), ProxyHeader(DEVICE, LISTENER)),
    ],
)  # fmt: skip
def test_binary(stream: bytes, header: ProxyHeader) -> None:
    check(stream, header)


@pytest.mark.parametrize(
    ("client", "failure", "name", "tls", "proved"),
    [
        (0x07, 0, b"sensor-1", True, "sensor-1"),
        (0x05, 0, "Fühler".encode(), True, "Fühler"),
        (0x01, 0, b"sensor-1", True, ""),  # no certificate
        (0x07, 1, b"sensor-1", True, ""),  # one that the proxy could not verify
        (0x01, 1, b"\xff", True, ""),
        (0x00, 1, b"", False, ""),
    ],
)
def test_tls_and_the_certificate(
    client: int, failure: int, name: bytes, tls: bool, proved: str
) -> None:
    block = TCP4 + with_tls(client, failure, name)
    check(v2(0x21, 0x11, block), ProxyHeader(DEVICE, LISTENER, tls, proved))


@pytest.mark.parametrize(
    "stream",
    [
        b"AUTH PLAIN AAAA\n",
        b"\n",
        b"\xa1a",
        b"proxy UNKNOWN\r\n",
        b"PROXY\tUNKNOWN\r\n",
        b"PROXY \r\n",
        b"PROXY  UNKNOWN\r\n",
        b"PROXY UNKNOWN" + b" " * 93 + b"\r\n",
        b"PROXY UNKNOWN" + b"\n" * 200,
        b"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
        b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 localhost 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.\xd9\xa7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\x1b[2J 192.0.2.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%\x1b[2J ::1 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 ::1\x00 ::1 1 2\r\n",
        b"PROXY TCP6 ::1\n ::1 1 2\r\n",
        *(
            b"PROXY TCP4 192.0.2.7 192.0.2.1 " + ports + b"\r\n"
            for ports in (
                b"1 65536", b"65536 1", b"-1 1", b"+1 1", b"1_0 1", b"01 1", b"1 00", b"x 1", b"1 ",
                b" 1", b"1\t 1", b"1.0 1", b"\xd9\xa1 1", b"1 " + b"9" * 40, b"\xb2 1",
            )
        ),
        BEGIN + b"\x11\x11\x00\x0c" + TCP4,
        BEGIN + b"\x22\x11\x00\x0c" + TCP4,
        BEGIN + b"\x21\x11\xff\xff",
        BEGIN + b"\x20\x00\x10\x01",
        v2(0x21, 0x41, TCP4),
        v2(0x21, 0x13, TCP4),
        v2(0x21, 0x11, TCP4[:-1]),
        v2(0x21, 0x11),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, TCP4 + b"\x04"),
        v2(0x21, 0x11, TCP4 + b"\x04\x00\x01"),
        v2(0x21, 0x11, TCP4 + field(0x20, b"\x01\x00\x00\x00")),
        v2(0x21, 0x11, TCP4 + field(0x20, b"\x01\x00\x00\x00\x00\x22")),
        v2(0x21, 0x11, TCP4 + with_tls(0x07, 0, b"\xff")),
        v2(0x21, 0x11, TCP4 + with_tls(0x07, 0, b"\x1b[2J")),
    ],
)  # fmt: skip
def test_what_is_none(stream: bytes) -> None:
    for pieces in ([stream], bytewise(stream), [stream + b"AUTH PLAIN AAAA\n"]):
        with pytest.raises(ProxyError) as raised:
            parse(*pieces)
        text = str(raised.value)
        assert text and text.isascii() and text.isprintable()


def test_the_bound_holds_before_all_has_come() -> None:
    with pytest.raises(ProxyError):
        parse(b"PROXY UNKNOWN" + b" " * 94)
    with pytest.raises(ProxyError):
        parse(BEGIN + b"\x21\x11\x10\x01")


def test_nothing_is_no_beginning() -> None:
    parser = ProxyParser()
    assert parser.feed(b"") is None
    assert parser.is_empty
    assert parser.feed(b"P") is None
    assert not parser.is_empty


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    """A header of either version, and what it says."""
    version: Literal[4, 6] = draw(st.sampled_from([4, 6]))
    addresses = draw(st.lists(st.ip_addresses(v=version), min_size=2, max_size=2))
    ports = draw(st.lists(st.integers(0, 65535), min_size=2, max_size=2))
    if draw(st.booleans()):
        words = [f"PROXY TCP{version}", *map(str, [*addresses, *ports])]
        stream = " ".join(words).encode() + b"\r\n"
    else:
        packed = b"".join(address.packed for address in addresses)
        fields = draw(st.lists(st.tuples(st.integers(0xE0, 0xEF), st.binary(max_size=20))))
        block = packed + struct.pack("!HH", *ports) + b"".join(field(*each) for each in fields)
        stream = v2(0x21, 0x11 if version == 4 else 0x21, block)
    source, destination = (
        Endpoint(str(address), port) for address, port in zip(addresses, ports, strict=True)
    )
    return stream, ProxyHeader(source, destination)


def same(one: Endpoint | None, other: Endpoint | None) -> bool:
    """Compare the addresses, which Pythons spell in several ways."""
    assert one is not None and other is not None
    kind = IPv4Address if other.version == 4 else IPv6Address
    return (kind(one.host), one.port) == (kind(other.host), other.port)


@given(headers(), cuts, st.binary(max_size=50))
def test_cut_anywhere(case: tuple[bytes, ProxyHeader], places: list[int], follows: bytes) -> None:
    stream, expected = case
    header, rest = parse(*cut(stream + follows, places))
    assert header is not None
    assert same(header.source, expected.source) and same(header.destination, expected.destination)
    assert rest == follows


@given(
    headers(),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    cuts,
)
def test_damaged(
    case: tuple[bytes, ProxyHeader], damage: list[tuple[int, int]], places: list[int]
) -> None:
    """Whole or in pieces it is the same: some header, more wanted, or the parser's own error."""
    stream = bytearray(case[0])
    for place, value in damage:
        stream[place % len(stream)] = value
    outcomes = []
    for pieces in ([bytes(stream)], bytewise(bytes(stream)), cut(bytes(stream), places)):
        try:
            outcomes.append(parse(*pieces))
        except ProxyError:
            outcomes.append((None, b"refused"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    header = outcomes[0][0]
    if header is not None and header.source is not None:
        assert set(header.source.host) <= set("0123456789abcdef.:")


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", BEGIN, BEGIN[:5]]))
def test_garbage(stream: bytes, begin: bytes) -> None:
    try:
        parse(begin + stream)
    except ProxyError as error:
        assert str(error)
