"""One life of the listener: the real fleet and the real journal, without threads and sockets."""

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock as ReactorClock
from twisted.logger import Logger

from ingest.devices.registry import Registry
from ingest.devices.verifier import Verifier, derive
from ingest.journal import clock
from ingest.journal.disk import Disk
from ingest.journal.events import Event
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.writer import Wait
from ingest.layout import Layout
from ingest.listener.admission import Admission, Limits
from ingest.listener.authentication import Authenticator
from ingest.listener.connection import Connection
from ingest.listener.fleet import Fleet, Parts
from ingest.listener.pacing import RestBetweenReads
from ingest.wire.conversation import Converse
from ingest.wire.ingest1.session import make_converse
from ingest.wire.options import Options
from ingest.wire.sasl import Credentials


class Time:
    """The one clock of a history: of the reactor, of the journal, and on the wall."""

    def __init__(self) -> None:
        self.reactor = ReactorClock()
        self.ahead = 1_795_347_540.0  # of the monotonic clock; 2026-11-22T11:39:00Z
        self.journal = clock.Clock(self.wall, self.reactor.seconds, self._sleep)

    def wall(self) -> float:
        """Return the time on the wall; seconds since 1970."""
        return float(self.reactor.seconds()) + self.ahead

    def _sleep(self, seconds: float) -> None:
        self.reactor.rightNow += seconds  # in another thread: nothing is called in between


class PromptAuthenticator(Authenticator):
    """Checks tokens without threads; the answers come when the scheduler lets them."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry, cast(IReactorFromThreads, None))
        self.answers: deque[tuple[Deferred[bool], bool]] = deque()

    def check(self, credentials: Credentials) -> Deferred[bool]:
        """See `Authenticator.check`."""
        keys = self.keys(credentials.device)
        good = verifier(credentials.token, keys.salt).stored_key == keys.stored_key
        answer: Deferred[bool] = Deferred()
        self.answers.append((answer, good))
        return answer


class NumberedConnection(Connection):
    """A connection whose place in a set does not depend on where it lies in memory."""

    _log = Logger(namespace="tests.simulation", observer=lambda event: None)  # type: ignore[arg-type]

    number = 0

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class EmptyRegistry(Registry):
    """A registry in memory whose tables are a copy: to make them anew takes much of a history."""

    def _prepare(self, make: bool) -> None:
        self._connection.deserialize(_tables())
        super()._prepare(make)


@lru_cache(maxsize=1)
def _tables() -> bytes:
    with Registry(":memory:") as registry:
        return registry._connection.serialize()


@lru_cache(maxsize=64)
def verifier(token: str, salt: bytes = bytes(16)) -> Verifier:
    """Return the verifier of a token; each takes a millisecond to make."""
    return derive(token, salt)


@lru_cache(maxsize=1)
def _converse() -> Converse:
    return make_converse(Options())


class Listener:
    """From a start to its end.

    Attributes:
        fleet: the connections.
        journal: the journal.
        answers: what the journal's threads have said, and its own has not heard yet.
        checks: tokens that are being checked.
    """

    def __init__(
        self, layout: Layout, policy: JournalPolicy, registry: Registry, disk: Disk, time: Time
    ) -> None:
        """Start.

        Raises:
            OSError: the disk does not let it.
        """
        self.answers: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.events: list[Event] = []
        self._time = time
        self._authenticator = PromptAuthenticator(registry)
        self.checks = self._authenticator.answers
        self.fleet = Fleet(
            Parts(
                time.reactor,
                registry,
                self._authenticator,
                Admission(Limits(max_frame=1024, idle_timeout=600.0)),
                now=time.reactor.seconds,
                wall=time.wall,
                rest=RestBetweenReads(time.reactor.seconds, lambda: 0.0, lambda _: None),
            )
        )
        quiet = Logger(namespace="tests.simulation", observer=lambda event: None)  # type: ignore[arg-type]
        self.fleet._log = self.fleet.incidents._log = quiet
        self.journal = FileJournal(
            layout,
            policy,
            self._call_soon,
            self.fleet,
            self.events.append,
            disk=disk,
            clock=time.journal,
        )
        self.fleet.journal = self.journal
        self._wait = Wait(0)
        self._waits_until = 0.0

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        self.answers.append((call, arguments))

    def connection(self, number: int) -> Connection:
        """Make the listener's end of a new connection."""
        connection = NumberedConnection(self.fleet, "ingest/1", _converse(), self.fleet.refusal())
        connection.number = number
        return connection

    @property
    def is_writer_due(self) -> bool:
        """Whether the writer has nothing to wait for."""
        wait = self._wait
        return (
            wait.is_idle
            or (wait.until is not None and wait.until.is_set())
            or self._time.reactor.seconds() >= self._waits_until
        )

    @property
    def is_at_rest(self) -> bool:
        """Whether the writer waits for records, and has said all."""
        return self._wait.is_idle and not self.answers and self.journal.backlog == 0

    def step_writer(self) -> None:
        """Let the writer work until it waits."""
        wait = self.journal.writer.step()
        assert wait is not None, "the writer has ended"
        self._wait = wait
        self._waits_until = self._time.reactor.seconds() + wait.seconds

    def answer(self) -> None:
        """Let the journal's thread hear the oldest of what the others said."""
        call, arguments = self.answers.popleft()
        call(*arguments)

    def check_token(self, chance: Random) -> None:
        """Let one check of a token end."""
        place = chance.randrange(len(self.checks))
        answer, good = self.checks[place]
        del self.checks[place]
        answer.callback(good)

    def stop(self) -> None:
        """Stop in good order."""
        self.fleet.stop()
        self.journal.close()

    def forget(self) -> None:
        """Close what a process that is killed would no longer have open."""
        self.journal.keeper._positions.close()
        self.journal._intent._header.close()
