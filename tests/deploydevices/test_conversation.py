"""What the clients say and do, word for word, to a listener that says what a test wants."""

import re
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.deploydevices.programs import (
    DEVICES,
    MICROPYTHON,
    Program,
    compile_c,
    environment,
    run,
    tool,
)
from tests.deploydevices.script import Connection, Script, listening
from tests.support.waiting import PATIENCE, wait_for

PROTOCOL = (DEVICES.parents[1] / "ingest" / "PROTOCOL.md").read_text()

FRAMES = [b"a", b"b", b"c", b"d"]
NEVER = "299999"
"""A first pause, in milliseconds, that would outlast the test: who tries again did so at once."""


def push(
    program: Program, folder: Path, *scripts: Script, options: Sequence[str] = ("--plain",),
    pause: str = "5",
) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """Let a client push `FRAMES` to a listener that follows the scripts."""
    with listening(*scripts) as address:
        command = program.command(address, "d", folder / "queue", options)
        return run(command, b"".join(frame + b"\n" for frame in FRAMES), INGEST_PAUSE_MS=pause)


def take_all(connection: Connection) -> None:
    connection.log_in(1)
    assert connection.lines(4) == FRAMES
    connection.say("ACK 4")
    connection.expect_end()


# Errors

# What becomes of a device that gets the code in the handshake, and after it.
STOP, LATER, AT_ONCE, SET_ASIDE = "stop", "later", "at once", "set aside"
ERRORS = {
    "auth-required": (STOP, STOP),
    "auth-failed": (STOP, STOP),
    "auth-timeout": (LATER, LATER),
    "mechanism-unsupported": (STOP, STOP),
    "plaintext-refused": (STOP, STOP),
    "bad-frame": (STOP, SET_ASIDE),
    "frame-too-long": (STOP, SET_ASIDE),
    "replaced": (STOP, STOP),
    "revoked": (STOP, STOP),
    "idle-timeout": (LATER, AT_ONCE),
    "busy": (LATER, LATER),
    "shutting-down": (LATER, LATER),
}


def test_the_codes_are_those_of_the_specification() -> None:
    section = PROTOCOL.partition("\n## Errors\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == set(ERRORS)


def error_in_handshake(code: str) -> Script:
    def script(connection: Connection) -> None:
        connection.line()
        connection.say(f"ERR {code} whatever it says")

    return script


def error_in_session(code: str) -> Script:
    def script(connection: Connection) -> None:
        connection.log_in(1)
        assert connection.lines(4) == FRAMES
        connection.say("ACK 2", f"ERR {code} whatever it says")

    return script


def take_the_rest(rest: list[bytes]) -> Script:
    def script(connection: Connection) -> None:
        connection.log_in(3)
        assert connection.lines(len(rest)) == rest
        connection.say(f"ACK {2 + len(rest)}")
        connection.expect_end()

    return script


@pytest.mark.parametrize("code", [*ERRORS, "new-in-2031"])
def test_an_error_in_the_handshake(program: Program, code: str, tmp_path: Path) -> None:
    what, _ = ERRORS.get(code, (LATER, LATER))
    scripts = [error_in_handshake(code)] * (1 if what == STOP else 3)
    done = push(program, tmp_path, *scripts, *([] if what == STOP else [take_all]))
    assert done.returncode == (what == STOP), done.stderr
    assert (f"stopped: {code}".encode() in done.stdout + done.stderr) == (what == STOP)


@pytest.mark.parametrize("code", [*ERRORS, "new-in-2031"])
def test_an_error_after_the_handshake(program: Program, code: str, tmp_path: Path) -> None:
    _, what = ERRORS.get(code, (LATER, LATER))
    scripts = [error_in_session(code)]
    if what != STOP:
        scripts.append(take_the_rest(FRAMES[3:] if what == SET_ASIDE else FRAMES[2:]))
    pause = "5" if what == LATER else NEVER
    done = push(program, tmp_path, *scripts, pause=pause)
    assert done.returncode == (what == STOP), done.stderr
    assert (f"stopped: {code}".encode() in done.stdout + done.stderr) == (what == STOP)
    told = re.search(rb"were refused|^refused: c$", done.stdout + done.stderr, re.MULTILINE)
    assert bool(told) == (what == SET_ASIDE)


def break_after_two(connection: Connection) -> None:
    connection.log_in(1)
    assert connection.lines(4) == FRAMES
    connection.say("ACK 2")
    connection.reset()


def replaced(connection: Connection) -> None:
    connection.log_in(3)
    assert connection.lines(2) == FRAMES[2:]
    connection.say("ERR replaced a newer connection of this device has taken over")


@pytest.mark.parametrize("second", [replaced, error_in_handshake("replaced")])
def test_a_client_is_not_stopped_by_its_own_late_login(
    program: Program, second: Script, tmp_path: Path
) -> None:
    """That of the connection that broke, which the listener may read after that of the next one."""
    done = push(program, tmp_path, break_after_two, second, take_the_rest(FRAMES[2:]))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "between", [replaced, error_in_handshake("busy")], ids=["replaced", "busy"]
)
def test_another_program_of_this_name_stops_a_client(
    program: Program, between: Script, tmp_path: Path
) -> None:
    """It is forgiven once, and not where the listener has said why the last connection ended."""
    done = push(program, tmp_path, break_after_two, between, replaced)
    assert done.returncode == 1
    assert b"stopped: replaced" in done.stdout + done.stderr


# Resuming


def test_the_example_of_the_specification(program: Program, tmp_path: Path) -> None:
    """44 is acknowledged, 45 was stored, 46 was not."""

    def first(connection: Connection) -> None:
        connection.log_in(43)
        assert connection.lines(4) == FRAMES
        connection.say("ACK 44")
        connection.reset()

    def second(connection: Connection) -> None:
        connection.log_in(46)
        assert connection.line() == FRAMES[3]
        connection.say("ACK 46")
        connection.expect_end()

    done = push(program, tmp_path, first, second)
    said = [] if program.kind == "micropython" else [b"no connection, but trying"]
    assert [line.split(b":")[0] for line in done.stderr.splitlines()] == said
    assert done.returncode == 0


@pytest.mark.parametrize("following", [1, 44, 48, 10**15])
def test_numbers_that_are_another_programs(
    program: Program, following: int, tmp_path: Path
) -> None:
    """Neither below what was acknowledged nor above what was sent: nothing may be lost then."""

    def first(connection: Connection) -> None:
        connection.log_in(43)
        assert connection.lines(4) == FRAMES
        connection.say("ACK 44")
        connection.reset()

    def second(connection: Connection) -> None:
        connection.log_in(following)
        assert connection.lines(2) == FRAMES[2:]
        connection.say(f"ACK {following + 1}")
        connection.expect_end()

    done = push(program, tmp_path, first, second)
    assert done.returncode == 0, done.stderr
    assert b"another program uses this name" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "reply",
    ["ACK 5", "ACK x", "ACK", "OK device=d next=1 max_frame=9", "HTTP/1.1 400", "", "+ YQ=="],
)
def test_replies_that_are_none(program: Program, reply: str, tmp_path: Path) -> None:
    def nonsense(connection: Connection) -> None:
        connection.log_in(1)
        assert connection.lines(4) == FRAMES
        connection.say(reply)
        connection.expect_end()

    assert push(program, tmp_path, nonsense, take_all).returncode == 0


@pytest.mark.parametrize("reply", ["OK device=d", "OK next=", "OK next=0", "OK next=x", "ACK 1"])
def test_an_ok_that_is_none(program: Program, reply: str, tmp_path: Path) -> None:
    def nonsense(connection: Connection) -> None:
        connection.line()
        connection.say(reply)
        connection.expect_end()

    assert push(program, tmp_path, nonsense, take_all).returncode == 0


def test_a_long_text_of_an_error(program: Program, tmp_path: Path) -> None:
    done = push(program, tmp_path, error_in_handshake("busy " + "x" * 900), take_all)
    assert done.returncode == 0


MICROPYTHON_BLOCKED = """
import sys
sys.path.insert(0, sys.argv[1])
import ingest_device
ingest_device._KEEP_ALIVE = 5
host, port, folder = sys.argv[2], int(sys.argv[3]), sys.argv[4]
queue = ingest_device.Queue(folder + "/queue", 10_000_000)
for number in range(120):
    queue.push(b"%d " % number + b"x" * 60_000)
device = ingest_device.Device(host, port, "d", "t", queue, "PLAIN")
steps = 0
while queue.count:
    waiting = len(device._out) if device.running else 0
    device.step(10)
    steps = steps + 1 if waiting and waiting == len(device._out) else 0
    if steps == 20:
        open(folder + "/blocked", "w").close()
"""


def test_a_listener_that_takes_nothing_for_longer_than_a_keep_alive(tmp_path: Path) -> None:
    """The bytes that wait must not be displaced. (The simulation of the C client does the same.)"""
    program = tmp_path / "blocked.py"
    program.write_text(MICROPYTHON_BLOCKED)

    def script(connection: Connection) -> None:
        connection.log_in(1)
        wait_for((tmp_path / "blocked").exists, "the client to be held up")
        frames = [connection.frame() for _ in range(120)]
        assert frames == [b"%d " % number + b"x" * 60_000 for number in range(120)]
        connection.say("ACK 120")

    with listening(script) as (host, port):
        done = run([MICROPYTHON, program, DEVICES, host, str(port), tmp_path])
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# SCRAM


def lying(reply: str) -> Script:
    """Go through SCRAM without the token, and say at the end what it is hoped to suffice."""

    def script(connection: Connection) -> None:
        connection.challenge()
        connection.line()
        connection.say(reply)
        connection.expect_end()

    return script


def challenging(answer: str) -> Script:
    def script(connection: Connection) -> None:
        connection.challenge(answer)
        connection.expect_end()

    return script


def letting_in_at_once(connection: Connection) -> None:
    connection.line()
    connection.say("OK device=d next=1 max_frame=65536")
    connection.expect_end()


def test_who_does_not_know_the_token_gets_nothing(program: Program, tmp_path: Path) -> None:
    forged = b64encode(b"v=" + b64encode(bytes(32))).decode()
    scripts = [
        letting_in_at_once,
        lying("OK device=d next=1 max_frame=65536"),
        lying(f"OK data={forged} device=d next=1 max_frame=65536"),
        lying("OK data= device=d next=1 max_frame=65536"),
        lying("+ " + forged),
        challenging("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        challenging("r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        challenging("r={nonce}more,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"),
        challenging("r={nonce}more,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294971392"),
        challenging("r={nonce}more"),
        challenging("m=1,r={nonce}more,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        challenging(""),
    ]
    end = error_in_handshake("revoked")  # and it went on trying up to there
    half = len(scripts) // 2
    for some in (scripts[:half], scripts[half:]):  # since pauses double
        done = push(program, tmp_path, *some, end, options=(), pause="1")
        assert b"stopped: revoked" in done.stdout + done.stderr


def c_with_pinned_nonce(folder: Path) -> list[str]:
    source = Path(__file__).with_name("pinned.c")
    return [str(compile_c(source, folder / "pinned", f"-I{DEVICES}"))]


def micropython_with_pinned_nonce(folder: Path) -> list[str]:
    program = folder / "pinned.py"
    program.write_text(
        f"""
import binascii, sys
sys.path.insert(0, {str(DEVICES)!r})
import ingest_device
class Pinned:
    urandom = staticmethod(lambda size: binascii.a2b_base64(b"rOprNGfwEbeRWgbNEkqO")[:size])
    rename = ingest_device.os.rename
    remove = ingest_device.os.remove
ingest_device.os = Pinned
queue = ingest_device.Queue({str(folder / "queue")!r}, 1000)
queue.push(b"temp=20.5")
device = ingest_device.Device(sys.argv[1], int(sys.argv[2]), "user", "pencil", queue)
while queue.count:
    device.step(100)
"""
    )
    return [str(MICROPYTHON), str(program)]


def javascript_with_pinned_nonce(folder: Path) -> list[str]:
    program = folder / "pinned.js"
    program.write_text(
        f"""
require('node:crypto').randomBytes = () => Buffer.from('rOprNGfwEbeRWgbNEkqO', 'base64')
const {{ Device }} = require({str(DEVICES / "ingest_device.js")!r})
const [,, host, port] = process.argv
const device = new Device({{ host, port, name: 'user', token: 'pencil' }})
device.push('temp=20.5')
device.on('room', () => device.close())
"""
    )
    return [tool("node"), str(program)]


@pytest.mark.parametrize(
    "make", [c_with_pinned_nonce, micropython_with_pinned_nonce, javascript_with_pinned_nonce]
)
def test_the_example_of_rfc_7677(make: Callable[[Path], list[str]], tmp_path: Path) -> None:
    transcript = PROTOCOL.partition("```text\nC: AUTH SCRAM-SHA-256")[2].partition("```")[0]
    said = [line.partition(": ")[::2] for line in f"C: AUTH SCRAM-SHA-256{transcript}".splitlines()]
    assert b64decode(said[1][1][2:]).startswith(b"r=rOprNGfwEbeRWgbNEkqO%hvY")

    def script(connection: Connection) -> None:
        for who, line in said:
            if who == "C":
                assert connection.line() == line.encode()
            else:
                connection.say(line)
        connection.expect_end()

    with listening(script) as (host, port):
        done = run([*make(tmp_path), host, str(port)])
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# Pauses

MICROPYTHON_PAUSES = """
import sys
sys.path.insert(0, sys.argv[1])
import ingest_device
queue = ingest_device.Queue(sys.argv[2], 1000)
device = ingest_device.Device("127.0.0.1", 1, "d", "t", queue)
for _ in range(300):
    print(device._next_pause())
"""
JAVASCRIPT_PAUSES = """
const { Device } = require(process.argv[2] + '/ingest_device.js')
const device = new Device({ host: '127.0.0.1', port: 1, name: 'd', token: 't' })
for (let i = 0; i < 300; i++) console.log(device.nextPause())
device.close()
"""


@pytest.mark.parametrize(
    ("command", "program"),
    [((str(MICROPYTHON),), MICROPYTHON_PAUSES), (("node",), JAVASCRIPT_PAUSES)],
)
def test_pauses_grow_and_are_random(command: Sequence[str], program: str, tmp_path: Path) -> None:
    path = tmp_path / "pauses"
    path.write_text(program)
    done = run([*command, path, DEVICES, tmp_path / "queue"])
    check_pauses([int(word) for word in done.stdout.split()])


def test_pauses_of_the_c_client(tmp_path: Path) -> None:
    source = Path(__file__).with_name("pauses.c")
    done = run([compile_c(source, tmp_path / "pauses", f"-I{DEVICES}")])
    check_pauses([int(word) for word in done.stdout.split()])


def check_pauses(pauses: list[int]) -> None:
    """Hold 300 of them against the specification: up to a second, doubled up to five minutes."""
    assert len(pauses) == 300
    for number, pause in enumerate(pauses):
        longest = min(1000 << min(number, 20), 300_000)
        assert longest // 2 <= pause <= longest, (number, pause)
    assert len(set(pauses)) > 250, "the pauses are not random"


@pytest.mark.parametrize("kind", ["c", "micropython"])
def test_a_killed_client_does_not_end_in_good_order(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The listener would take the half of a line that came before a clean end for a frame."""
    program: Program = request.getfixturevalue(f"{kind}_program")

    def script(connection: Connection) -> None:
        connection.log_in(1)
        assert connection.line() == b"a"
        process.kill()
        with pytest.raises(ConnectionResetError):
            connection.line()

    with listening(script) as address:
        command = program.command(address, "d", tmp_path / "queue", ["--plain"])
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment()
        ) as process:
            assert process.stdin
            process.stdin.write(b"a\n")
            process.stdin.flush()
            process.wait(PATIENCE)


def test_a_listener_that_is_not_there_yet(program: Program, tmp_path: Path) -> None:
    """The client keeps what it is given, and tries again until the listener is there."""
    with listening(lambda connection: None) as address:
        command = program.command(address, "d", tmp_path / "queue", ["--plain"])
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(),
        )  # fmt: skip
    # The listener is gone now, and its port is free; the client has been cut off once.
    assert process.stdin
    process.stdin.write(b"a\nb\nc\nd\n")
    process.stdin.flush()
    with listening(take_all, port=address[1]):
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    for stream in (process.stdout, process.stderr):
        assert stream
        stream.close()
