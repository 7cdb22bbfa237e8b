"""`ingest send` against a scripted server."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import msgpack
import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.cli.send import Address, parse_address, parse_json
from ingest.client import Spool
from tests.support.certificates import make_certificate, tls_server
from tests.support.scripted_server import Plan, Server, pack, serve_once
from tests.support.waiting import PATIENCE, wait_for

TOKEN = {"INGEST_TOKEN": "secret"}


def run(*arguments: object, environment: dict[str, str | None] | None = None) -> Result:
    variables = TOKEN if environment is None else environment
    return CliRunner().invoke(main, ["send", *map(str, arguments)], env=variables)


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"".join(b"temp=%d\r\n" % i for i in range(1000)) + b"\n\nlast")
    with Server(stored=[b"older"]) as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert server.stored == [b"older", *(b"temp=%d" % i for i in range(1000)), b"last"]
    assert result.output.startswith("sent 1,001 frames, 1,001 acknowledged, in ")
    assert result.output.endswith(" s; 2 empty lines skipped\n")
    assert result.exit_code == 0


def test_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.touch()
    with Server() as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert result.output.startswith("sent 0 frames, 0 acknowledged, in ")
    assert result.exit_code == 0


def test_a_broken_connection_is_resumed(tmp_path: Path) -> None:
    lines = [b"%d" % i for i in range(50_000)]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(lines))
    with Server([Plan(take=7), Plan(take=5_000, acks=False)]) as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert server.stored == lines
    assert "no connection, but trying: " in result.stderr
    assert result.stdout.startswith("sent 50,000 frames, 50,000 acknowledged, in ")
    assert server.connections == 3


def test_json_lines_as_msgpack_up_to_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text('{"temp": 20.5}\n\n[1, "ü"]\n{"temp": }\n3\n')
    stored: list[object] = []

    def serve(connection: socket.socket) -> None:
        unpacker = msgpack.Unpacker()
        while data := connection.recv(4096):
            unpacker.feed(data)
            for message in unpacker:
                stored.append(message)
                first = {"ok": {"next": 1, "max_frame": 1000}}
                connection.sendall(pack({"ack": len(stored) - 1} if stored[1:] else first))

    with serve_once(serve) as port:
        result = run("sensor-1", "--to", f"127.0.0.1:{port}", "--msgpack", file)
    assert stored[1:] == [{"temp": 20.5}, [1, "ü"]]
    assert result.stdout.startswith("sent 2 frames, 2 acknowledged, in ")
    assert result.stdout.endswith(" s; 1 empty line skipped\n")
    assert result.stderr == f"Error: {file}:4: column 10 is not JSON: Expecting value\n"
    assert result.exit_code == 1


def test_a_line_that_the_server_does_not_take(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("ok\n" + "x" * 101)
    with Server() as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert server.stored == [b"ok"]
    assert result.stderr == f"Error: {file}:2: the frame has 101 bytes, the server takes 100\n"
    assert result.exit_code == 1


def test_a_file_without_an_end_of_line(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    with file.open("wb") as out:
        out.truncate(1 << 24)
    with Server() as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert result.stderr == f"Error: {file}:1: more than 4,194,304 bytes without an end of line\n"


def test_what_the_server_refuses_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.touch()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"ERR auth-failed unknown device\n")

    with serve_once(serve) as port:
        result = run("sensor-1", "--to", f"127.0.0.1:{port}", file)
    assert result.output == (
        f"Error: 127.0.0.1:{port} refused sensor-1: auth-failed: unknown device; "
        "on the listener's host `ingest device show sensor-1` tells whether it is there"
        " and enabled\n"
    )
    assert result.exit_code == 1


def test_nobody_listens(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    result = run("sensor-1", "--to", f"127.0.0.1:{port}", file)
    assert result.output == (
        f"Error: can't push to 127.0.0.1:{port}: Connection refused; "
        "is the listener running there?\n"
    )
    assert result.exit_code == 1


def test_frames_that_are_not_acknowledged_fail_the_command(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("a\nb\n")
    with Server([Plan(take=1, farewell=b"ERR revoked by the operator\n")]) as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{server.port}", file)
    assert "Error: 127.0.0.1" in result.stderr
    assert "revoked: by the operator" in result.stderr
    assert result.stdout.startswith("sent 2 frames, 1 acknowledged, in ")
    assert result.exit_code == 1


def test_the_token_in_a_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    file = tmp_path / "lines"
    file.write_text("a")
    with Server() as server:
        to = f"127.0.0.1:{server.port}"
        none: dict[str, str | None] = {"INGEST_TOKEN": None}
        token.write_text("secret\n")
        assert (
            run("sensor-1", "--to", to, "--token-file", token, file, environment=none).exit_code
            == 0
        )
        token.write_text("\n")
        result = run("sensor-1", "--to", to, "--token-file", token, file, environment=none)
        assert "it is empty; put the device's token there" in result.output
        result = run("sensor-1", "--to", to, file, environment=none)
        assert "no token: give --token-file FILE, or set INGEST_TOKEN" in result.output
    assert server.stored == [b"a"]


def test_each_line_of_a_pipe_is_stored_before_the_next_is_written() -> None:
    with Server([Plan(take=2)]) as server:
        command = [sys.executable, "-c", "from ingest.cli import main; main()", "send", "sensor-1"]
        with subprocess.Popen(
            [*command, "--to", f"127.0.0.1:{server.port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | TOKEN,
            text=True,
            bufsize=1,
        ) as process:
            assert process.stdin is not None
            for line in ("a", "b", "c"):
                process.stdin.write(line + "\n")
                wait_for(lambda: line.encode() in server.stored, "the line")  # noqa: B023
            output, _ = process.communicate(timeout=PATIENCE)
    assert server.stored == [b"a", b"b", b"c"]
    assert output.startswith("sent 3 frames, 3 acknowledged, in ")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", Address("10.0.0.1", 7650)),
        ("logs.example.com:7", Address("logs.example.com", 7)),
        ("[::1]:7651", Address("::1", 7651)),
        ("[::1]", Address("::1", 7650)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", ":7650", "a:", "a:0", "a:65536", "::1", "[::1", "a:b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "column 2 is not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b'"\xff"', "byte 2 is not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b"1 2", "column 3 is not JSON: Extra data"),
    ],
)
def test_what_is_no_json(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(line)


def test_a_name_that_is_no_device() -> None:
    result = run("sensor 1")
    assert "'sensor 1' is no device name: 1 to 128 characters" in result.output
    assert result.exit_code == 2


# The spool, and TLS


def test_lines_wait_in_a_spool_until_the_listener_is_there(tmp_path: Path) -> None:
    lines, spool = tmp_path / "lines", tmp_path / "spool"
    lines.write_text("a\nb\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    result = run("sensor-1", "--to", f"127.0.0.1:{port}", "--spool", spool, lines)
    assert result.exit_code == 1
    assert result.stdout.startswith("sent 2 frames, 0 acknowledged, in ")
    assert result.stderr.endswith(
        f"Error: can't push to 127.0.0.1:{port}: Connection refused; is the listener running there?"
        f"; 2 frames wait in {spool} for the next run\n"
    )
    lines.write_text("c\n")
    with Server(port=port) as server:
        result = run("sensor-1", "--to", f"127.0.0.1:{port}", "--spool", spool, lines)
    assert server.stored == [b"a", b"b", b"c"]
    assert result.stdout.startswith("sent 1 frame, 1 acknowledged; 2 frames of earlier runs, in ")
    assert result.exit_code == 0


def test_a_frame_that_the_listener_does_not_take_is_told_and_is_no_success(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("a\nb\nc\n")
    with Server([Plan(take=1, farewell=b"ERR bad-frame nested too deep\n")]) as server:
        address = f"127.0.0.1:{server.port}"
        result = run("sensor-1", "--to", address, lines)
    assert server.stored == [b"a", b"c"]
    assert result.stdout.startswith("sent 3 frames, 2 acknowledged, in ")
    assert "a frame of 2 bytes was set aside: bad-frame: nested too deep" in result.stderr
    assert result.stderr.endswith(f"1 frame set aside, as told above: {address} takes no such\n")
    assert result.exit_code == 1


def test_a_host_that_is_no_name() -> None:
    result = run("sensor-1", "--to", "a..b:7650", "/dev/null")
    assert result.output.startswith("Error: host='a..b' is no name of a host")
    assert result.exit_code == 1


def test_a_spool_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = tmp_path / "file" / "spool"
    result = run("sensor-1", "--spool", spool, "/dev/null")
    assert result.output == f"Error: {spool}: Not a directory\n"
    used = Spool(tmp_path / "used", 1 << 20, "text", "sensor-1")
    result = run("sensor-1", "--spool", tmp_path / "used", "/dev/null")
    assert result.output == f"Error: {tmp_path}/used: another process or client uses this spool\n"
    used.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls(tmp_path: Path, trusted: bool) -> None:
    certificate = make_certificate(tmp_path / "localhost.pem")
    other = make_certificate(tmp_path / "other.pem")
    lines = tmp_path / "lines"
    lines.write_text("a\n")
    stored: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            tls_server(certificate).wrap_socket(connection, server_side=True) as tls,
        ):
            tls.recv(1000)
            tls.sendall(b"OK next=1 max_frame=100\n")
            stored.append(tls.recv(1000))
            tls.sendall(b"ACK 1\n")
            tls.unwrap()

    with serve_once(serve) as port:
        ca = certificate if trusted else other
        result = run("sensor-1", "--to", f"localhost:{port}", "--tls", "--ca", ca, lines)
    assert stored == ([b"a\n"] if trusted else [])
    assert (result.exit_code == 0) == trusted
    if not trusted:
        assert "its certificate is not trusted: " in result.stderr
        assert "--ca FILE" in result.stderr
        assert "is the listener running" not in result.stderr


def test_a_port_without_tls_is_said(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.touch()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"ERR bad-frame this port does not speak TLS\n")

    with serve_once(serve) as port:
        result = run("sensor-1", "--tls", "--to", f"127.0.0.1:{port}", file)
    assert result.output == (
        f"Error: can't push to 127.0.0.1:{port}: no TLS is spoken there; is that the port of TLS?\n"
    )
