"""A listener as an operator starts it; a `tail -F` that watches; faults that strace injects."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from ingest.ops.control import ask
from tests.support.devices import TOKEN, Address
from tests.support.processes import (
    INGEST,
    USUAL,
    Program,
    free_port,
    of_threads,
    run,
    run_tool,
    twistd,
)
from tests.support.waiting import wait_for

ANY_PORT = "tcp:0:interface=127.0.0.1"
_VERIFIER = derive(TOKEN)  # one for all: each costs a millisecond


class Listener(Program):
    """A `twistd -n ingest` process.

    Attributes:
        data: its data folder.
        layout: where its files are.
    """

    ready = " may connect"
    alarming = ("Traceback", "Unhandled", "Error")

    def __init__(
        self, data: Path, *options: str | Path, listen: tuple[str, ...] = (ANY_PORT,),
        under: tuple[str | Path, ...] = (), pauses: Mapping[str, float] = USUAL,
        cwd: Path | None = None, output: Path | None = None,
    ) -> None:  # fmt: skip
        """Describe it; entering its block, or `start`, runs it.

        Args:
            data: its data folder.
            options: of `twistd ingest`, besides the next.
            listen: its endpoints.
            under: a command that runs it as its own process, such as strace.
            pauses: those that are shorter than usual; see `twistd`.
            cwd: where it is started.
            output: where what it says goes; beside `data` by default.
        """
        self.data = data
        self.layout = Layout(data)
        command = [*under, *twistd(pauses), "-n", "--pidfile=", "ingest", "--data", data, *options]
        command += [part for endpoint in listen for part in ("--listen", endpoint)]
        super().__init__(command, output or data.with_name(data.name + ".out"), cwd=cwd)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, in the order of its endpoints."""
        found = re.findall(r"listening on (\S+)\n", self.newest_output())
        return [_address(text) for text in found]

    @property
    def log_file(self) -> Path:
        """The active file of the log."""
        return self.layout.log_folder / "ingest.log"

    def add(self, *names: str) -> None:
        """Register devices; `TOKEN` is the token of each."""
        self.layout.create()
        with Registry(self.layout.devices) as registry:
            assert registry.add_many((name, _VERIFIER, "") for name in names) == len(names)

    def add_for(self, test: str) -> str:
        """Register a device that no other test uses; return its name."""
        name = re.sub(r"[^A-Za-z0-9._:-]", "_", test)[:128]
        self.add(name)
        return name

    def ingest(self, *arguments: str) -> str:
        """Run an `ingest` command on its data folder, with success; return what it says."""
        result = run(INGEST, "--data", self.data, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def status(self) -> dict[str, Any]:
        """Return what `ingest status --json` prints."""
        answer: dict[str, Any] = ask(self.layout.control, "status")
        return answer

    def files(self) -> list[Path]:
        """List the log's files that are not compressed, oldest first."""
        return [*sorted(self.layout.log_folder.glob("ingest-*.log")), self.log_file]

    def lines(self, device: str) -> list[str]:
        """Return the lines of a device, as they stand in the log."""
        key = f'"device":"{device}"'.encode()
        return [line.decode() for line in self._content().split(b"\n") if key in line]

    def frames(self, device: str) -> list[Any]:
        """Return the content of a device's frames, after a look at the numbers."""
        return _frames(self.lines(device)).get(device, [])

    def all_frames(self) -> dict[str, list[Any]]:
        """Return the content of all devices' frames, after a look at the numbers."""
        return _frames(self._content().decode().splitlines())

    def _content(self) -> bytes:
        return b"".join(map(_read, self.files()))


class SteadyListener(Listener):
    """A listener that has the same port at every start.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(
        self, data: Path, *options: str, pauses: Mapping[str, float] = USUAL,
        output: Path | None = None,
    ) -> None:  # fmt: skip
        self.port = free_port()
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        super().__init__(data, *options, listen=(listen,), pauses=pauses, output=output)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # retention has just removed it
        return b""


def _frames(lines: list[str]) -> dict[str, list[Any]]:
    frames: dict[str, list[Any]] = {}
    for line in lines:
        _, device, seq, content = json.loads(line).values()
        frames.setdefault(device, []).append(content)
        assert seq == len(frames[device]), line
    return frames


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon else text


@contextmanager
def injected(pid: int, fault: str) -> Iterator[None]:
    """Let system calls of a process fail, as `strace -e inject=` says."""
    calls = fault.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid)]
    run_tool("strace", "-V")
    tracer = subprocess.Popen([*command, "-e", f"trace={calls}", "-e", f"inject={fault}"])
    try:
        wait_for(lambda: is_traced(pid), "strace to be attached")
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def is_traced(pid: int) -> bool:
    """Tell whether strace holds all threads of a process."""
    return all("TracerPid:\t0\n" not in status for status in of_threads(pid, "status"))


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
