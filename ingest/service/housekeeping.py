"""What a listener does again and again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

_AGAIN = 1.0  # seconds after which a task is tried again that has failed

Task = Callable[[], object]


@dataclass(frozen=True)
class Chore:
    """Something to be done regularly.

    Attributes:
        name: for the log, should it fail.
        every: seconds.
        task: may return a Deferred, which must fire before it is called again.
    """

    name: str
    every: float
    task: Task


class Housekeeping(Service):
    """Does chores, each at its own pace; one that fails is said, and tried again."""

    def __init__(self, clock: IReactorTime, chores: Sequence[Chore]) -> None:
        self._clock = clock
        self._chores = chores
        self._loops: dict[str, LoopingCall] = {}
        self._log = Logger(namespace="ingest")

    def startService(self) -> None:
        """Begin."""
        super().startService()
        for chore in self._chores:
            self._start(chore)

    def stopService(self) -> None:
        """Stop."""
        super().stopService()
        for loop in self._loops.values():
            if loop.running:  # one whose task has failed is not
                loop.stop()

    def _start(self, chore: Chore) -> None:
        if self.running:
            loop = self._loops[chore.name] = LoopingCall(chore.task)
            loop.clock = self._clock
            loop.start(chore.every, now=False).addErrback(self._failed, chore)

    def _failed(self, failure: Failure, chore: Chore) -> None:
        self._log.failure("{chore} has failed and is tried again", failure, chore=chore.name)
        self._clock.callLater(_AGAIN, self._start, chore)
