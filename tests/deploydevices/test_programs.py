"""Every client of `deploy/devices/`, as it stands, against a real listener."""

import json
import re
import socket
import stat
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploydevices.programs import DEVICES, Program, environment, run, tool
from tests.support.listeners import ANY_PORT, Listener

MECHANISMS = {"scram": (), "plain": ("--plain",)}

LINES = [
    b"temp=20.5", "größe=1,5 µm".encode(), b"\xff\x00\xfe", b"Q", b"R", b"\rin front", b" ",
    b"x" * 3000, b'{"json": "too"}',
]  # fmt: skip
"""Frames that try a client's mettle; Q and R are commands to `openssl s_client`."""


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[Listener]:
    """A listener with a port in clear and one with TLS."""
    keys = f"privateKey={certificate}:certKey={certificate}"
    listen = (ANY_PORT, f"ssl:0:interface=127.0.0.1:{keys}")
    data = tmp_path_factory.mktemp("devices") / "data"
    with Listener(data, "--max-frame", "4KiB", listen=listen) as listener:
        yield listener


@pytest.fixture
def name(listener: Listener, request: pytest.FixtureRequest) -> str:
    """The name of a registered device that no other test uses."""
    return listener.add_for(request.node.name)


def address(listener: Listener, place: int = 0) -> tuple[str, int]:
    return "localhost" if place else "127.0.0.1", int(listener.addresses[place][1])


def stored(listener: Listener, name: str) -> list[bytes]:
    """Return the frames of a device as bytes, after a look at the numbers."""
    frames = []
    for line in listener.lines(name):
        record = json.loads(line)
        frames.append(b64decode(record["raw"]) if "raw" in record else record["text"].encode())
        assert record["seq"] == len(frames), line
    return frames


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_lines_arrive_as_they_are(
    listener: Listener, name: str, program: Program, mechanism: str, tmp_path: Path
) -> None:
    queue = tmp_path / "queue"
    command = program.command(address(listener), name, queue, MECHANISMS[mechanism])
    first = run(command, joined(LINES))
    assert first.returncode == 0, first.stderr
    last = run(command, b"\n" + joined(LINES) + b"CRLF\r\n\r\nno end")
    assert (last.returncode, last.stderr) == (0, b"")
    assert stored(listener, name) == [*LINES, *LINES, b"CRLF", b"no end"]
    if program.has_queue_file:
        assert last.stdout.split() == [b"taken", str(len(LINES)).encode()]


@pytest.mark.parametrize("kind", ["micropython", "javascript"])
def test_tls(
    listener: Listener, name: str, kind: str, certificate: Path, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    program: Program = request.getfixturevalue(f"{kind}_program")
    lines = [b"%d " % number + b"x" * 900 for number in range(300)]
    for mechanism in MECHANISMS.values():
        options = ["--tls", str(certificate), *mechanism]
        done = run(
            program.command(address(listener, 1), name, tmp_path / "queue", options), joined(lines)
        )
        assert done.returncode == 0, done.stderr
    assert stored(listener, name) == lines * 2


@pytest.mark.parametrize("kind", ["micropython", "javascript", "shell"])
def test_tls_at_an_address(
    listener: Listener, name: str, kind: str, certificate: Path, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    frames = tmp_path / "frames"
    frames.write_bytes(b"a\n")
    place = ("127.0.0.1", address(listener, 1)[1])
    if kind == "shell":
        push = [script("push-tls.sh"), place[0], str(place[1])]
        done = run([*push, name, str(frames), str(certificate)])
    else:
        program: Program = request.getfixturevalue(f"{kind}_program")
        options = ["--tls", str(certificate)]
        done = run(program.command(place, name, tmp_path / "queue", options), frames.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert stored(listener, name) == [b"a"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_token(
    listener: Listener, name: str, program: Program, mechanism: str, tmp_path: Path
) -> None:
    options = MECHANISMS[mechanism]
    command = program.command(address(listener), name, tmp_path / "queue", options)
    done = run(command, joined(LINES), token="wrong")
    assert done.returncode == 1
    assert b"stopped: auth-failed" in done.stdout + done.stderr
    assert stored(listener, name) == []
    if program.has_queue_file:  # what it had taken is not lost: the right token brings it out
        mended = run(command)
        assert mended.returncode == 0, mended.stderr
        assert 0 < len(stored(listener, name)) == int(mended.stdout.split()[1])
        assert stored(listener, name) == LINES[: len(stored(listener, name))]


def test_a_line_that_is_no_frame_or_too_long(
    listener: Listener, name: str, program: Program, tmp_path: Path
) -> None:
    command = program.command(address(listener), name, tmp_path / "queue")
    lines = [b"before", b"ends in CR\r\r", b"y" * 5000, b"after", b"z" * 4097, b"z" * 4096]
    done = run(command, joined(lines))
    assert done.returncode == 0, done.stderr
    assert b"left out" in done.stdout + done.stderr
    assert b"refused" in done.stdout + done.stderr
    assert stored(listener, name) == [b"before", b"after", b"z" * 4096]


def test_a_small_queue_makes_the_input_wait(
    listener: Listener, name: str, program: Program, tmp_path: Path
) -> None:
    command = program.command(address(listener), name, tmp_path / "queue")
    lines = [b"%d" % number for number in range(600)]
    done = run(command, joined(lines), INGEST_QUEUE_BYTES="300", INGEST_QUEUE_FRAMES="20")
    assert done.returncode == 0, done.stderr
    assert stored(listener, name) == lines


@pytest.mark.parametrize("kind", ["c", "javascript"])
def test_why_there_is_no_connection_is_said(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program: Program = request.getfixturevalue(f"{kind}_program")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        place = ("127.0.0.1", nobody.getsockname()[1])
    command = program.command(place, "name", tmp_path / "queue")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(),
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"frame\n")
        process.stdin.flush()
        said = iter(process.stdout.readline, b"")
        assert any(line.startswith(b"no connection, but trying: ") for line in said)
        process.kill()


def test_arguments_that_are_missing(program: Program) -> None:
    done = run(program.start)
    assert done.returncode == 2
    assert b"INGEST_TOKEN=... " in done.stdout + done.stderr


# The shell and plain Python


def script(name: str) -> str:
    """Return the path of a script, which says itself what runs it."""
    path = DEVICES / name
    assert path.stat().st_mode & stat.S_IXUSR, f"{name} is not executable"
    return str(path)


def push_file(
    listener: Listener, name: str, place: int, command: list[str], content: bytes,
    folder: Path, *options: str, token: str = "s3cr3t",
) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    file = folder / "frames"
    file.write_bytes(content)
    host, port = address(listener, place)
    return run([*command, host, str(port), name, str(file), *options], token=token)


@pytest.mark.parametrize("program", ["push.py", "push-nc.sh", "push-tls.sh"])
def test_without_arguments_the_use_is_told(program: str) -> None:
    interpreter = sys.executable if program.endswith(".py") else "sh"
    done = run([interpreter, str(DEVICES / program)])
    assert done.returncode != 0
    assert re.fullmatch(rb"INGEST_TOKEN=\.\.\. .* HOST PORT NAME .*\n", done.stderr)


def test_plain_python(listener: Listener, name: str) -> None:
    host, port = address(listener)
    command = [sys.executable, str(DEVICES / "push.py"), host, str(port), name]
    done = run(command, joined(LINES) + b"\nCRLF\r\n\r\nno end")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == b"ACK %d" % (len(LINES) + 2)
    assert stored(listener, name) == [*LINES, b"CRLF", b"no end"]
    refused = run(command, b"frame\n", token="wrong")
    assert (refused.returncode, refused.stderr[:16]) == (1, b"ERR auth-failed ")


def test_the_shell_with_nc(listener: Listener, name: str, tmp_path: Path) -> None:
    tool("nc")
    command = [script("push-nc.sh")]
    for content in (joined(LINES) + b"\n\r\n", joined(LINES)[:-1]):
        done = push_file(listener, name, 0, command, content, tmp_path)
        assert (done.returncode, done.stdout) == (0, b"9 of 9 lines are on disk\n"), done.stderr
    assert stored(listener, name) == LINES * 2


def test_the_shell_with_nc_where_it_fails(listener: Listener, name: str, tmp_path: Path) -> None:
    command = [script("push-nc.sh")]
    done = push_file(listener, name, 0, command, b"a\n", tmp_path, token="wrong")
    assert (done.returncode, done.stdout) == (1, b"0 of 1 lines are on disk\n")
    assert done.stderr.startswith(b"ERR auth-failed ")
    done = push_file(listener, name, 0, command, b"a\n" + b"x" * 5000 + b"\nc\n", tmp_path)
    assert (done.returncode, done.stdout) == (1, b"1 of 3 lines are on disk\n")
    assert done.stderr.startswith(b"ERR frame-too-long ")
    assert stored(listener, name) == [b"a"]


def test_the_shell_with_nc_where_nobody_listens(tmp_path: Path) -> None:
    file = tmp_path / "frames"
    file.write_bytes(b"a\n")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    done = run([script("push-nc.sh"), "127.0.0.1", str(port), "name", str(file)])
    assert (done.returncode, done.stdout) == (1, b"0 of 1 lines are on disk\n")
    assert done.stderr == b"no OK from 127.0.0.1:%d; does a listener run there?\n" % port


def test_the_shell_with_openssl(
    listener: Listener, name: str, certificate: Path, tmp_path: Path
) -> None:
    tool("openssl")
    command = [script("push-tls.sh")]
    many = [b"Q", *LINES, *(b"%d" % number for number in range(20_000)), b"R"]
    for content in (joined(many) + b"\n", joined(LINES)[:-1]):
        done = push_file(listener, name, 1, command, content, tmp_path, str(certificate))
        assert done.returncode == 0, done.stderr
    assert done.stdout == b"9 of 9 lines are on disk\n"
    assert stored(listener, name) == many + LINES


def test_the_shell_with_openssl_where_it_fails(
    listener: Listener, name: str, certificate: Path, tmp_path: Path
) -> None:
    command = [script("push-tls.sh")]
    stranger = push_file(listener, name, 1, command, b"a\n", tmp_path)
    assert stranger.returncode == 1
    assert b"certificate" in stranger.stderr
    wrong = push_file(listener, name, 1, command, b"a\n", tmp_path, str(certificate), token="wrong")
    assert (wrong.returncode, wrong.stderr[:16]) == (1, b"ERR auth-failed ")
    assert stored(listener, name) == []
