"""The PROXY protocol: a proxy's word on whose connection it passes on, in front of all else.

Both versions of HAProxy's specification (doc/proxy-protocol.txt) are read: version 1, one line of
text, and version 2, which is binary. What is wrong ends the connection; a proxy gets no answer.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple, TypeAlias

_V1_BEGIN = b"PROXY "
_V1_LONGEST = 107
"""Bytes of version 1 at most, its CR LF with them; section 2.1 counts them."""

_V2_BEGIN = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD = struct.Struct("!12sBBH")  # the beginning, version and command, family, length
_V2_LONGEST = 4096
"""Bytes that may follow the head of version 2. The length field allows 65,535, which everybody who
connects could make us hold. Addresses take at most 216; the rest are optional fields, of which a
client certificate, 1 to 2 kB, is the longest that proxies send."""

_V2_LOCAL, _V2_PROXY = 0x20, 0x21  # version 2 in the upper half
_STREAM, _DATAGRAM = 1, 2
_ADDRESSES = {
    1: struct.Struct("!4s4sHH"),
    2: struct.Struct("!16s16sHH"),
    3: struct.Struct("!108s108s"),
}
"""The address block of version 2 by family: IPv4, IPv6, Unix. Family 0 is "unspecified"."""
_UNSPECIFIED = 0

_TYPE_SSL, _SUBTYPE_SSL_CN = 0x20, 0x22
_SSL_HEAD = struct.Struct("!BI")  # what is true of the client, and the result of its check
_SSL_USED, _SSL_CERTIFICATE = 0x01, 0x02 | 0x04  # of this connection, or of its TLS session
_FIELD_HEAD = struct.Struct("!BH")  # type and length

IPAddress: TypeAlias = IPv4Address | IPv6Address


class ProxyError(Exception):
    """The bytes are no PROXY header; the text says why, and repeats none of them."""


class Endpoint(NamedTuple):
    """One end of the connection that the proxy took."""

    host: str
    """An IPv4 or IPv6 address, spelled as a socket spells it."""
    port: int

    @property
    def version(self) -> int:
        """The version of IP: 4 or 6."""
        return 6 if ":" in self.host else 4


@dataclass(frozen=True)
class ProxyHeader:
    """What a proxy says.

    Attributes:
        source: who connected to the proxy. None if the proxy speaks for itself, as its health
            checks do, or knows no address: then the peer is the proxy.
        destination: where they connected to; None as above.
        tls: whether they used TLS.
        certificate_name: the common name of their certificate, if they had one and the proxy found
            it good; else empty.
    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
    tls: bool = False
    certificate_name: str = ""


class ProxyParser:
    """Reads one header, in whatever pieces it comes.

    Attributes:
        rest: what came behind the header, once it is complete.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.rest = b""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self._buffer

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Go on with what one read brought.

        Args:
            data: the next bytes. Once the header is complete, there is nothing more to feed.

        Returns:
            The header when it is complete, with what followed it in `rest`; until then None.

        Raises:
            ProxyError: this is no header; the connection is of no use.
        """
        self._buffer += data
        found = _read(self._buffer)
        if found is None:
            return None
        header, end = found
        self.rest, self._buffer = self._buffer[end:], b""
        return header


_Found: TypeAlias = tuple[ProxyHeader, int] | None
"""The header and where it ends, or None if more bytes are wanted."""


def _read(data: bytes) -> _Found:
    if _V2_BEGIN.startswith(data[: len(_V2_BEGIN)]):
        return _read_v2(data)
    if _V1_BEGIN.startswith(data[: len(_V1_BEGIN)]):
        return _read_v1(data)
    raise ProxyError("it does not begin as a PROXY header does")


def _read_v1(data: bytes) -> _Found:
    end = data.find(b"\r\n", 0, _V1_LONGEST)
    if end >= 0:
        return _parse_line(data[:end]), end + 2
    if len(data) >= _V1_LONGEST:
        raise ProxyError(f"a line of more than {_V1_LONGEST} bytes")
    return None


def _parse_line(line: bytes) -> ProxyHeader:
    """Parse `PROXY TCP4 192.0.2.7 192.0.2.1 50123 7650`, or `PROXY UNKNOWN` and anything."""
    fields = line.split(b" ")
    if fields[1] == b"UNKNOWN":
        return ProxyHeader()
    if fields[1] not in (b"TCP4", b"TCP6"):
        raise ProxyError("neither TCP4, TCP6 nor UNKNOWN")
    if len(fields) != 6:
        raise ProxyError("not two addresses and two ports")
    address = _parse_ipv4 if fields[1] == b"TCP4" else _parse_ipv6
    hosts = [_host(address(field)) for field in fields[2:4]]
    ports = [_parse_port(field) for field in fields[4:]]
    source, destination = map(Endpoint, hosts, ports)
    return ProxyHeader(source, destination)


def _parse_ipv4(field: bytes) -> IPAddress:
    try:
        return IPv4Address(field.decode("ascii"))
    except ValueError:
        raise ProxyError("an address is not IPv4") from None


def _parse_ipv6(field: bytes) -> IPAddress:
    try:
        address = IPv6Address(field.decode("ascii"))
    except ValueError:
        raise ProxyError("an address is not IPv6") from None
    if address.scope_id is not None:  # any text behind a percent sign; the specification has none
        raise ProxyError("an address is not IPv6")
    return address


def _parse_port(field: bytes) -> int:
    # `int` alone takes signs, blanks and underscores too.
    is_plain = field.isdigit() and len(field) <= 5 and (field == b"0" or field[:1] != b"0")
    if not is_plain or int(field) > 65535:
        raise ProxyError("a port is not a number from 0 to 65535")
    return int(field)


def _host(address: IPAddress) -> str:
    # Each Python spells `::ffff:192.0.2.1` in its own way, a socket in one.
    return inet_ntop(AF_INET if address.version == 4 else AF_INET6, address.packed)


def _read_v2(data: bytes) -> _Found:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyError("neither a version nor a command of the PROXY protocol")
    if length > _V2_LONGEST:
        raise ProxyError(f"a header of more than {_V2_LONGEST} bytes")
    end = _V2_HEAD.size + length
    if len(data) < end:
        return None
    if command == _V2_LOCAL:  # whatever else it says is to be ignored
        return ProxyHeader(), end
    return _parse_block(family, data[_V2_HEAD.size : end]), end


def _parse_block(code: int, block: bytes) -> ProxyHeader:
    """Parse what follows the head: addresses as the family has them, then optional fields."""
    family, transport = code >> 4, code & 0x0F
    if transport > _DATAGRAM or (family != _UNSPECIFIED and family not in _ADDRESSES):
        raise ProxyError("no family of addresses that the PROXY protocol has")
    if family == _UNSPECIFIED:
        return ProxyHeader()
    layout = _ADDRESSES[family]
    if len(block) < layout.size:
        raise ProxyError("a header too short for its addresses")
    tls, name = _parse_client(block[layout.size :])
    source = destination = None
    if transport == _STREAM and family in (1, 2):
        # The paths of a Unix socket are the proxy's own and mean nothing here.
        source, destination = _parse_addresses(layout.unpack_from(block), family)
    return ProxyHeader(source, destination, tls, name)


def _parse_addresses(
    fields: tuple[bytes, bytes, int, int], family: int
) -> tuple[Endpoint, Endpoint]:
    kind = AF_INET if family == 1 else AF_INET6
    source, destination, source_port, destination_port = fields
    return (
        Endpoint(inet_ntop(kind, source), source_port),
        Endpoint(inet_ntop(kind, destination), destination_port),
    )


def _parse_client(data: bytes) -> tuple[bool, str]:
    """Return whether the client used TLS, and the name that its certificate proves."""
    value = dict(_fields(data)).get(_TYPE_SSL)
    if value is None:
        return False, ""
    if len(value) < _SSL_HEAD.size:
        raise ProxyError("an optional field that is cut short")
    client, failure = _SSL_HEAD.unpack_from(value)
    name = dict(_fields(value[_SSL_HEAD.size :])).get(_SUBTYPE_SSL_CN, b"")
    is_proved = client & _SSL_CERTIFICATE and failure == 0
    return bool(client & _SSL_USED), _parse_name(name) if is_proved else ""


def _parse_name(name: bytes) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise ProxyError("the name in a certificate is not UTF-8") from None
    if not text.isprintable():
        raise ProxyError("the name in a certificate has control characters")
    return text


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each optional field ("TLV", section 2.2)."""
    at = 0
    while at < len(data):
        begin = at + _FIELD_HEAD.size
        if begin > len(data):
            raise ProxyError("an optional field that is cut short")
        kind, size = _FIELD_HEAD.unpack_from(data, at)
        at = begin + size
        if at > len(data):
            raise ProxyError("an optional field that is cut short")
        yield kind, data[begin:at]
