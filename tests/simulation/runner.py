"""Many histories, on all cores."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from twisted.logger import globalLogBeginner

from tests.simulation.history import run

_TASK = 100
"""Histories of a task."""


@dataclass
class Done:
    """What was done so far.

    Attributes:
        histories: how many.
        steps: of all of them.
        counts: what happened, and how often.
    """

    histories: int = 0
    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.histories:,} histories, {self.steps:,} steps"

    def add(self, other: "Done") -> None:
        """Add what another has done."""
        self.histories += other.histories
        self.steps += other.steps
        self.counts += other.counts


def run_many(seeds: range, processes: int) -> Iterator[Done]:
    """Live through the histories of many seeds; yield after each hundred what was done so far.

    Raises:
        BrokenPromise: a promise was broken in the first of them that broke one.
    """
    done = Done()
    tasks = [seeds[start : start + _TASK] for start in range(0, len(seeds), _TASK)]
    context = get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_be_quiet)
    try:
        for part in pool.map(run_some, tasks):
            done.add(part)
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def run_some(seeds: range) -> Done:
    """Live through some histories, in this process.

    Raises:
        BrokenPromise: a promise was broken.
    """
    done = Done()
    for seed in seeds:
        history = run(seed)
        done.add(Done(1, history.step, Counter(history.counts)))
    return done


def _be_quiet() -> None:
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
