"""The MicroPython client: its queue when operations fail, and the memory that it needs."""

import re
from pathlib import Path

from tests.deploydevices.chaos import chaos
from tests.deploydevices.programs import DEVICES, MICROPYTHON, Program, run
from tests.support.listeners import Listener

README = (DEVICES / "README.md").read_text()


def test_the_queue_when_operations_fail(tmp_path: Path) -> None:
    program = Path(__file__).with_name("queue_faults.py")
    done = run([MICROPYTHON, program, DEVICES, tmp_path])
    assert (done.returncode, done.stderr) == (0, b""), done.stdout[-1000:]
    counts = re.findall(rb"^(\d+) operations failed", done.stdout, re.MULTILINE)
    assert len(counts) == 2
    assert min(map(int, counts)) > 50


def test_kills_at_random(micropython_program: Program, tmp_path: Path) -> None:
    outcome = chaos(micropython_program, tmp_path, events=40, seed=20261122)
    assert outcome.events.keys() == {"client", "listener", "cut"}
    assert outcome.frames > 200


def test_the_heap_that_the_readme_states(tmp_path: Path) -> None:
    """With that much the client runs, from the source to the last acknowledgement; with SCRAM."""
    stated = re.search(r"-X heapsize=(\d+k)", README)
    assert stated
    with Listener(tmp_path / "data") as listener:
        listener.add("d")
        start = (str(MICROPYTHON), "-X", f"heapsize={stated[1]}")
        program = Program("micropython", (*start, str(DEVICES / "ingest_device.py")), True)
        port = int(listener.addresses[0][1])
        lines = [b"temp=%d" % number for number in range(500)]
        command = program.command(("127.0.0.1", port), "d", tmp_path / "queue")
        done = run(command, b"\n".join(lines), INGEST_MEMORY="1")
        assert done.returncode == 0, done.stdout[-500:]
        assert b"GC: total:" in done.stdout
        assert listener.frames("d") == [line.decode() for line in lines]
