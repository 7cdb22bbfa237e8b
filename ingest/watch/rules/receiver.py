"""Somebody who is told that a rule fires or has cleared, and how that may fail.

A receiver is told one event at a time; see `courier` for the order, and for what fails.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorProcess, IReactorTCP, IReactorTime
from twisted.python.failure import Failure

from ingest.watch.rules.phases import Event

PATIENCE: Final = 30.0
"""Seconds that a receiver may take to answer."""


class IActionReactor(IReactorTCP, IReactorTime, IReactorProcess):
    """What telling needs of a reactor."""


class DeliveryError(Exception):
    """A receiver was not told.

    Attributes:
        answered: it is there, but did not say yes.
        final: it will never say yes to this event.
        wait: for how many seconds it wants to be left alone.
    """

    def __init__(
        self, what: str, answered: bool = True, final: bool = False, wait: float = 0.0
    ) -> None:
        super().__init__(what)
        self.answered = answered
        self.final = final
        self.wait = wait


class Receiver(Protocol):
    """Somebody who is told."""

    def tell(self, event: Event) -> Deferred[Any]:
        """Tell an event; fails with any error, best with a `DeliveryError`."""

    def remind(self, firing: Sequence[Event]) -> Deferred[Any] | None:
        """Tell again what fires, if this receiver forgets; else None."""


def is_silent(_: object, seconds: float) -> Failure:
    return Failure(DeliveryError(f"it has not answered within {seconds:g} s", answered=False))


def in_one_line(text: str) -> str:
    """Leave out what a device may have sent to steer a terminal, a mail program or a log."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
