"""Who tells a receiver: one event after another, in order, again and again with growing pauses.

A dead receiver keeps its own courier waiting and nobody else.
"""

from collections.abc import Callable, Generator, Sequence
from random import uniform
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ingest.watch.rules.model import Target
from ingest.watch.rules.phases import Event
from ingest.watch.rules.receiver import DeliveryError, Receiver
from ingest.watch.rules.state import Noted

_T = TypeVar("_T")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
TRIES: Final = 24
"""How often an event is told to a receiver that answers, but not with a yes: about an hour."""


class Courier:
    """Tells one receiver all that is to be told it, one after another.

    Attributes:
        failure: why the receiver is not told at the moment; empty if all is well.
    """

    log = Logger()

    def __init__(
        self,
        target: str,
        receiver: Receiver,
        reactor: IReactorTime,
        next_for: Callable[[str], Deferred[Noted | None]],
        delivered: Callable[[str, int, str], Deferred[None]],
    ) -> None:
        """Make a courier, who waits to be woken.

        Args:
            target: under which the deliveries are kept.
            receiver: whom to tell.
            reactor: for pauses.
            next_for: fetches the oldest event that a target has yet to be told.
            delivered: notes that a target was told an event, or why it never will be.
        """
        self.failure = ""
        self._wait = 0.0  # seconds for which the receiver wants to be left alone
        self._target = target
        self._shown = Target.parse(target).shown  # in the program's log
        self._receiver = receiver
        self._reactor = reactor
        self._next_for = next_for
        self._delivered = delivered
        self._round: Deferred[None] | None = None
        self._waits: Deferred[Any] | None = None
        self._again = False
        self._stopped = False

    def wake(self) -> None:
        """See whether there is something to tell."""
        self._again = True
        if self._round is None and not self._stopped:
            self._round = self._go_round()
            self._round.addErrback(self._broke).addBoth(self._rest)

    def remind(self, firing: Sequence[Event]) -> None:
        """Tell again what fires, if the receiver forgets and there is nothing else to tell.

        What comes meanwhile is told after it: a clearing must not be overtaken.
        """
        if self._round is None and not self._stopped:
            reminded: Deferred[Any] = maybeDeferred(self._receiver.remind, firing)
            self._round = self._breakable(reminded).addCallbacks(self._reminded, self._not_reminded)
            self._round.addBoth(self._rest).addCallback(lambda _: self.wake())

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """Tell no more. What is being told is broken off, and told again after the next start."""
        self._stopped = True
        if self._waits is not None:
            self._waits.cancel()
        if self._round is not None:
            yield self._round

    @inlineCallbacks
    def _go_round(self) -> Generator[Deferred[Any], Any, None]:
        tries = 0
        while not self._stopped:
            self._again = False
            noted = yield self._next_for(self._target)
            if noted is None:
                if self._again:
                    continue
                return
            tries += 1
            if (yield self._told(noted, tries)):
                yield self._delivered(self._target, noted.number, self.failure)
                tries = 0
            elif not self._stopped:
                yield self._pause(tries)

    @inlineCallbacks
    def _told(self, noted: Noted, tries: int) -> Generator[Deferred[Any], Any, bool]:
        """Tell an event; tells whether it is done with."""
        if self._stopped:
            return False
        try:
            yield self._breakable(maybeDeferred(self._receiver.tell, noted.event))
        except CancelledError:
            return False
        except Exception as error:  # of any kind: the receiver's fault must not end its courier
            self._failed(error)
            self._wait = error.wait if isinstance(error, DeliveryError) else 0.0
            if not _is_hopeless(error, tries):
                return False
            self.log.error(
                "{target} is not told event {number}: {error}",
                target=self._shown, number=noted.number, error=str(error),
            )  # fmt: skip
        else:
            self.failure = ""
        return True

    def _reminded(self, _: object) -> None:
        self.failure = ""

    def _not_reminded(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._failed(failure.value or failure)

    def _failed(self, error: BaseException) -> None:
        if not self.failure:
            self.log.warn("{target}: {error}", target=self._shown, error=_in_words(error))
        self.failure = _in_words(error)

    @inlineCallbacks
    def _pause(self, tries: int) -> Generator[Deferred[Any], Any, None]:
        seconds = min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE)
        pause = self._wait + uniform(seconds / 2, seconds)
        waited: Deferred[None] = Deferred()
        call = self._reactor.callLater(pause, waited.callback, None)
        try:
            yield self._breakable(waited)
        except CancelledError:
            call.cancel()

    def _breakable(self, deferred: Deferred[_T]) -> Deferred[_T]:
        """Let `stop` break a wait off."""
        self._waits = deferred

        def over(result: _T) -> _T:
            self._waits = None
            return result

        return deferred.addBoth(over)

    def _broke(self, failure: Failure) -> None:
        """The state can't be read or written; the next event wakes this again."""
        self.failure = failure.getErrorMessage()
        self.log.failure("{target} is not told for now", failure, target=self._shown)

    def _rest(self, _: object) -> None:
        self._round = None


def _is_hopeless(error: Exception, tries: int) -> bool:
    return isinstance(error, DeliveryError) and (error.final or (error.answered and tries >= TRIES))


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
