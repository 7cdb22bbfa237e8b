"""A real `twistd ingest` for tests that break it, and a real `tail -F` that watches."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from ingest.ops.control import ask
from tests.endtoend.listener import TOKEN, TWISTD

PATIENCE = 30.0
"""Seconds after which a condition that a test waits for counts as missed."""

_READY = " may connect"
_ROOT = Path(__file__).parents[2]


def wait_for(what: str, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Poll until a condition holds, and return it.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {patience:g} s: {what}"
        time.sleep(0.005)
    return found


def free_port() -> int:
    """Find a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(*command: str | Path) -> str:
    """Run a system tool; what it says when it fails is the error.

    Raises:
        AssertionError: the tool is missing or fails: these tests need root and its tools.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AssertionError(f"{command[0]} is not installed, and this test needs it") from None
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr.strip()}"
    return done.stdout


@contextmanager
def injected(pid: int, fault: str) -> Iterator[None]:
    """Let system calls of a process fail, as `strace -e inject=` says."""
    calls = fault.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
    run("strace", "-V")
    tracer = subprocess.Popen([*command, "-e", f"trace={calls}", "-e", f"inject={fault}"])
    try:
        wait_for("strace is attached", lambda: is_traced(pid))
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def is_traced(pid: int) -> bool:
    """Tell whether strace holds all threads of a process."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


class Listener:
    """A listener that may be started, killed and started again in one data folder.

    Attributes:
        port: of 127.0.0.1; the same for every start.
        layout: where its files are.
        output: the file of all that its starts have said.
    """

    def __init__(self, data: Path, *options: str, output: Path | None = None) -> None:
        """Describe it; `start` runs it.

        Args:
            data: its data folder, which is made.
            options: of `twistd ingest`.
            output: where what it says is kept; beside `data` by default.
        """
        self.port = free_port()
        self.layout = Layout(data)
        self.output = output or data.with_name(data.name + ".output")
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.layout.create()
        self.output.touch()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    @property
    def log_file(self) -> Path:
        """The active file."""
        return self.layout.log_folder / "ingest.log"

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    def register(self, names: Sequence[str]) -> None:
        """Register devices, all with `TOKEN`."""
        verifier = derive(TOKEN)
        with Registry(self.layout.devices) as registry:
            registry.add_many((name, verifier, "") for name in names)

    def launch(self, *prefix: str) -> None:
        """Start the process, not waiting until it listens; `prefix` is a command that runs it."""
        command = [*prefix, str(TWISTD), "--nodaemon", "--pidfile=", "ingest"]
        command += ["--data", str(self.layout.data), "--listen", f"tcp:{self.port}"]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *self.options], stdout=output, stderr=output, cwd=_ROOT
            )

    def start(self, *prefix: str) -> None:
        """Start the process and wait until it takes devices."""
        before = self.said(_READY)
        self.launch(*prefix)
        wait_for("the listener is ready", lambda: self._is_up(before))

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, patience: float = PATIENCE) -> None:
        """End it with SIGTERM.

        Raises:
            AssertionError: it ended in another way than Twisted's usual one, or with a traceback.
            subprocess.TimeoutExpired: it took longer than `patience` seconds.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(patience) == -signal.SIGTERM
        for word in ("Traceback", "Unhandled"):
            assert not self.said(word), self.last_words()

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until it ends by itself and return its exit status."""
        assert self._process is not None
        return self._process.wait(patience)

    def status(self) -> dict[str, Any]:
        """Ask the running listener for its status."""
        answer: dict[str, Any] = ask(self.layout.control, "status")
        return answer

    def resident(self) -> int:
        """Return the bytes of its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def last_words(self) -> str:
        """Return the end of what it has said."""
        return self.output.read_text(errors="replace")[-3000:]

    def _is_up(self, before: int) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.last_words()
        return self.said(_READY) > before

    def said(self, what: str) -> int:
        """Count the lines of all its starts that contain `what`."""
        lines = self.output.read_text(errors="replace").splitlines()
        return sum(what in line for line in lines)


class Tail:
    """A `tail -F` that has watched a file since it was empty."""

    def __init__(self, path: Path, output: Path) -> None:
        path.touch()  # where nothing is, tail only looks once a second, and never faster
        self.output = output
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                ["tail", "-n", "+1", "-F", str(path)], stdout=stream, stderr=subprocess.DEVNULL
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def printed(self) -> int:
        """Return how many bytes it has printed."""
        return self.output.stat().st_size
