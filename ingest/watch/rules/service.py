"""The rules of one data folder as a service: they follow the log, and tell who is to be told.

Reading and deciding happen in a thread of their own, one step after another; what is to be told is
told by the reactor. Both use one file, by way of that thread.
"""

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ingest.layout import Layout
from ingest.watch.rules.actions import receiver_for
from ingest.watch.rules.courier import Courier
from ingest.watch.rules.model import MailServer, Rules, Target, in_words
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event, in_utc
from ingest.watch.rules.receiver import IActionReactor
from ingest.watch.rules.rulesfile import RulesError, read_rules
from ingest.watch.rules.runner import Runner, Step
from ingest.watch.rules.state import Noted, Outcome

_T = TypeVar("_T")

_POLL: Final = 0.5
"""Seconds between two looks at a log that holds nothing new."""
_AFTER_A_FAILURE: Final = 5.0
_REMIND: Final = 60.0
"""Seconds between two reminders of what fires, for receivers that forget."""
_LONG_LAG: Final = 60.0
_SHOWN: Final = 100


@dataclass(frozen=True)
class View:
    """What there is to show.

    Attributes:
        firing: what fires, oldest first.
        newest: the newest events, newest first.
        waiting: how many events wait, for each target.
        outcomes: how deliveries of these events ended, by number and target.
    """

    firing: list[Noted]
    newest: list[Noted]
    waiting: dict[str, int]
    outcomes: dict[tuple[int, str], Outcome]


_NOTHING: Final = View([], [], {}, {})


class IRulesReactor(IActionReactor, IReactorFromThreads):
    """What this service needs of a reactor."""


class RulesService(Service):
    """Rules that follow a log.

    Attributes:
        lag: seconds by which what is decided is behind the log; 0 if it is not.
        failure: why nothing is decided at the moment; empty if all is well.
        refusal: why the file, as it was at the last reload, is not in force; empty if it is.
    """

    log = Logger()

    def __init__(self, data: Path, rules_file: Path, reactor: Any) -> None:
        """Read the rules.

        Args:
            data: the listener's data folder.
            rules_file: the rules, in TOML.
            reactor: the reactor.

        Raises:
            RulesError: something is wrong with the file.
        """
        self.setName("rules")
        self.lag = 0.0
        self.failure = ""
        self.refusal = ""
        self._layout = Layout(data)
        self._file = rules_file
        self._reactor = cast(IRulesReactor, reactor)
        self._rules = read_rules(rules_file)
        self._couriers: dict[str, Courier] = {}
        self._view = _NOTHING
        self._is_told = False
        self._going: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self._reminder = LoopingCall(self._remind)
        self._reminder.clock = self._reactor

    def startService(self) -> None:
        """Go on from where the rules stood.

        Raises:
            SystemExit: the state or the log can't be used; a line on stderr says why.
        """
        try:
            self._runner = Runner(self._layout, self._rules)
        except (OSError, sqlite3.Error) as error:
            print(f"ingest-watch: can't start the rules: {error}", file=sys.__stderr__)
            raise SystemExit(1) from None
        self._pool = ThreadPool(1, 1, "rules")
        self._pool.start()
        self._take(self._rules)
        self._reminder.start(_REMIND, now=False).addErrback(self._not_reminded)
        super().startService()
        self._go()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Finish the step that is under way, break deliveries off, and close the files."""
        super().stopService()
        self._reminder.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()
        yield self._going or succeed(None)
        yield DeferredList([courier.stop() for courier in self._couriers.values()])
        yield self._in_thread(self._runner.close)
        self._pool.stop()

    def reload(self) -> None:
        """Read the file of rules again; if something is wrong with it, the rules stay."""
        try:
            rules = read_rules(self._file)
        except RulesError as error:
            self.refusal = str(error)
            self.log.error("the rules stay as they are: {error}", error=self.refusal)
            return
        taken = self._in_thread(self._runner.set_rules, rules)
        taken.addCallbacks(lambda _: self._take(rules), self._not_taken)

    @property
    def firing(self) -> int:
        """How many alerts fire now."""
        return len(self._view.firing)

    def alerts(self, start: int = 0, count: int = _SHOWN) -> list[dict[str, object]]:
        """Return some of what fires now, newest first, who is told, and how that went.

        Args:
            start: how many of the newest to leave out.
            count: how many to return.
        """
        newest = self._view.firing[::-1]
        return [self._shown(each) for each in newest[start : start + count]]

    def events(self) -> list[dict[str, object]]:
        """Return what fired and cleared of late, newest first."""
        return [self._shown(each) for each in self._view.newest]

    def rules(self) -> list[dict[str, object]]:
        """Return what is defined, and on how many devices each rule fires."""
        firing = Counter(each.event.rule for each in self._view.firing)
        return [
            {
                "name": rule.name,
                "devices": rule.devices,
                "test": str(rule.test),
                "for": in_words(rule.hold) if rule.hold else None,
                "keep_firing_for": in_words(rule.keep) if rule.keep else None,
                "then": [target.shown for target in rule.then],
                "firing": firing[rule.name],
            }
            for rule in self._rules.rules
        ]

    def receivers(self) -> list[dict[str, object]]:
        """Return who is told, how many events wait for each, and why."""
        return [
            {
                "target": Target.parse(target).shown,
                "waiting": self._view.waiting.get(target, 0),
                "failure": courier.failure,
            }
            for target, courier in sorted(self._couriers.items())
        ]

    @property
    def trouble(self) -> str:
        """What is wrong, in words; empty if all is well."""
        if self.failure:
            return f"nothing is decided at the moment: {self.failure}"
        if self.refusal:
            return f"the rules of before are in force, as the file can't be used: {self.refusal}"
        return ""

    def _take(self, rules: Rules) -> None:
        self._rules = rules
        self.refusal = ""
        for target in {str(target) for rule in rules.rules for target in rule.then}:
            self._courier(target)
        self.log.info("{count} rules are in force", count=len(rules.rules))

    def _not_taken(self, failure: Failure) -> None:
        self.log.failure("the rules stay as they are", failure)

    # Steps through the log.

    def _go(self) -> None:
        self._going = self._in_thread(self._step).addCallback(self._stepped)
        self._going.addErrback(self._failed)

    def _step(self) -> tuple[Step, View]:
        """Take a step, and look at what there is to show; in the thread."""
        step, state = self._runner.step(), self._runner.state
        if step.noted or self._is_told or self.failure or self._view is _NOTHING:
            self._is_told = False
            firing, newest = state.firing(), state.newest(_SHOWN)
            outcomes = state.outcomes({each.number for each in (*firing, *newest)})
            return step, View(firing, newest, state.waiting(), outcomes)
        return step, replace(self._view, waiting=state.waiting())

    def _delivered(self, target: str, number: int, failure: str) -> None:
        """Note how a delivery ended; in the thread."""
        self._is_told = True
        self._runner.state.delivered(target, number, time.time_ns() // 1000, failure)

    def _stepped(self, done: tuple[Step, View]) -> None:
        is_first, (step, self._view) = self._view is _NOTHING, done
        if is_first:
            self._remind()  # it may be long since who forgets was told
        self.failure = ""
        behind = (time.time_ns() // 1000 - step.reached) / SECOND
        lag = 0.0 if step.caught_up else max(0.0, behind)
        if lag > _LONG_LAG >= self.lag:
            self.log.warn("the rules are {lag:.0f} s behind the log", lag=lag)
        self.lag = lag
        for problem in step.problems:
            self.log.error("rules: {problem}", problem=problem)
        for target in self._view.waiting:
            self._courier(target).wake()
        self._again(_POLL if step.caught_up else 0.0)

    def _failed(self, failure: Failure) -> None:
        if not self.failure:
            self.log.failure("rules: nothing is decided for now", failure)
        self.failure = failure.getErrorMessage()
        self._again(_AFTER_A_FAILURE)

    def _again(self, seconds: float) -> None:
        if self.running:
            self._next = self._reactor.callLater(seconds, self._go)

    # Deliveries.

    def _courier(self, target: str) -> Courier:
        courier = self._couriers.get(target)
        if courier is None:
            receiver = receiver_for(Target.parse(target), self._reactor, self._mail_server)
            state = self._runner.state
            courier = self._couriers[target] = Courier(
                target,
                receiver,
                self._reactor,
                partial(self._in_thread, state.next_for),
                partial(self._in_thread, self._delivered),
            )
        return courier

    def _not_reminded(self, failure: Failure) -> None:
        self.log.failure("receivers are no longer reminded of what fires", failure)

    def _mail_server(self) -> MailServer:
        return self._rules.mail

    def _remind(self) -> None:
        """Remind those who forget of what fires."""
        firing: dict[str, list[Event]] = {}
        for noted in self._view.firing:
            for target in noted.targets:
                firing.setdefault(target, []).append(noted.event)
        for target, events in firing.items():
            self._courier(target).remind(events)

    def _in_thread(self, call: Callable[..., _T], *values: Any) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._pool, call, *values)

    def _shown(self, noted: Noted) -> dict[str, object]:
        told = [Target.parse(target).shown for target in noted.targets]
        outcomes = [self._view.outcomes.get((noted.number, each)) for each in noted.targets]
        did = [_did(*each) for each in zip(told, outcomes, strict=True)]
        return {"number": noted.number, **noted.event.described(), "then": told, "did": did}


def _did(target: str, outcome: Outcome | None) -> dict[str, object]:
    """Say how a delivery went."""
    if outcome is None:
        return {"target": target, "state": "waiting", "time": None, "failure": ""}
    state = "given up" if outcome.failure else "told"
    at = in_utc(outcome.time)
    return {"target": target, "state": state, "time": at, "failure": outcome.failure}
