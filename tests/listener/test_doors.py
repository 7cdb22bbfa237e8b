"""Doors: PROXY headers in front of a protocol, and endpoints as operators write them."""

import gc
import os
import re
import socket
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor as default_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from ingest.bench.certificate import make_certificate
from ingest.listener.doors import (
    BACKLOG,
    DoorError,
    IReactorPorts,
    describe,
    listen,
    parse_door,
)
from ingest.listener.outlet import BufferedOutlet, DeviceTransport, outlet_for
from ingest.listener.proxies import ProxyDoor, ProxyDoors
from tests.listener.parts import Acknowledger, Listener, Transport, plain

reactor = cast(IReactorPorts, default_reactor)

PROXY = IPv4Address("TCP", "10.0.0.1", 40000)
DEVICE = IPv4Address("TCP", "192.0.2.7", 50123)
LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 50123 7650\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
BINARY_IPV6 = SIGNATURE + b"\x21\x21\x00\x24" + bytes(15) + b"\1" + bytes(15) + b"\2\0\1\0\2"


@implementer(IHalfCloseableProtocol)
class Behind(Protocol):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.peer: IAddress | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer = self.transport.getPeer()
        self.told.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def readConnectionLost(self) -> None:
        self.told.append("read lost")

    def writeConnectionLost(self) -> None:
        self.told.append("write lost")

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.told.append("lost")


class Inner(Factory):
    """Makes `Behind`s; nothing for the addresses in `unwanted`."""

    noisy = False

    def __init__(self) -> None:
        self.asked: list[IAddress | None] = []
        self.made: list[Behind] = []
        self.unwanted: list[IAddress] = []
        self.is_started = False

    def startFactory(self) -> None:
        self.is_started = True

    def stopFactory(self) -> None:
        self.is_started = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.asked.append(addr)
        if addr in self.unwanted:
            return None
        self.made.append(Behind())
        return self.made[-1]


class Doorway:
    """Proxied doors over transports without sockets, and what they log."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.inner = Inner()
        self.doors = ProxyDoors(
            self.inner,
            self.clock,
            timeout=10.0,
            room=self._room,
            changed=self._count,
            refused=lambda host, reason: self.refused.append(f"{host}: {reason}"),
        )
        self.refused: list[str] = []
        self.counted: list[int] = []

    def _room(self) -> int:
        return 3 - len(self.doors)

    def _count(self) -> None:
        self.counted.append(len(self.doors))

    def connect(self, *data: bytes) -> tuple[ProxyDoor, Transport]:
        """Let a proxy connect, and send."""
        door, transport = self.doors.buildProtocol(PROXY), Transport(peerAddress=PROXY)
        assert isinstance(door, ProxyDoor)
        door.makeConnection(transport)
        for piece in data:
            door.dataReceived(piece)
        return door, transport

    def behind(self, *data: bytes) -> tuple[Behind, ProxyDoor, Transport]:
        """Let a proxy connect and send a header; return what is behind the door then."""
        door, transport = self.connect(*data)
        return self.inner.made[-1], door, transport


@pytest.fixture
def doorway() -> Iterator[Doorway]:
    doorway = Doorway()
    yield doorway
    assert not doorway.clock.getDelayedCalls() or len(doorway.doors)


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (LINE, DEVICE),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", IPv6Address("TCP", "2001:db8::7", 1)),
        (b"PROXY UNKNOWN\r\n", PROXY),
        (LOCAL, PROXY),
        (BINARY_IPV6, IPv6Address("TCP", "::1", 1)),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_peer_is_known_from_the_first_moment(
    doorway: Doorway, header: bytes, peer: IAddress, size: int
) -> None:
    stream = header + b"hello"
    behind, door, _ = doorway.behind(
        *(stream[at : at + size] for at in range(0, len(stream), size))
    )
    assert doorway.inner.asked == [peer]
    assert behind.peer == door.getPeer() == peer
    assert behind.told[0] == "made"
    assert b"".join(behind.told[1:]) == b"hello"
    assert (len(doorway.doors), doorway.refused) == (0, [])


def test_nothing_is_made_before_the_header_is_whole(doorway: Doorway) -> None:
    door, _ = doorway.connect(LINE[:-1])
    assert (doorway.inner.asked, len(doorway.doors)) == ([], 1)
    door.dataReceived(LINE[-1:])
    assert doorway.inner.made[0].told == ["made"]
    assert len(doorway.doors) == 0


def test_where_they_connected_to(doorway: Doorway) -> None:
    _, door, _ = doorway.behind(LINE)
    assert door.getHost() == IPv4Address("TCP", "192.0.2.1", 7650)
    _, door, transport = doorway.behind(LOCAL)
    assert door.getHost() == transport.getHost()


def test_a_bad_header(doorway: Doorway) -> None:
    door, transport = doorway.connect(b"PROXY TCP4 192.0.2.7 192.0.2.1 x 7650\r\nhello")
    assert transport.disconnected or transport.disconnecting
    assert doorway.refused == ["10.0.0.1: a port is not a number from 0 to 65535"]
    door.dataReceived(LINE)  # which TLS may still have
    door.readConnectionLost()
    door.connectionLost(Failure(ConnectionDone()))
    assert (doorway.inner.asked, len(doorway.doors), len(doorway.refused)) == ([], 0, 1)


def test_no_header_in_time(doorway: Doorway) -> None:
    door, transport = doorway.connect(LINE[:20])
    doorway.clock.advance(9.9)
    assert not transport.disconnecting
    doorway.clock.advance(0.2)
    assert transport.disconnecting
    assert doorway.refused == ["10.0.0.1: none came in 10 s"]
    assert len(doorway.doors) == 1  # its descriptor is not given back yet
    door.connectionLost(Failure(ConnectionDone()))
    assert (len(doorway.doors), len(doorway.refused)) == (0, 1)


def test_a_header_in_time_stops_the_clock(doorway: Doorway) -> None:
    behind, _, transport = doorway.behind(LINE)
    assert not doorway.clock.getDelayedCalls()
    doorway.clock.advance(100)
    assert (behind.told, transport.disconnecting) == (["made"], False)


def test_another_timeout_counts_for_later_connections(doorway: Doorway) -> None:
    doorway.doors.timeout = 1.0
    _, transport = doorway.connect()
    doorway.clock.advance(1.1)
    assert transport.disconnecting


def test_more_may_not_wait(doorway: Doorway) -> None:
    waiting = [doorway.connect() for _ in range(3)]
    assert len(doorway.doors) == 3
    _, transport = doorway.connect()
    assert transport.disconnecting
    assert doorway.refused == ["10.0.0.1: 3 wait for their header already"]
    assert doorway.counted == [1, 2, 3]
    waiting[0][0].dataReceived(LINE)
    _, transport = doorway.connect()
    assert not transport.disconnecting
    assert len(doorway.doors) == 3


def test_a_health_check_that_says_nothing(doorway: Doorway) -> None:
    door, transport = doorway.connect()
    door.readConnectionLost()
    assert transport.disconnecting
    door.connectionLost(Failure(ConnectionDone()))
    assert (len(doorway.doors), doorway.refused) == (0, [])


def test_a_connection_that_ends_within_its_header(doorway: Doorway) -> None:
    door, transport = doorway.connect(LINE[:20])
    door.readConnectionLost()
    assert transport.disconnecting
    door.connectionLost(Failure(ConnectionDone()))
    assert doorway.refused == ["10.0.0.1: the connection ended within it"]
    assert (len(doorway.doors), len(doorway.refused)) == (0, 1)


class Broken(Exception):  # noqa: N818 - it is no error of anything
    """What is injected."""


@pytest.mark.parametrize("data", [b"nonsense\r\n", LINE[:20]])
def test_whoever_is_told_of_a_refusal_may_fail(doorway: Doorway, data: bytes) -> None:
    def fail(host: str, reason: str) -> None:
        raise Broken

    doorway.doors.refused = fail
    door, transport = doorway.connect()
    with suppress(Broken):
        door.dataReceived(data)
        doorway.clock.advance(10.1)
    assert transport.disconnecting
    door.connectionLost(Failure(ConnectionDone()))
    lost, _ = doorway.connect(LINE[:20])
    with suppress(Broken):
        lost.connectionLost(Failure(ConnectionDone()))
    assert len(doorway.doors) == 0


def test_half_close_is_passed_on(doorway: Doorway) -> None:
    behind, door, transport = doorway.behind(LINE)
    assert IHalfCloseableProtocol.providedBy(door)
    door.readConnectionLost()
    door.writeConnectionLost()
    door.connectionLost(Failure(ConnectionDone()))
    assert behind.told == ["made", "read lost", "write lost", "lost"]
    assert not transport.disconnecting


def test_a_protocol_that_knows_no_half_close_is_closed(doorway: Doorway) -> None:
    class Simple(Protocol):
        pass

    doorway.inner.buildProtocol = lambda addr: Simple()  # type: ignore[method-assign]
    door, transport = doorway.connect(LINE)
    door.readConnectionLost()
    door.writeConnectionLost()
    assert transport.disconnecting


def test_a_factory_that_wants_no_protocol(doorway: Doorway) -> None:
    doorway.inner.unwanted = [DEVICE]
    _, transport = doorway.connect(LINE + b"hello")
    assert transport.disconnecting
    assert (len(doorway.doors), doorway.refused) == (0, [])


def test_it_is_the_transport_of_what_is_behind(doorway: Doorway) -> None:
    _, door, transport = doorway.behind(LINE)
    outlet = outlet_for(cast(DeviceTransport, door), Acknowledger())
    assert isinstance(outlet, BufferedOutlet)
    assert transport.producer is outlet
    outlet.send(b"OK\n")
    assert transport.read() == b"OK\n"
    door.pauseProducing()
    assert transport.is_paused
    door.resumeProducing()
    assert not transport.is_paused
    outlet.finish()
    assert transport.producer is None and transport.is_closed
    door.abortConnection()
    assert transport.disconnecting


def test_it_is_tls_where_it_stands_on_tls(doorway: Doorway) -> None:
    door, transport = doorway.doors.buildProtocol(PROXY), Transport(peerAddress=PROXY)
    assert door is not None
    alsoProvides(transport, ISSLTransport)
    door.makeConnection(transport)
    assert ISSLTransport.providedBy(door)
    assert IHalfCloseableProtocol.providedBy(door)


def test_a_header_in_front_of_tls_is_said(doorway: Doorway) -> None:
    """HAProxy sends it so; TLS finds no greeting there, and ends the connection."""
    door, _ = doorway.connect()
    door.connectionLost(Failure(SSL.Error([("SSL routines", "", "wrong version number")])))
    (refused,) = doorway.refused
    assert refused.startswith(f"{PROXY.host}: no TLS came; at haproxy:ssl: the header is within")


def test_who_waits_is_cut_when_the_last_port_closes(doorway: Doorway) -> None:
    doorway.doors.doStart()
    assert doorway.inner.is_started
    behind, _, open_transport = doorway.behind(LINE)
    door, waiting_transport = doorway.connect(LINE[:5])
    doorway.doors.doStop()
    assert not doorway.inner.is_started
    assert waiting_transport.disconnecting
    assert (behind.told, open_transport.disconnecting) == (["made"], False)
    door.connectionLost(Failure(ConnectionDone()))
    assert (len(doorway.doors), doorway.refused) == (0, [])


def test_a_device_behind_it(parts: Listener) -> None:
    doors = ProxyDoors(
        parts.factory,
        parts.clock,
        timeout=10.0,
        room=lambda: 10,
        changed=lambda: None,
        refused=lambda host, reason: None,
    )
    parts.add("a")
    for host, answer in ((b"192.0.2.7", b"ERR plaintext-refused "), (b"127.0.0.1", b"OK ")):
        door, transport = doors.buildProtocol(PROXY), Transport(peerAddress=PROXY)
        assert door is not None
        door.makeConnection(transport)
        door.dataReceived(b"PROXY TCP4 %b 192.0.2.1 50123 7650\r\n" % host + plain("a"))
        parts.clock.advance(0)
        if answer == b"OK ":
            parts.turns.run_one()
        assert transport.read().startswith(answer)


# Endpoints.


@pytest.fixture
def opened() -> Iterator[list[IListeningPort]]:
    """Ports that a test opens."""
    ports: list[IListeningPort] = []
    yield ports
    for port in ports:
        port.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]


def refusal(text: str) -> str:
    """Try to listen, in vain; return the reason that is given."""
    with warnings.catch_warnings():
        # Twisted does not close the socket that it could not bind.
        warnings.simplefilter("ignore", ResourceWarning)
        message = why_not(text)
        gc.collect()
    assert message.startswith(f"--listen {text}: ")
    return message.removeprefix(f"--listen {text}: ")


def why_not(text: str) -> str:
    with pytest.raises(DoorError) as raised:
        listen(parse_door(text, reactor), Inner())
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("7650", "tcp:7650"),
        (":7650", "tcp:7650"),
        ("*:7650", "tcp:7650"),
        ("127.0.0.1:7650", "tcp:7650:interface=127.0.0.1"),
        ("localhost:7650", "tcp:7650:interface=127.0.0.1"),
        ("tcp:127.0.0.1:7650", "tcp:7650:interface=127.0.0.1"),
        ("tcp://127.0.0.1:7650", "tcp:7650:interface=127.0.0.1"),
        ("[::1]:7650", r"tcp6:7650:interface=\:\:1"),
        ("tcp:7650:interface=::1", r"tcp6:7650:interface=\:\:1"),
        ("tpc:7650", "tcp:7650"),
        ("TCP:7650", "tcp:7650"),
        ("uinx:/run/ingest", "unix:/run/ingest"),
        ("/run/ingest", "unix:/run/ingest"),
        ("haproxy:7650", "haproxy:tcp:7650"),
        ("haproxy:0.0.0.0:7650", "haproxy:tcp:7650:interface=0.0.0.0"),
    ],
)
def test_did_you_mean(text: str, meant: str) -> None:
    assert refusal(text) == f"no such endpoint; did you mean {meant}?"
    assert parse_door(meant, reactor).text == meant


@pytest.mark.parametrize("text", ["tls:7651", "tls:/nowhere:port=7651", "tls:", "haproxy:tls:7651"])
def test_tls_without_a_folder_of_certificates(text: str) -> None:
    """It would listen on port 443, and let nobody in."""
    assert "the form is ssl:7651:privateKey=key.pem:certKey=cert.pem" in refusal(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no kind ''", "tcp, tcp6, ssl, unix, systemd, haproxy"]),
        ("pigeon:7650", ["no kind 'pigeon'", "tcp, tcp6"]),
        ("99999", ["no kind '99999'"]),
        ("tcp", ["port is missing", "tcp:7650"]),
        ("tcp:nowhere", ["'nowhere' is not a number", "tcp:7650"]),
        ("tcp:70000", ["the port must be 0-65535"]),
        ("tcp:7650:host=0.0.0.0", ["takes no host", "interface="]),
        ("tcp:7650\\", ["backslash", "tcp:7650"]),
        ("haproxy", ["the form is haproxy:tcp:7650"]),
        ("haproxy:haproxy:tcp:7650", ["the form is haproxy:tcp:7650"]),
        ("haproxy:tcp:x", ["'x' is not a number", "the form is haproxy:tcp:7650"]),
        ("systemd:domain=INET:index=0", ["LISTEN_FDS", "LISTEN_FDNAMES", "FileDescriptorName="]),
        ("systemd:domain=INET:name=ingest", ["LISTEN_FDNAMES"]),
        ("systemd:name=ingest", ["domain is missing", "systemd:domain=INET6:name=ingest"]),
        ("unix", ["address is missing", "unix:/run"]),
        ("unix:", ["address is missing", "unix:/run"]),
        ("unix:/nowhere/socket", ["No such file"]),
        ("unix:/", ["in use", "no socket"]),
        ("ssl:7651", ["server.pem: No such file", "privateKey=key.pem:certKey=cert.pem"]),
        ("ssl:7651:privateKey=/nowhere.pem", ["/nowhere.pem: No such file"]),
        ("ssl:7651:key=key.pem", ["takes no key", "privateKey=key.pem:certKey=cert.pem"]),
    ],
)
def test_what_is_wrong(text: str, words: list[str]) -> None:
    message = refusal(text)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_text("nonsense")
    certificate.write_text("nonsense")
    message = refusal(f"ssl:0:privateKey={key}:certKey={certificate}")
    assert str(key) in message and str(certificate) in message and "PEM" in message


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted does
def test_a_key_of_another_certificate(tmp_path: Path, opened: list[IListeningPort]) -> None:
    one, other = tmp_path / "one.pem", tmp_path / "other.pem"
    make_certificate(one)
    make_certificate(other)
    text = "ssl:0:interface=127.0.0.1:privateKey={}:certKey={}"
    opened.append(listen(parse_door(text.format(one, one), reactor), Inner()))
    # Each file holds both. What counts is a file's last certificate, so let it have only one part.
    one.write_bytes(re.sub(rb"(?s)-----BEGIN CERT.*?-----END CERT.*?\n", b"", one.read_bytes()))
    other.write_bytes(re.sub(rb"(?s)-----BEGIN PRIV.*?-----END PRIV.*?\n", b"", other.read_bytes()))
    assert "keys do not match" in refusal(text.format(one, other))


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted does
def test_a_certificate_that_openssl_refuses(tmp_path: Path) -> None:
    """Twisted would listen, and fail at each connection."""
    path = tmp_path / "weak.pem"
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now, now + timedelta(hours=1)
    ).sign(key, SHA256())
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    message = refusal(f"ssl:0:interface=127.0.0.1:privateKey={path}")
    assert message == "OpenSSL refuses the certificate: ee key too small"


def test_a_proxied_door() -> None:
    door = parse_door("haproxy:tcp:0:interface=127.0.0.1", reactor)
    assert (door.is_proxied, parse_door("HAProxy:tcp:0", reactor).is_proxied) == (True, True)
    assert not parse_door("tcp:0", reactor).is_proxied


def test_the_queue_is_long_enough_for_a_fleet(opened: list[IListeningPort]) -> None:
    port = listen(parse_door("tcp:0:interface=127.0.0.1:backlog=1", reactor), Inner())
    opened.append(port)
    held: socket.socket = port.socket  # type: ignore[attr-defined]
    tcp_info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    (queue,) = struct.unpack_from("=28xI", tcp_info)  # of a listening socket, tcpi_sacked
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert queue == min(BACKLOG, most)


def test_how_a_port_is_described(tmp_path: Path, opened: list[IListeningPort]) -> None:
    texts = ("tcp:0:interface=127.0.0.1", r"tcp6:0:interface=\:\:1", f"unix:{tmp_path}/socket")
    opened += [listen(parse_door(text, reactor), Inner()) for text in texts]
    ports = [cast(IPv4Address, port.getHost()).port for port in opened[:2]]
    assert [describe(port) for port in opened] == [
        f"127.0.0.1:{ports[0]}",
        f"[::1]:{ports[1]}",
        f"{tmp_path}/socket",
    ]


def leave_socket(path: Path) -> None:
    """Leave a socket behind, as a killed process does."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()


@pytest.mark.parametrize("kind", ["unix", "haproxy:unix"])
def test_a_unix_socket_that_a_killed_process_left(
    tmp_path: Path, opened: list[IListeningPort], kind: str
) -> None:
    path = tmp_path / "socket"
    leave_socket(path)
    (tmp_path / "socket.lock").symlink_to(str(os.getpid()))
    opened.append(listen(parse_door(f"{kind}:{path}:mode=640", reactor), Inner()))
    assert path.stat().st_mode & 0o777 == 0o640
    with socket.socket(socket.AF_UNIX) as device:
        device.connect(str(path))


def test_a_unix_socket_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        before = path.stat().st_ino
        assert refusal(f"unix:{path}") == "Address already in use"
        # Now its queue is full; it accepts nothing, and yet it is there.
        assert refusal(f"unix:{path}") == "Address already in use"
        assert path.stat().st_ino == before


def test_what_is_no_stream_socket_stays(tmp_path: Path) -> None:
    file, link, datagram = tmp_path / "file", tmp_path / "link", tmp_path / "datagram"
    file.write_text("precious")
    leave_socket(tmp_path / "socket")
    link.symlink_to(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(datagram))
        for path in (file, link, datagram):
            assert "in use" in refusal(f"unix:{path}")
    assert file.read_text() == "precious"
    assert link.is_symlink() and datagram.exists()


def test_a_unix_door_leaves_nothing(tmp_path: Path) -> None:
    port = listen(parse_door(f"unix:{tmp_path}/socket", reactor), Inner())
    assert [path.name for path in tmp_path.iterdir()] == ["socket"]
    port.connectionLost(Failure(ConnectionDone()))  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
