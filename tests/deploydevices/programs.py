"""The clients of `deploy/devices/`, built and run as a reader of theirs would."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.devices import TOKEN
from tests.support.waiting import PATIENCE

DEVICES = Path(__file__).parents[2] / "deploy" / "devices"
C_SOURCE = DEVICES / "ingest_device.c"
MICROPYTHON = Path(sys.executable).with_name("micropython")

C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

PAUSE = "20"
"""Milliseconds of a client's first pause before it tries again: tests are in a hurry."""


def tool(name: str) -> str:
    """Find a program that these tests need.

    Raises:
        AssertionError: it is not installed.
    """
    found = shutil.which(name)
    assert found, f"{name} is not installed, and this test needs it"
    return found


def compile_c(source: Path, target: Path, *options: str) -> Path:
    """Compile with all warnings and sanitizers on; a warning is an error."""
    command = [tool("gcc"), *C_FLAGS, *SANITIZERS, *options, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


class Program(NamedTuple):
    """A client that pushes the lines of its standard input.

    Attributes:
        kind: `c`, `micropython` or `javascript`.
        start: the command up to its arguments.
        has_queue_file: whether its queue survives it.
    """

    kind: str
    start: tuple[str, ...]
    has_queue_file: bool

    def command(
        self, address: tuple[str, int], name: str, queue: Path, options: Sequence[str] = ()
    ) -> list[str]:
        """Write the command for a device of that name."""
        host, port = address
        file = [str(queue)] if self.has_queue_file else []
        return [*self.start, host, str(port), name, *file, *options]


def environment(token: str = TOKEN, **more: str) -> dict[str, str]:
    """Return what a client finds in its environment."""
    return os.environ | {"INGEST_TOKEN": token, "INGEST_PAUSE_MS": PAUSE} | more


def run(
    command: Sequence[str | Path], data: bytes = b"", token: str = TOKEN, **more: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a client up to its end."""
    return subprocess.run(
        command, input=data, env=environment(token, **more), capture_output=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
