"""Processes that tests start, and end."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import ClassVar, Self

from tests.support.waiting import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
TWISTD = Path(sys.executable).with_name("twistd")
INGEST = Path(sys.executable).with_name("ingest")
USUAL: Mapping[str, float] = MappingProxyType({})
"""No pause is shorter than usual; see `twistd`."""

_PORTS = range(10_000, 32_768)
"""Below those that Linux gives to whoever asks for any, so that nobody gets one of them between
the look that finds it free and its use; see `net.ipv4.ip_local_port_range`."""


def free_port() -> int:
    """Find a port of 127.0.0.1 that nobody listens on."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port := random.choice(_PORTS)))
            except OSError:
                continue
            return port


def own_environment() -> dict[str, str]:
    """Return the environment without the settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if name != "INGEST_DATA"}


def twistd(pauses: Mapping[str, float]) -> list[str | Path]:
    """Return the command that runs twistd.

    Args:
        pauses: seconds between what it does again and again, or that it waits at most, where they
            are fewer than usual, by `module.NAME`. A test that waits for such a moment finds the
            same, and sooner.
    """
    if not pauses:
        return [TWISTD]
    settings = (f"{name}={seconds}" for name, seconds in pauses.items())
    return [sys.executable, "-m", "tests.support.hurried", *settings, "--"]


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, without the settings of whoever runs the tests."""
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=own_environment(), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


def run_tool(*command: str | Path) -> str:
    """Run a system tool; return what it says, or fail with what it says.

    Raises:
        AssertionError: the tool is missing or fails: these tests need root and its tools.
    """
    try:
        done = run(*command)
    except FileNotFoundError:
        raise AssertionError(f"{command[0]} is not installed, and this test needs it") from None
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"
    return done.stdout


def of_threads(pid: int, what: str) -> list[str]:
    """Read a file of each thread of a process in /proc; one that has just ended has none."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.append((thread / what).read_text())
    return found


class Program:
    """A program that a test starts, and may kill and start again.

    Leaving its block stops it in good order and checks that it did; after an error it is killed.

    Attributes:
        output_file: where all its starts write what they say.
    """

    ready: ClassVar[str]
    """What it says when it has started, as a pattern."""
    exit_status: ClassVar[int] = -signal.SIGTERM
    """Its exit status after a stop. What a signal ended tells its parent so; twistd does."""
    alarming: ClassVar[tuple[str, ...]] = ("Traceback", "Unhandled")
    """What it must not have said when it stops."""

    def __init__(
        self,
        command: Sequence[str | Path],
        output: Path,
        *,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Describe it; entering its block, or `start`, runs it.

        Args:
            command: what runs it.
            output: where it writes what it says; emptied now.
            cwd: where it runs.
            pass_fds: descriptors that it inherits.
        """
        self.output_file = output
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(b"")
        self._command = list(map(str, command))
        self._cwd = cwd
        self._pass_fds = pass_fds
        self._begin = 0  # where the output of the newest start begins
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the newest start."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def pid(self) -> int:
        """The number of that process."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What all its starts have written to standard output and standard error."""
        return self.output_file.read_text(errors="replace")

    @property
    def resident(self) -> int:
        """The memory that it uses now, in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def said(self, what: str) -> int:
        """Count the lines of all its starts that contain `what`."""
        return sum(what in line for line in self.output.splitlines())

    def launch(self) -> None:
        """Start the process, and don't wait for anything."""
        self._begin = self.output_file.stat().st_size
        with self.output_file.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, stdout=output, stderr=output, env=own_environment(),
                pass_fds=self._pass_fds,
            )  # fmt: skip

    def start(self) -> None:
        """Start the process, and wait until it is ready.

        Raises:
            AssertionError: it ended instead.
        """
        self.launch()
        try:
            wait_for(self._is_ready, f"the start of {self._command[0]}")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a lack of memory does; there is nothing left to stop."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop it as an operator does, unless it has ended.

        Raises:
            AssertionError: it ended in another way than its usual one, or said something alarming.
            subprocess.TimeoutExpired: it took too long.
        """
        if self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == self.exit_status, self.output
        for word in self.alarming:
            assert word not in self.output, self.output

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit status."""
        return self.process.wait(PATIENCE)

    def newest_output(self) -> str:
        """Return what its newest start has said."""
        with self.output_file.open("rb") as stream:
            stream.seek(self._begin)
            return stream.read().decode(errors="replace")

    def _is_ready(self) -> bool:
        said = self.newest_output()
        assert self.process.poll() is None, said
        return re.search(self.ready, said) is not None
