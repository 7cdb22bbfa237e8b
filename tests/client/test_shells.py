"""Both shells against scripted servers: the real listener has end-to-end tests."""

import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgpack
import pytest
import scramp
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.client import (
    AuthenticationError,
    Client,
    ClientError,
    Connected,
    Disconnected,
    Event,
    OutOfStep,
    ProtocolError,
    ServerError,
)
from tests.support.certificates import make_certificate, tls_server
from tests.support.processes import free_port
from tests.support.scripted_server import IMPATIENT, Plan, Server, pack, serve_once
from tests.support.shells import BlockingAsync
from tests.support.waiting import PATIENCE, wait_for

Shell = Callable[..., Any]


@pytest.fixture(params=[Client, BlockingAsync], ids=["blocking", "asyncio"])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Make a client of either kind, which does not wait for seconds."""
    return partial(request.param, **IMPATIENT)


def to(server: Server, shell: Shell, **options: Any) -> Any:
    return shell("127.0.0.1", server.port, "sensor-1", "secret", **options)


@contextlib.contextmanager
def impatience(client: Any) -> Iterator[None]:
    """Reconnect where nothing is acknowledged: a server may store, and never tell."""
    ending = threading.Event()

    def run() -> None:
        before = -1
        while not ending.wait(0.05):
            if before == client.unacknowledged:
                with contextlib.suppress(OSError, ClientError):
                    client.reconnect()
            before = client.unacknowledged

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(PATIENCE)


# Frames


def test_frames_are_acknowledged(shell: Shell) -> None:
    with Server(stored=[b"older"]) as server:
        with to(server, shell) as client:
            client.connect()
            assert client.connected
            assert (client.next, client.acknowledged) == (2, 1)
            client.send("temp=20.5")
            client.send_many(["a", b"b"])
            client.wait()
            assert (client.next, client.acknowledged, client.unacknowledged) == (5, 4, 0)
            client.send("last")
        assert server.stored == [b"older", b"temp=20.5", b"a", b"b", b"last"]
        assert server.connections == 1
        assert client.taken == 4
        assert not client.connected


def test_a_loop_whose_transports_are_not_asyncios_own() -> None:
    with Server() as server:
        with to(server, partial(BlockingAsync, make_loop=uvloop.new_event_loop)) as client:
            client.send_many("ab")
            client.wait(PATIENCE)
            client.reconnect(PATIENCE)
            client.send("c")
        assert server.stored == [b"a", b"b", b"c"]


def test_without_acknowledgements_closing_waits_for_the_server(shell: Shell) -> None:
    with Server([Plan(acks=False)]) as server:
        with to(server, shell, ack="none", queue=3) as client:
            client.send_many(map(str, range(1000)))
        assert server.stored == [b"%d" % i for i in range(1000)]


def test_without_acknowledgements_closing_tells_of_a_broken_connection(shell: Shell) -> None:
    with (
        Server([Plan(1, acks=False, farewell=b"ERR revoked by the operator\n")]) as server,
        pytest.raises(ServerError, match="revoked: by the operator"),
        to(server, shell, ack="none") as client,
    ):
        client.send("a")


PLANS = st.builds(Plan, st.integers(1, 40), st.booleans(), st.sampled_from([b"", b"ERR busy\n"]))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PLANS, max_size=4), st.integers(1, 100), st.integers(1, 20), st.booleans())
def test_each_frame_is_stored_once_and_in_order_whatever_breaks(
    shell: Shell, plans: list[Plan], count: int, queue: int, singly: bool
) -> None:
    frames = [f"frame {i}" for i in range(count)]
    with Server(list(plans)) as server:
        with to(server, shell, queue=queue) as client, impatience(client):
            if singly:
                for frame in frames:
                    client.send(frame)
            else:
                client.send_many(frames)
            client.wait(PATIENCE)
        assert server.stored == [frame.encode() for frame in frames]
        assert client.acknowledged == count


def test_a_late_acknowledgement_is_no_error(shell: Shell) -> None:
    """The listener's disk is full: it acknowledges nothing for much longer than `timeout`."""
    answered = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(b"OK next=1 max_frame=100\n")
            lines.readline()
            answered.wait(PATIENCE)
            connection.sendall(b"ACK 1\n")
            lines.read()

    with (
        serve_once(serve) as port,
        shell("127.0.0.1", port, "a", "t", timeout=0.1) as client,
    ):
        client.send("a")
        with pytest.raises(TimeoutError, match="1 frames wait"):
            client.wait(1)
        assert client.connected
        assert client.last_error is None
        answered.set()
        client.wait(PATIENCE)


def test_a_send_returns_while_the_queue_has_room_and_the_listener_is_away(shell: Shell) -> None:
    port = free_port()
    with shell("127.0.0.1", port, "sensor-1", "secret", queue=100) as client:
        client.send_many(map(str, range(99)))
        client.send("99")
        assert client.unacknowledged == 100
        with pytest.raises(ConnectionRefusedError):
            client.connect()
        assert isinstance(client.last_error, ConnectionRefusedError)
        assert not client.connected
        with Server(port=port) as server:
            client.wait(PATIENCE)
            assert server.stored == [b"%d" % i for i in range(100)]
            client.close()


def test_a_send_waits_while_the_queue_is_full(shell: Shell) -> None:
    port = free_port()
    with shell("127.0.0.1", port, "sensor-1", "secret", queue=3) as client:
        client.send_many("123")
        sender = threading.Thread(target=client.send, args=("4",))
        sender.start()
        wait_for(lambda: client.last_error is not None)
        assert sender.is_alive()
        with Server(port=port) as server:
            sender.join(PATIENCE)
            client.close()
            assert server.stored == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("full", "stored"), [("drop-oldest", [b"3", b"4"]), ("drop-newest", [b"1", b"2"])]
)
def test_or_frames_are_dropped_and_counted(shell: Shell, full: str, stored: list[bytes]) -> None:
    port = free_port()
    with shell("127.0.0.1", port, "sensor-1", "secret", queue=2, full=full) as client:
        client.send_many("1234")
        assert client.dropped == 2
        with Server(port=port) as server:
            client.close()
            assert server.stored == stored


def test_frames_go_out_while_their_source_takes_its_time() -> None:
    with Server() as server, server.client() as client:

        def slow() -> Any:
            for i in range(3):
                time.sleep(0.15)  # longer than frames are gathered
                yield str(i)
            wait_for(lambda: server.stored)

        client.send_many(slow())
        client.wait(PATIENCE)
        assert server.stored == [b"0", b"1", b"2"]


def test_a_frame_that_is_too_long_is_refused_and_none_after_it_taken(shell: Shell) -> None:
    with Server() as server, to(server, shell) as client:
        client.connect()
        client.send("x" * 100)
        with pytest.raises(ValueError, match="has 101 bytes, the server takes 100"):
            client.send_many(["fits", "x" * 101, "never"])
        assert (client.next, client.taken) == (3, 2)


def test_an_error_within_the_block_closes_without_waiting(shell: Shell) -> None:
    with Server([Plan(acks=False)]) as server, pytest.raises(KeyError), to(server, shell) as client:
        client.send("a")
        raise KeyError


def test_a_server_that_must_be_read_before_it_reads_on(shell: Shell) -> None:
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
        shell("127.0.0.1", port, "a", "t", dialect="msgpack", queue=100_000) as client,
    ):
        client.send_many(frames)
    assert stored == frames


# The connection


def test_reconnecting_tells_what_was_stored(shell: Shell) -> None:
    with Server([Plan(acks=False)]) as server:
        client = to(server, shell, queue=5)
        client.send_many("12345")
        with pytest.raises(TimeoutError, match="5 frames wait"):
            client.wait(timeout=0.05)
        wait_for(lambda: len(server.stored) == 5)
        client.reconnect()
        assert (client.unacknowledged, client.acknowledged) == (0, 5)
        client.close()
        assert server.stored == [b"1", b"2", b"3", b"4", b"5"]


def test_an_error_that_stays_is_raised_and_not_tried_again(shell: Shell) -> None:
    plan = Plan(take=1, farewell=b"ERR replaced a newer connection took over\n")
    with Server([plan]) as server:
        client = to(server, shell)
        client.send_many("ab")
        with pytest.raises(ServerError) as caught:
            client.wait(PATIENCE)
        assert (caught.value.code, caught.value.text) == (
            "replaced",
            "a newer connection took over",
        )
        with pytest.raises(ServerError):
            client.send("c")
        assert server.connections == 1
        assert client.unacknowledged == 1
        client.reconnect()  # somebody has looked
        client.close()
        assert server.stored == [b"a", b"b"]


def test_a_wrong_token_is_an_authentication_error(shell: Shell) -> None:
    plan = Plan(refuse=b"ERR auth-failed unknown device, wrong token or device disabled\n")
    with (
        Server([plan]) as server,
        pytest.raises(AuthenticationError, match="auth-failed") as caught,
        to(server, shell) as client,
    ):
        client.send("a")
        client.wait(PATIENCE)
    assert isinstance(caught.value, ServerError)
    assert server.connections == 1


def test_an_unknown_code_is_tried_again(shell: Shell) -> None:
    with Server([Plan(refuse=b"ERR out-of-coffee wait\n")] * 2) as server:
        with to(server, shell) as client:
            client.send("a")
        assert server.stored == [b"a"]
        assert server.connections == 3


def test_events_tell_what_happens(shell: Shell) -> None:
    events: list[Event] = []
    with Server([Plan(take=2, farewell=b"ERR shutting-down\n"), Plan(following=1)]) as server:
        with to(server, shell, on_event=events.append) as client:
            client.send_many("ab")
            client.wait(PATIENCE)
            wait_for(lambda: len(events) == 4)
        kinds = [type(event) for event in events]
    assert kinds == [Connected, Disconnected, OutOfStep, Connected]
    assert events[2] == OutOfStep(1, 3, 3)


def test_they_are_logged_by_default(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    plans = [Plan(take=2, farewell=b"ERR shutting-down\n"), Plan(following=1)]
    with Server(plans) as server, to(server, shell) as client:
        client.send_many("ab")
        client.wait(PATIENCE)
        wait_for(lambda: server.connections == 2 and client.connected)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warnings] == ["ingest.client"]
    assert "the server's next frame is 1, this client expected 3 to 3" in warnings[0].getMessage()


def test_a_fault_in_on_event_is_logged_and_nothing_else(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise KeyError

    with Server() as server:
        with to(server, shell, on_event=fail) as client:
            client.send("a")
        assert server.stored == [b"a"]
    assert "on_event failed" in caplog.text


def test_a_server_is_given_up_when_told_so(shell: Shell) -> None:
    plans = [Plan(take=0, farewell=b"ERR shutting-down\n") for _ in range(200)]
    with Server(plans) as server:
        client = to(server, shell, retry=0.3)
        client.send("a")
        with pytest.raises((ServerError, ConnectionError)):
            client.wait(PATIENCE)
        client.abort()


def test_a_server_that_does_not_answer_in_the_handshake(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        client = shell("127.0.0.1", port, "a", "t", timeout=0.1)
        with pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
            client.connect()
        client.close()


def test_something_else_answers(shell: Shell) -> None:
    with Server([Plan(refuse=b"HTTP/1.1 400 Bad Request\n")]) as server:
        # The pause is long enough to ask before the next attempt.
        with to(server, shell, pause=(1.0, 1.0)) as client:
            with pytest.raises(ProtocolError, match="HTTP"):
                client.connect()
            client.send("a")
        assert server.stored == [b"a"], "what answers may change"


def test_a_closed_client_takes_nothing(shell: Shell) -> None:
    with Server() as server:
        client = to(server, shell)
        client.send("a")
        if isinstance(client, Client):
            client.close()
            client.close()
            with pytest.raises(ClientError, match="closed"):
                client.send("b")
            with pytest.raises(ClientError, match="closed"):
                client.connect()
        else:
            client.close()
        assert server.stored == [b"a"]


def test_a_client_that_was_not_used_closes(shell: Shell) -> None:
    shell("127.0.0.1", 1, "a", "t").close()


def test_a_block_that_does_nothing_ends_although_nobody_listens(shell: Shell) -> None:
    with shell("127.0.0.1", free_port(), "a", "t"):
        pass


def test_a_keep_alive(shell: Shell) -> None:
    with Server() as server:
        with to(server, shell) as client:
            client.connect()
            assert client.ping()
            client.send("a")
        assert server.stored == [b"", b"a"]
        assert not to(server, shell).ping()


@pytest.mark.parametrize("said", ["2026-11-25T22:00:00.123456Z", "", "noon"])
def test_the_servers_time(shell: Shell, said: str) -> None:
    with Server([Plan(time=said)]) as server, to(server, shell) as client:
        assert to(server, shell).server_time is None
        client.connect()
        if said != "2026-11-25T22:00:00.123456Z":
            assert client.server_time is None
            return
        earlier = datetime.fromisoformat(said)
        first, second = client.server_time, client.server_time
        assert first is not None and second is not None
        assert earlier <= first <= second < earlier + timedelta(minutes=5)


# The spool


def test_a_spool_outlives_its_client(shell: Shell, tmp_path: Path) -> None:
    port = free_port()
    options: dict[str, Any] = {"spool": tmp_path / "spool"}
    client = shell("127.0.0.1", port, "sensor-1", "secret", **options)
    client.send_many("abc")
    client.abort()
    with Server(port=port) as server:
        with to(server, shell, **options) as client:
            assert client.unacknowledged == 3
            client.send("d")
        assert server.stored == [b"a", b"b", b"c", b"d"]
    assert [path.stat().st_size < 1000 for path in (tmp_path / "spool").glob("*.frames")] == [True]


def test_a_spool_resumes_where_the_server_is(shell: Shell, tmp_path: Path) -> None:
    options: dict[str, Any] = {"spool": tmp_path / "spool"}
    with Server([Plan(acks=False)]) as server:
        client = to(server, shell, **options)
        client.send_many("abc")
        wait_for(lambda: len(server.stored) == 3)
        client.abort()
        with to(server, shell, **options) as client:
            client.send("d")
        assert server.stored == [b"a", b"b", b"c", b"d"]


@pytest.mark.parametrize("spooled", [True, False])
def test_frames_taken_before_the_server_said_how_long_they_may_be(
    shell: Shell, tmp_path: Path, spooled: bool
) -> None:
    port = free_port()
    options: dict[str, Any] = {"spool": tmp_path} if spooled else {}
    client = shell("127.0.0.1", port, "sensor-1", "secret", **options)
    client.send_many(["a", "x" * 101, "y" * 101, "b", "z" * 101])
    with Server(port=port) as server:
        client.close()
        assert server.stored == [b"a", b"b"]
    assert (client.rejected, client.unacknowledged) == (3, 0)


def test_close_leaves_in_the_spool_what_is_not_acknowledged(shell: Shell, tmp_path: Path) -> None:
    client = shell("127.0.0.1", free_port(), "a", "t", spool=tmp_path)
    client.send("a")
    with pytest.raises(TimeoutError, match=r"1 frames wait .*Errno 111"):
        client.close(0.2)
    again = shell("127.0.0.1", free_port(), "a", "t", spool=tmp_path)
    assert again.unacknowledged == 1
    again.abort()


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mechanism": "SCRAM"}, "mechanism='SCRAM' is none of 'PLAIN', 'SCRAM-SHA-256'"),
        ({"mechanism": "plain"}, "is none of"),
        ({"dialect": "json"}, "dialect='json' is none of 'text', 'msgpack'"),
        ({"ack": True}, "ack=True is none of"),
        ({"full": "drop"}, "full='drop' is none of"),
        ({"out_of_step": ""}, "is none of"),
        ({"queue": 0}, "queue=0 is less than 1"),
        ({"timeout": 0}, "timeout=0 is less than"),
        ({"timeout": float("nan")}, "timeout=nan is less than"),
        ({"peer_timeout": 1}, "peer_timeout=1 is less than 8"),
        ({"retry": -1}, "retry=-1 is less than 0"),
        ({"pause": (2, 1)}, "shortest, longest"),
        ({"pause": 1}, "shortest, longest"),
        ({"spool_size": 100}, "is less than 1024"),
        ({"spool": "/nowhere", "ack": "none"}, "a spool needs acknowledgements"),
        ({"tls": False, "ca": "ca.pem"}, "ca makes a context of its own"),
        ({"device": "a b"}, "no device name"),
        ({"device": ""}, "device is empty"),
        ({"token": ""}, "token is empty"),
        *(({"token": f"a{char}"}, "control character") for char in "\0\n\r\x7f\x85"),
        ({"host": ""}, "host is empty"),
        *(({"host": host}, "not a name or an address alone")
          for host in ("listener:7650", "[::1]", "https://listener", "a b", "a\0b", "host\n")),
        ({"port": 0}, "port=0 is less than 1"),
        ({"port": 65536}, "port=65536 is above 65535"),
        ({"timeout": float("inf")}, "timeout=inf is above 1000000"),
        ({"pause": (1, float("inf"))}, "pause=inf is above 1000000"),
        ({"pause": (0, 1)}, "pause=0 is less than 0.001"),
        ({"spool": ""}, "spool is empty"),
        ({"ca": ""}, "ca is empty"),
    ],
)  # fmt: skip
def test_options_that_are_none(shell: Shell, options: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "device": "a", "token": "t"}
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        shell(**(good | {"pause": (1.0, 2.0)} | options))


@pytest.mark.parametrize(
    "options",
    [{"timeout": "1"}, {"queue": 1.5}, {"queue": True}, {"tls": "yes"}, {"token": b"t"},
     {"port": "7650"}, {"on_event": 1}, {"machanism": "PLAIN"}, {"pause": ("1", "2")},
     {"pause": (1, None)}, {"ca": 5}, {"spool": 5}, {"spool": b"spool"}],
)  # fmt: skip
def test_options_of_another_type(options: dict[str, Any]) -> None:
    good: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "device": "a", "token": "t"}
    with pytest.raises(TypeError, match=next(iter(options))):
        Client(**(good | options))


@pytest.mark.parametrize(
    "options",
    [{"peer_timeout": 1e6}, {"peer_timeout": math.inf}, {"timeout": 1e6}, {"retry": math.inf},
     {"pause": (1e6, 1e6)}],
)  # fmt: skip
def test_the_largest_options_work(shell: Shell, options: dict[str, Any]) -> None:
    with Server() as server:
        with to(server, shell, **options) as client:
            client.send("a")
            client.wait(PATIENCE)
        assert server.stored == [b"a"]


def test_a_time_that_is_no_number_is_over_at_once(shell: Shell) -> None:
    client = shell("127.0.0.1", free_port(), "a", "t")
    client.send("a")
    with pytest.raises(TimeoutError):
        client.wait(math.nan)
    client.abort()


@pytest.mark.parametrize("host", ["::1", "fe80::1%eth0", "::ffff:127.0.0.1", "a-b.example", "ü"])
def test_hosts(host: str) -> None:
    Client(host, 1, "a", "t").abort()


def test_a_ca_file_that_is_not_there(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        shell("127.0.0.1", 1, "a", "t", ca=tmp_path / "none.pem")


def test_a_ca_file_without_certificates(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.write_text("none\n")
    with pytest.raises(OSError, match=r"no PEM certificates.*empty\.pem"):
        shell("127.0.0.1", 1, "a", "t", ca=path)


# SCRAM and TLS


@pytest.mark.parametrize("knows_token", [True, False])
def test_scram_on_a_connection(shell: Shell, knows_token: bool) -> None:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    info = mechanism.make_auth_info("token")
    received: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        server = mechanism.make_server(lambda name: info)
        word, said, first, _ = lines.readline().split()
        assert (word, said) == (b"AUTH", b"SCRAM-SHA-256")
        server.set_client_first(b64decode(first).decode())
        connection.sendall(b"+ %b\n" % b64encode(server.get_server_first().encode()))
        server.set_client_final(b64decode(lines.readline()).decode())
        proof = server.get_server_final().encode() if knows_token else b"v=AAAA"
        connection.sendall(b"OK data=%b next=1 max_frame=100\n" % b64encode(proof))
        received.append(lines.readline())
        with contextlib.suppress(OSError):
            connection.sendall(b"ACK 1\n")
            lines.read()
        lines.close()

    with serve_once(serve) as port:
        client = shell("127.0.0.1", port, "a", "token", mechanism="SCRAM-SHA-256")
        client.send("frame")
        if knows_token:
            client.close()
        else:
            with pytest.raises(AuthenticationError, match="signature"):
                client.wait(PATIENCE)
            client.abort()
    assert received == [b"frame\n" if knows_token else b""]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with the key and the self-signed certificate of `localhost`."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("ack", ["durable", "none"])
def test_over_tls(
    shell: Shell, certificate: Path, ack: Literal["durable", "none"], pinned: bool
) -> None:
    context = tls_server(certificate)
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

    options: dict[str, Any] = (
        {"ca": certificate} if pinned else {"tls": ssl.create_default_context(cafile=certificate)}
    )
    with (
        serve_once(serve) as port,
        shell("localhost", port, "a", "t", ack=ack, **options) as client,
    ):
        client.send_many(frames)
    assert stored == [frame.encode() for frame in frames]


def test_a_certificate_that_nobody_vouches_for_stops_the_client(
    shell: Shell, certificate: Path
) -> None:
    context = tls_server(certificate)
    heard: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            tls = context.wrap_socket(connection, server_side=True)
            heard.append(tls.recv(100))
            tls.close()

    with serve_once(serve) as port:
        client = shell("localhost", port, "a", "t", tls=True)
        client.send("a")
        with pytest.raises(ssl.SSLCertVerificationError):
            client.wait(PATIENCE)
        client.abort()
    assert heard in ([], [b""]), "no token was sent"


def test_an_expired_certificate_is_tried_again(shell: Shell, tmp_path: Path) -> None:
    """The device's clock may be wrong for now, and certificates are renewed."""
    expired = make_certificate(tmp_path / "expired.pem", timedelta(days=-1))
    context = tls_server(expired)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True).close()

    with serve_once(serve) as port:
        client = shell("localhost", port, "a", "t", ca=expired)
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            client.connect()
        client.send("a")  # it is taken: the client has not stopped
        client.abort()
