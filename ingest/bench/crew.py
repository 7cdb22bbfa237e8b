"""The processes of a load: each has a core's worth of connections."""

import gc
import multiprocessing
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self, cast

from ingest.bench.load import Load
from ingest.bench.plan import Connected, Plan, Sent

_POLL = 0.1  # seconds between two looks at how it goes
_STOP = 5.0  # seconds that a process may take to stop

Watch = Callable[[int], object]
"""Takes how many devices are connected or frames sent, by all processes, ten times a second."""


class LoadError(Exception):
    """A process of the load failed; the text is for a person."""


class Crew:
    """Runs plans, each in a process of its own; a context manager, which ends them.

    Both steps raise `LoadError` where a process fails.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans
        # Not forked: a process that threads run in may not be.
        self._context = multiprocessing.get_context("spawn")
        self._counts: Any = self._context.Array("q", len(plans), lock=False)
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Pipe] = []

    def __enter__(self) -> Self:
        for index, plan in enumerate(self._plans):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_work, args=(plan, theirs, self._counts, index), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pipe in self._pipes:
            pipe.close()  # at which its process ends
        for process in self._processes:
            process.join(_STOP)
            process.kill()
            process.join()

    def connect(self, watch: Watch = bool) -> Connected:
        """Connect all devices."""
        self.begin()
        connected: Connected = reduce(Connected.added, self._results(watch))
        return connected

    def run(self, watch: Watch = bool) -> Sent:
        """Send as planned."""
        self.begin()
        return self.finish(watch)

    def begin(self) -> None:
        """Begin the next step in every process, without waiting for its end."""
        for pipe in self._pipes:
            pipe.send(None)

    def finish(self, watch: Watch = bool) -> Sent:
        """Wait for the end of sending that `begin` began."""
        sent: Sent = reduce(Sent.added, self._results(watch))
        return sent

    def _results(self, watch: Watch) -> list[Any]:
        results: list[Any] = []
        waiting = list(self._pipes)
        while waiting:
            for pipe in wait(waiting, _POLL):
                results.append(_receive(cast(Pipe, pipe)))
                waiting.remove(cast(Pipe, pipe))
            watch(sum(self._counts))
        return results


def _receive(pipe: Pipe) -> Any:
    try:
        result = pipe.recv()
    except (EOFError, OSError):
        raise LoadError("a process of the load ended early") from None
    if isinstance(result, str):
        raise LoadError(result)
    return result


def _work(plan: Plan, pipe: Pipe, counts: Any, index: int) -> None:
    """Do the steps of a plan, each when told to; the other end of the pipe gets the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells when to stop
    gc.disable()  # it makes no cycles worth a pause, which would count as the listener's
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def tell(count: int) -> None:
        counts[index] = count

    with pipe, suppress(EOFError, BrokenPipeError):
        load = Load(plan, tell)
        for step in (load.connect, load.run):
            pipe.recv()
            tell(0)
            pipe.send(_attempt(step))
        pipe.recv()


def _attempt(step: Callable[[], object]) -> object:
    try:
        return step()
    except OSError as error:
        return f"the load: {error.strerror}"
