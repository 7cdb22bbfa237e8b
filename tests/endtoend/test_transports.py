"""Every endpoint that a listener may be given: several, Unix sockets, TLS, PROXY headers."""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate, make_chain
from tests.support.devices import Device, TextDevice
from tests.support.listeners import ANY_PORT, Listener
from tests.support.processes import TWISTD, run
from tests.support.waiting import wait_for

Dialect = type[Device]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for 127.0.0.1, and its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate") / "listener.pem")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate by which devices trust another, which is in a file with all between."""
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def listener(
    tmp_path_factory: pytest.TempPathFactory, certificate: Path, chain: tuple[Path, Path]
) -> Iterator[Listener]:
    """A listener at every kind of endpoint."""
    folder = tmp_path_factory.mktemp("transports")
    listen = (
        ANY_PORT,
        ANY_PORT,
        f"unix:{folder / 'socket'}",
        f"ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}",
        f"haproxy:{ANY_PORT}",
        f"haproxy:ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}",
        f"ssl:0:interface=127.0.0.1:privateKey={chain[1]}:certKey={chain[1]}",
    )
    with Listener(folder / "data", listen=listen) as listener:
        yield listener
    assert not (folder / "socket").exists()


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """A device that trusts the listener's certificate."""
    return ssl.create_default_context(cafile=certificate)


def connect_with_tls(
    dialect: Dialect, listener: Listener, tls: ssl.SSLContext, place: int = 3
) -> Device:
    device = dialect(listener.addresses[place])
    device.socket = tls.wrap_socket(device.socket, server_hostname="127.0.0.1")
    return device


def connect_as(dialect: Dialect, listener: Listener, host: str) -> Device:
    """Connect as a proxy does for a device at `host`."""
    device = dialect(listener.addresses[4])
    version = 6 if ":" in host else 4
    destination = "::1" if version == 6 else "127.0.0.1"
    device.send(f"PROXY TCP{version} {host} {destination} 40000 7650\r\n".encode())
    return device


@pytest.mark.parametrize("place", [0, 1, 2])
def test_several_endpoints(listener: Listener, name: str, dialect: Dialect, place: int) -> None:
    with dialect(listener.addresses[place]) as device:
        assert device.log_in(name) == 1
        device.push_all("a", last=1)
        device.push("b")
        device.close_side()
        assert device.replies() == [("ack", 2), ("end", None)]
    assert listener.frames(name) == ["a", "b"]


def test_a_takeover_from_one_endpoint_to_another(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as older, TextDevice(listener.addresses[2]) as newer:
        older.log_in(name)
        older.push_all("a", last=1)
        assert newer.log_in(name) == 2
        assert older.last_words() == "replaced"


def test_tls(listener: Listener, name: str, dialect: Dialect, tls: ssl.SSLContext) -> None:
    with connect_with_tls(dialect, listener, tls) as device:
        assert device.log_in(name) == 1
        device.push_all("a", last=1)
        for following in range(2, 20):
            device.push_all("x" * 20_000, last=following)
    wait_for(lambda: len(listener.lines(name)) == 19, "the frames")


def test_scram_over_tls(
    listener: Listener, name: str, dialect: Dialect, tls: ssl.SSLContext
) -> None:
    with connect_with_tls(dialect, listener, tls) as device:
        client = device.begin_scram(name)
        device.send(device.response(client.get_client_final().encode()))
        assert device.reply()[0] == "ok"
        device.push_all("a", last=1)


def test_an_error_over_tls(
    listener: Listener, name: str, dialect: Dialect, tls: ssl.SSLContext
) -> None:
    with connect_with_tls(dialect, listener, tls) as device:
        device.send(device.plain(name, "wrong"))
        assert device.last_words() == "auth-failed"


def test_the_chain_in_the_file_of_a_certificate_is_sent(
    listener: Listener, name: str, chain: tuple[Path, Path]
) -> None:
    trusting = ssl.create_default_context(cafile=chain[0])
    with TextDevice(listener.addresses[6]) as device:
        device.socket = trusting.wrap_socket(device.socket, server_hostname="localhost")
        assert device.log_in(name) == 1


def test_the_end_of_tls(listener: Listener, name: str, tls: ssl.SSLContext) -> None:
    """A close_notify is a clean close: the last line counts, and the listener answers in kind."""
    with connect_with_tls(TextDevice, listener, tls) as device:
        device.log_in(name, ack="none")
        device.send(b"a\nb\nlast")
        assert isinstance(device.socket, ssl.SSLSocket)
        device.socket = device.socket.unwrap()
    wait_for(lambda: len(listener.lines(name)) == 3, "all lines")
    assert listener.frames(name) == ["a", "b", "last"]


def test_tls_cut_without_close_notify(listener: Listener, name: str, tls: ssl.SSLContext) -> None:
    """Whoever may cut a TCP connection must not be able to shorten a frame."""
    with connect_with_tls(TextDevice, listener, tls) as device:
        device.log_in(name)
        device.push_all("a", last=1)
        device.send(b"b\nlas")
        wait_for(lambda: len(listener.lines(name)) == 2, "the whole line")
        device.socket.shutdown(socket.SHUT_RDWR)
    with TextDevice(listener.addresses[0]) as device:
        assert device.log_in(name) == 3


def test_tls_where_none_is_spoken(listener: Listener, tls: ssl.SSLContext) -> None:
    with TextDevice(listener.addresses[0]) as device, pytest.raises(ssl.SSLError):
        tls.wrap_socket(device.socket, server_hostname="127.0.0.1")


def test_text_where_tls_is_spoken(listener: Listener) -> None:
    with TextDevice(listener.addresses[3]) as device:
        device.send(b"AUTH PLAIN AAAA\n")
        assert device.socket.recv(1000)[:1] in (b"\x15", b"")  # a TLS alert, or nothing


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "10.0.0.1"])
def test_plaintext_from_another_host(
    listener: Listener, name: str, dialect: Dialect, host: str
) -> None:
    with connect_as(dialect, listener, host) as device:
        device.send(device.plain(name), device.frame("lost"))
        assert device.last_words() == "plaintext-refused"
    assert listener.frames(name) == []
    assert listener.status()["devices"][name]["refusals"] == {"plaintext-refused": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_plaintext_from_this_host(listener: Listener, name: str, host: str) -> None:
    with connect_as(TextDevice, listener, host) as device:
        assert device.log_in(name) == 1


def test_a_device_behind_a_proxy(listener: Listener, name: str, dialect: Dialect) -> None:
    with connect_as(dialect, listener, "192.0.2.1") as device:
        client = device.begin_scram(name)
        device.send(device.response(client.get_client_final().encode()))
        assert device.reply()[0] == "ok"
        device.push_all("a", last=1)
        device.push("b")
        device.close_side()
        assert device.replies() == [("ack", 2), ("end", None)]
    assert listener.frames(name) == ["a", "b"]


LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 50123 7650\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
BINARY = SIGNATURE + b"\x21\x11\x00\x0c" + b"\xc0\x00\x02\x07\xc0\x00\x02\x01\xc3\xcb\x1d\xe2"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def send_apart(device: Device, listener: Listener, *pieces: bytes) -> None:
    """Send pieces so that the listener reads one by one."""
    device.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    for piece in pieces:
        device.send(piece)
        # What the listener has before the first answer it has read before the second.
        listener.status()
        listener.status()


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["line", "binary"])
@pytest.mark.parametrize("size", [1, 5, 12, 20])
def test_a_header_in_pieces(listener: Listener, name: str, header: bytes, size: int) -> None:
    with TextDevice(listener.addresses[4]) as device:
        send_apart(
            device, listener, *(header[at : at + size] for at in range(0, len(header), size))
        )
        device.send(device.plain(name))
        assert device.last_words() == "plaintext-refused"  # the device is elsewhere
    assert listener.frames(name) == []


def test_a_header_with_all_that_follows(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[4]) as device:
        frames = b"".join(map(device.frame, ("a", "b")))
        device.send(b"PROXY TCP6 ::1 ::1 1 2\r\n" + device.plain(name) + frames)
        assert device.reply()[0] == "ok"
        device.wait_for_ack(2)
        device.close_side()
        assert device.replies() == [("end", None)]
    assert listener.frames(name) == ["a", "b"]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL], ids=["line", "binary"])
def test_a_proxy_for_itself(listener: Listener, name: str, header: bytes) -> None:
    with TextDevice(listener.addresses[4]) as device:
        device.send(header)
        assert device.log_in(name) == 1  # the peer is the proxy, on this host


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n", LOCAL])
def test_a_health_check(listener: Listener, header: bytes) -> None:
    before = listener.output
    with TextDevice(listener.addresses[4]) as device:
        device.send(header)
        device.close_side()
        assert device.reply()[0] in ("end", "reset")
    assert listener.output == before


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 x 7650\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 7650\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 7650\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 \x1b[2J 192.0.2.1 1 2\r\n",
        b"PROXY TCP6 fe80::1%\x1b[2J ::1 1 2\r\n",
        b"PROXY " + b"x" * 200,
        b"AUTH PLAIN AAAA\n",
        bytes(range(256)),
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\x00\x01x",
    ],
)
@pytest.mark.usefixtures("bystander")
def test_a_bad_header(listener: Listener, header: bytes) -> None:
    with TextDevice(listener.addresses[4]) as device:
        device.send(header)
        assert device.reply()[0] in ("end", "reset")
    assert "\x1b" not in listener.output


def test_a_thousand_bad_headers(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", listen=(f"haproxy:{ANY_PORT}",)) as listener:
        before = len(listener.output.splitlines())
        for _ in range(1000):
            with TextDevice(listener.addresses[0]) as device:
                device.send(b"GET / HTTP/1.1\r\n\r\n")
                assert device.reply()[0] in ("end", "reset")
        lines = listener.output.splitlines()[before:]
        assert len(lines) == 1, lines
        assert "no-proxy-header: no name yet at 127.0.0.1: it does not begin" in lines[0]
        assert listener.status()["errors"] == {"no-proxy-header": 1000}


def test_no_header_in_time(tmp_path: Path) -> None:
    options = ("--handshake-timeout", "300ms")
    with Listener(tmp_path / "data", *options, listen=(f"haproxy:{ANY_PORT}",)) as listener:
        for begin in (b"", LINE[:20]):
            with TextDevice(listener.addresses[0]) as device:
                device.send(begin)
                assert device.reply()[0] in ("end", "reset")
        assert "none came in 0.3 s" in listener.output


def test_a_stop_waits_for_no_header(tmp_path: Path) -> None:
    with (
        Listener(tmp_path / "data", listen=(f"haproxy:{ANY_PORT}",)) as listener,
        TextDevice(listener.addresses[0]) as device,
    ):
        send_apart(device, listener, LINE[:20])
        listener.stop()
        assert device.reply()[0] in ("end", "reset")


def test_a_proxy_that_speaks_tls(
    listener: Listener, name: str, dialect: Dialect, tls: ssl.SSLContext
) -> None:
    with connect_with_tls(dialect, listener, tls, place=5) as device:
        device.send(LINE, device.plain(name))  # which TLS keeps secret
        assert device.reply()[0] == "ok"
        device.push_all("a", last=1)
    with connect_with_tls(dialect, listener, tls, place=5) as device:
        device.send(b"GET / HTTP/1.1\r\n\r\n")
        assert device.reply()[0] in ("end", "reset")
    assert listener.frames(name) == ["a"]


@pytest.mark.parametrize("kind", ["unix", "haproxy:unix"])
def test_a_unix_socket_after_a_kill(tmp_path: Path, kind: str) -> None:
    """Whatever process the lock names that Twisted would leave: in a container it lives again."""
    listen = (f"{kind}:{tmp_path / 'socket'}:mode=600",)
    with Listener(tmp_path / "first", listen=listen) as first:
        first.kill()
    assert (tmp_path / "socket").is_socket()
    (tmp_path / "socket.lock").symlink_to(str(os.getpid()))
    with Listener(tmp_path / "second", listen=listen) as second:
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        second.add("a")
        with TextDevice(second.addresses[0]) as device:
            if kind == "haproxy:unix":
                device.send(b"PROXY UNKNOWN\r\n")
            assert device.log_in("a") == 1
    assert not (tmp_path / "socket").exists()


def test_a_unix_socket_that_another_listener_has(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path / 'socket'}"
    with Listener(tmp_path / "data", listen=(listen,)) as listener:
        listener.add("a")
        other = run(TWISTD, "-n", "--pidfile=", "ingest", "--data", "other", "--listen", listen,
                    cwd=tmp_path)  # fmt: skip
        assert other.stderr == f"ingest: can't start: --listen {listen}: Address already in use\n"
        with TextDevice(listener.addresses[0]) as device:
            assert device.log_in("a") == 1


def test_guessing_behind_a_proxy_counts_by_device(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", listen=(f"haproxy:{ANY_PORT}",) * 5) as listener:
        listener.add("good")
        codes: list[str] = []
        while len(codes) < 400 and "busy" not in codes:
            with connect_as(TextDevice, listener, "127.0.0.2") as device:
                device.send(device.plain("good", "wrong"))
                codes.append(device.last_words())
        assert codes[-1] == "busy"
        with connect_as(TextDevice, listener, "127.0.0.1") as device:
            assert device.log_in("good") == 1


def test_plaintext_where_the_operator_allows_it(tmp_path: Path) -> None:
    listen = (f"haproxy:{ANY_PORT}",) * 5
    with Listener(tmp_path / "data", "--allow-plaintext-auth", listen=listen) as listener:
        listener.add("a")
        with connect_as(TextDevice, listener, "192.0.2.1") as device:
            assert device.log_in("a") == 1


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp", "ssl"])
def test_a_crowd_beyond_the_limit_waits(tmp_path: Path, certificate: Path, kind: str) -> None:
    keys = f":privateKey={certificate}:certKey={certificate}" if kind == "ssl" else ""
    listen = (f"unix:{tmp_path / 'socket'}", f"{kind}:0:interface=127.0.0.1{keys}")
    with Listener(tmp_path / "data", "--max-connections", "1", listen=listen) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            crowd = []
            for _ in range(400):
                crowd.append(TextDevice(listener.addresses[1]))
                if kind == "haproxy:tcp":  # who it is counts first
                    crowd[-1].send(b"PROXY UNKNOWN\r\n")
            wait_for(lambda: listener.status()["connections"] >= 65, "the limit")
            device.push_all("x", last=1)
            for each in crowd:
                each.socket.close()
        wait_for(lambda: _greets(listener, "a") == "ok", "the crowd's end")


def _greets(listener: Listener, name: str) -> str:
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain(name))
        return device.reply()[0]
