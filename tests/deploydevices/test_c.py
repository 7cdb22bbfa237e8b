"""The C client: its arithmetic, its queue when the power fails, and the promise of no memory."""

import hashlib
import hmac
import random
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploydevices.chaos import chaos
from tests.deploydevices.programs import C_FLAGS, C_SOURCE, DEVICES, Program, compile_c, run, tool
from tests.support.waiting import PATIENCE

HERE = Path(__file__).parent


def test_kills_at_random(c_program: Program, tmp_path: Path) -> None:
    outcome = chaos(c_program, tmp_path, events=40, seed=20261122)
    assert outcome.events.keys() == {"client", "listener", "cut"}
    assert outcome.frames > 200


def test_power_cuts_restarts_and_broken_connections(tmp_path: Path) -> None:
    """Thousands of each, of the same seeds every time."""
    program = compile_c(HERE / "simulation.c", tmp_path / "simulation", f"-I{DEVICES}")
    done = run([program, "1", "400", "10000"])
    assert (done.returncode, done.stderr) == (0, b""), done.stdout + done.stderr
    counts = [int(word) for word in done.stdout.split() if word.isdigit()]
    assert len(counts) == 6
    assert min(counts) > 1000, done.stdout


def test_whatever_a_listener_says(tmp_path: Path) -> None:
    """Bytes of chance, and replies that are almost right; for longer give it more replies."""
    program = compile_c(HERE / "fuzz.c", tmp_path / "fuzz", f"-I{DEVICES}")
    for seed in ("1", "2", "3"):
        done = run([program, seed, "5000"])
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        running, taken = (int(word) for word in done.stdout.split() if word.isdigit())
        assert running > 50, "it must be let in often enough for frames to be acknowledged"
        assert taken > 100


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """A program that computes with the client's own functions, a line at a time."""
    target = tmp_path_factory.mktemp("parts") / "parts"
    program = compile_c(HERE / "parts.c", target, f"-I{DEVICES}")
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def compute(parts: "subprocess.Popen[str]", what: str, *arguments: bytes) -> bytes | None:
    assert parts.stdin and parts.stdout
    parts.stdin.write(" ".join([what, *(data.hex() or "-" for data in arguments)]) + "\n")
    answer = parts.stdout.readline().strip()
    return None if answer == "none" else bytes.fromhex(answer)


def test_sha_256_hmac_and_base64(parts: "subprocess.Popen[str]") -> None:
    chance = random.Random(20261122)
    for size in range(300):
        data, key = chance.randbytes(size), chance.randbytes(chance.randrange(1, 150))
        assert compute(parts, "sha256", data) == hashlib.sha256(data).digest()
        assert compute(parts, "hmac", key, data) == hmac.digest(key, data, "sha256")
        text = b64encode(data)
        assert compute(parts, "base64", data) == text
        assert compute(parts, "unbase64", text) == data
        assert compute(parts, "unbase64", text + b"=") is None


def test_what_is_no_base64(parts: "subprocess.Popen[str]") -> None:
    for text in (b"A", b"AB", b"ABC", b"AB=C", b"AB\nC", b"AB-_", b"====", b"ABCDE", b"A==="):
        assert compute(parts, "unbase64", text) in (None, b""), text
    assert compute(parts, "unbase64", b"AAAA" * 200) is None  # more than there is room for


def test_pbkdf2(parts: "subprocess.Popen[str]") -> None:
    for password, salt in ((b"pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")), (b"x" * 80, b"s")):
        expected = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
        assert compute(parts, "pbkdf2", password, salt) == expected


def test_no_memory_is_allocated_and_nothing_else_is_needed(tmp_path: Path) -> None:
    """Without its example program the file calls no more than a handful of string functions."""
    target = tmp_path / "ingest_device.o"
    command = [tool("gcc"), *C_FLAGS, "-Os", "-c", "-o", str(target), str(C_SOURCE)]
    subprocess.run(command, check=True)
    listed = subprocess.run(
        [tool("nm"), "--undefined-only", "--format=posix", str(target)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    needed = {line.split()[0] for line in listed.splitlines()} - {"_GLOBAL_OFFSET_TABLE_"}
    assert needed <= {
        "memchr", "memcmp", "memcpy", "memmove", "memset", "strchr", "strcspn", "strlen",
        "strncmp", "strstr", "__stack_chk_fail",
    }  # fmt: skip


def test_another_file_and_another_language_can_use_it(tmp_path: Path) -> None:
    sketch = tmp_path / "sketch.cpp"
    sketch.write_text(
        f"""
#define INGEST_DECLARATIONS
#include "{C_SOURCE}"
int main()
{{
    static uint8_t memory[4096];
    static ingest_device device;
    ingest_setup setup = {{}};
    setup.name = "sensor-1";
    setup.token = "s3cr3t";
    setup.storage = ingest_memory(memory, sizeof memory);
    return ingest_begin(&device, &setup) || ingest_push(&device, "a", 1) != INGEST_TAKEN;
}}
"""
    )
    part, program = tmp_path / "ingest_device.o", tmp_path / "sketch"
    subprocess.run([tool("gcc"), *C_FLAGS, "-c", "-o", part, C_SOURCE], check=True)
    subprocess.run(
        [tool("g++"), "-Wall", "-Wextra", "-Werror", "-o", program, sketch, part], check=True
    )
    assert run([program]).returncode == 0


def test_a_file_that_is_another_queue(c_program: Program, tmp_path: Path) -> None:
    """One of another size is left alone, and one that another program has open too."""
    queue = tmp_path / "queue"
    command = c_program.command(("127.0.0.1", 1), "d", queue)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"INGEST_TOKEN": "t", "INGEST_QUEUE_BYTES": "1000"},
    ) as first:  # fmt: skip
        assert first.stdout
        assert first.stdout.readline() == b"taken 0\n"
        second = run(command)
        assert (second.returncode, second.stdout) == (2, b"")
        first.kill()
    content = queue.read_bytes()
    other = run(command, INGEST_QUEUE_BYTES="2000")
    assert (other.returncode, other.stderr) == (1, b"stopped: storage\n")
    assert queue.read_bytes() == content
