"""A disk of which some calls fail, and clocks that a test sets."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.journal.clock import Clock
from ingest.journal.disk import Disk
from ingest.journal.home import Home

_LIMIT = 256
NOW = 1_795_347_540.0  # 2026-11-22T11:39:00Z


class FaultyDisk(Disk):
    """The real disk, until a test makes some of its calls fail.

    Attributes:
        calls: the names of the calls that have failed, in order.
    """

    def __init__(self) -> None:
        self.errors: dict[str, tuple[int, int]] = {}
        self.calls: list[str] = []

    @contextmanager
    def failing(self, number: int, *names: str, after: int = 0) -> Iterator[None]:
        """Let calls fail with an error while the block lasts, but for the first `after` of each."""
        self.errors = dict.fromkeys(names, (number, after))
        try:
            yield
        finally:
            self.errors = {}

    def __getattribute__(self, name: str) -> Any:
        errors = object.__getattribute__(self, "errors") if name[0] != "_" else {}
        return self._failing(name) if name in errors else object.__getattribute__(self, name)

    def _failing(self, name: str) -> Callable[..., Any]:
        number, left = self.errors[name]

        def fail(*_: object) -> None:
            self.calls.append(name)
            raise OSError(number, os.strerror(number))

        if not left:
            return fail
        self.errors[name] = (number, left - 1)
        call: Callable[..., Any] = object.__getattribute__(self, name)
        return call


class Clocks:
    """A wall clock and a monotonic one, which stand still until a test moves them."""

    def __init__(self, wall: float = NOW) -> None:
        self.wall = wall
        self.monotonic = 1000.0
        self.clock = Clock(lambda: self.wall, lambda: self.monotonic, self.advance)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.monotonic += seconds

    def set(self, seconds: float) -> None:
        """Set the wall clock ahead, or back if negative."""
        self.wall += seconds


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up all descriptors of this process while the block lasts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT, before[1]))
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/", os.O_RDONLY))
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def home_of(folder: Path) -> Home:
    """Make the home of a log in `folder`."""
    return Home([folder], Disk(), Clock())
