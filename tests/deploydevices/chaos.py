"""Kill a client, kill the listener and cut what is between them, at random; then read the log.

The test suite does it for some seconds for each client. For a longer run:

    python -m tests.deploydevices.chaos c --events 500
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.deploydevices.programs import (
    C_SOURCE,
    DEVICES,
    MICROPYTHON,
    Program,
    compile_c,
    environment,
    tool,
)
from tests.deploydevices.relay import Relay
from tests.endtoend.evidence import lines_of, log_pieces
from tests.support.listeners import SteadyListener
from tests.support.waiting import PATIENCE, wait_for

_NAME = "device"
_QUEUE_BYTES = "8000"
"""So small that the ring goes round, and the file is begun anew, many times in a run."""


class Outcome(NamedTuple):
    """What a run brought: how often each thing was done, and how many frames are in the log."""

    events: Counter[str]
    frames: int


def frame(number: int, seed: int) -> bytes:
    """Make a frame that no other is like: some short, some long, some of bytes that are no text."""
    chance = random.Random(number * 1_000_003 + seed)
    size = chance.choice((0, 5, 40, 300, 1500))
    noise = chance.randbytes(size).replace(b"\n", b"") if number % 5 == 0 else b"x" * size
    return b"%d %s." % (number, noise)


class Client:
    """A client, as often as it is started; its input goes on where its queue says.

    Attributes:
        fed: how many frames its input has had in all.
    """

    def __init__(
        self, program: Program, address: tuple[str, int], folder: Path, mechanism: str, seed: int
    ) -> None:
        options = ["--plain"] if mechanism == "PLAIN" else []
        self._command = program.command(address, _NAME, folder / "queue", options)
        self._keeps = program.has_queue_file
        self._errors = folder / "client.errors"
        self._seed = seed
        self._last: float = float("inf")
        self._feeder: threading.Thread | None = None
        self.fed = 0

    def start(self) -> None:
        """Start it, and begin to feed it."""
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=environment(INGEST_QUEUE_BYTES=_QUEUE_BYTES, INGEST_QUEUE_FRAMES="50"),
            )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        os.set_blocking(self._process.stdin.fileno(), True)
        if self._keeps:
            word, number = self._process.stdout.readline().split()
            assert word == b"taken"
            assert int(number) <= self.fed, "it took more than it was given"
            self.fed = int(number)
        self._feeder = threading.Thread(target=self._feed)
        self._feeder.start()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._end()

    def finish(self) -> int:
        """Let it come to its end with what it has been fed; return how many frames that are."""
        self._last = self.fed
        with self._errors.open("rb") as errors:
            assert self._process.wait(PATIENCE) == 0, errors.read()[-2000:]
        self._end()
        return self.fed

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    def said(self) -> str:
        """Return what it has complained of."""
        return self._errors.read_text(errors="replace")[-2000:]

    def _end(self) -> None:
        self._process.wait()
        assert self._feeder and self._process.stdout
        self._feeder.join()
        self._process.stdout.close()

    def _feed(self) -> None:
        stream = self._process.stdin
        assert stream
        with suppress(BrokenPipeError):
            while self.fed < self._last:
                stream.write(frame(self.fed, self._seed) + b"\n")
                stream.flush()
                self.fed += 1
        with suppress(BrokenPipeError):
            stream.close()


def chaos(
    program: Program, folder: Path, *, events: int, seed: int, mechanism: str = "SCRAM-SHA-256"
) -> Outcome:
    """Let a client push frames while things happen to it.

    Raises:
        AssertionError: the log does not hold what was sent, once and in order, or the client gave
            up.
    """
    chance = random.Random(seed)
    listener = SteadyListener(folder / "data")
    listener.add(_NAME)
    done: Counter[str] = Counter()
    with Relay(listener.port) as relay, listener:
        client = Client(program, relay.address, folder, mechanism, seed)
        client.start()

        def restart_client() -> None:
            client.kill()
            client.start()

        def restart_listener() -> None:
            listener.kill()
            time.sleep(chance.uniform(0, 0.1))
            listener.start()

        ways: list[tuple[str, Callable[[], None]]] = [
            ("cut", relay.cut), ("cut", relay.cut), ("listener", restart_listener),
        ]  # fmt: skip
        if program.has_queue_file:
            ways += [("client", restart_client)] * 2
        try:
            for _ in range(events):
                what, act = chance.choice(ways)
                if chance.random() < 0.8:  # the other times it comes while all is still in motion
                    before = relay.bytes
                    wait_for(
                        lambda: relay.bytes > before + 2000 or not client.is_running,  # noqa: B023
                        "the client makes progress",
                    )
                time.sleep(chance.uniform(0, 0.05))
                assert client.is_running, client.said()
                act()
                done[what] += 1
            frames = client.finish()
        except BaseException:
            client.kill()
            raise
        listener.stop()
    check(listener.layout.log_folder, frames, seed)
    return Outcome(done, frames)


def check(log: Path, frames: int, seed: int) -> None:
    """Compare the log with what was sent.

    Raises:
        AssertionError: a frame is missing, repeated, out of order or not what was sent.
    """
    number = 0
    for number, line in enumerate(lines_of(log_pieces(log)), 1):
        record = json.loads(line)
        content = b64decode(record["raw"]) if "raw" in record else record["text"].encode()
        assert record["seq"] == number, line
        assert content == frame(number - 1, seed), (number, content[:80], frame(number - 1, seed))
    assert number == frames, f"{number} frames of {frames} are in the log"


def main() -> None:
    """Run it for as long as asked, and say what it brought."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.deploydevices.chaos", description=main.__doc__
    )
    parser.add_argument("kind", choices=["c", "micropython", "javascript"])
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.kind == "c":
            compiled = compile_c(C_SOURCE, folder / "ingest_device", "-DINGEST_MAIN")
            program = Program("c", (str(compiled),), True)
        elif arguments.kind == "micropython":
            start = (str(MICROPYTHON), str(DEVICES / "ingest_device.py"))
            program = Program("micropython", start, True)
        else:
            start = (tool("node"), str(DEVICES / "ingest_device.js"))
            program = Program("javascript", start, False)
        outcome = chaos(program, folder, events=arguments.events, seed=arguments.seed)
    print(f"{dict(outcome.events)}: {outcome.frames:,} frames, each once and in order")


if __name__ == "__main__":
    main()
