"""All connections of a listener: who is there, and what is done with them together."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ingest.devices.registry import Registry
from ingest.journal.interface import Journal
from ingest.listener.admission import Admission
from ingest.listener.authentication import Authenticator
from ingest.listener.books import Account, Books, Delivery
from ingest.listener.deadlines import Deadlines
from ingest.listener.guard import for_each, isolated
from ingest.listener.identities import Identities
from ingest.listener.incidents import TLS_FAILED, Incidents
from ingest.listener.pacing import SLOW, RestBetweenReads, SlowLane, Turns, cooperator
from ingest.listener.phases import Phase
from ingest.listener.poller import Poller
from ingest.listener.refusals import Refusals
from ingest.listener.sightings import Sightings
from ingest.listener.stamp import Stamper
from ingest.listener.surroundings import Member
from ingest.wire.chunks import RecentChunks
from ingest.wire.errors import ErrorCode, PeerError

_ROUND = 0.001
"""Seconds of a round at once, and twenty times as much without: nobody waits for a round."""
_ROUND_PAUSE = 20 * _ROUND
_UNHEARD = 1.0
"""Seconds without reading after which it is time to watch for devices that give up."""
_UNSAID = frozenset({ErrorCode.SHUTTING_DOWN, ErrorCode.IDLE_TIMEOUT})
"""How conversations end every day: counted, and not said."""

_Clock = Callable[[], float]


@dataclass(frozen=True)
class Parts:
    """What a fleet is given.

    Attributes:
        reactor: calls later.
        registry: the devices.
        authenticator: checks tokens.
        admission: decides who is let in.
        poller: serves the connections' sockets; the reactor does, where there is none.
        now: the time by which deadlines are kept: seconds since some moment; never set back.
        wall: the time by which records are stamped: seconds since 1970.
        rest: rests between reads.
    """

    reactor: IReactorTime
    registry: Registry
    authenticator: Authenticator
    admission: Admission
    poller: Poller | None = None
    now: _Clock = time.monotonic
    wall: _Clock = time.time
    rest: RestBetweenReads = field(default_factory=RestBetweenReads)


class Fleet:
    """The connections, and what they have in common; see `Surroundings` and `FlowControl`.

    Attributes:
        journal: where records go; set before the first connection.
        shares: where records of shared names go; the same.
        admission: decides who is let in.
        books: what came and what became of it.
        incidents: what went wrong with connections.
        refusals: how often each device was not let in.
        identities: what the registry says of those who connect.
        at_doors: how many connections wait for their PROXY header, and will join if it is good.
        paused: whether the journal takes no more for now.
    """

    _log = Logger(namespace="ingest.listener")

    journal: Journal
    shares: Journal

    def __init__(self, parts: Parts) -> None:
        self.admission = parts.admission
        self.books = Books()
        self.incidents = Incidents()
        self.refusals = Refusals(parts.registry.registered)
        self.identities = Identities(
            parts.registry, parts.authenticator, parts.admission, self.incidents, parts.now
        )
        self.at_doors = 0
        self.paused = False
        self.now = parts.now
        self._wall = parts.wall
        self._reactor = parts.reactor
        self._stamp = Stamper()
        self._deadlines = Deadlines(self.admission, self.now())
        self._poller = parts.poller
        self._after_read = parts.rest.after_read
        self._slow = SlowLane(parts.reactor)
        self.queue_up = Turns(parts.reactor).queue_up
        self._rounds = cooperator(parts.reactor, _ROUND, pause=_ROUND_PAUSE)
        self._sightings = Sightings()
        self.take_seen = self._sightings.take
        self._seen_at = Stamper()
        self._passing: set[Member] = set()  # those that come or go
        self._open: dict[Member, None] = {}  # those that were let in; some of them are going
        self._count = 0
        self._chunks = RecentChunks()
        self.load_chunks = self._chunks.load
        self.chunks = self._chunks.of
        self._paused_at = 0.0
        self._paused_for = 0.0
        self._stopped: Deferred[None] | None = None

    def __len__(self) -> int:
        """Return how many connections there are."""
        return self._count

    # What a connection sees: see `Surroundings`.

    def stamp(self) -> bytes:
        """See `Surroundings.stamp`."""
        return self._stamp(self._wall())

    @property
    def is_full(self) -> bool:
        """Whether there are so many connections that not even a refusal can be said."""
        return self.admission.is_beyond(self._all)

    def refusal(self) -> PeerError | None:
        """Return why a new connection is not let in; None if it is."""
        if self._stopped is not None:
            return _shutting_down()
        return self.admission.refusal(self._count)

    def add(self, connection: Member) -> None:
        """See `Surroundings.add`."""
        self.books.connections += 1
        self._count += 1
        self._passing.add(connection)
        self.admission.count(self._all)
        if self._poller is not None and connection.intake.socket is not None:
            self._poller.adopt(connection.intake.socket)

    def call_later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """See `Surroundings.call_later`."""
        return self._reactor.callLater(seconds, call)

    def let_in(self, connection: Member) -> None:
        """See `Surroundings.let_in`."""
        self._passing.discard(connection)
        self._open[connection] = None
        self.incidents.handshakes[f"{connection.mechanism}/ok"] += 1

    def left(self, connection: Member, delivery: Delivery) -> None:
        """See `Surroundings.left`."""
        self._passing.add(connection)
        self.books.end(delivery)
        self._open.pop(connection, None)
        self._note_seen(connection)

    def ended(self, connection: Member, error: PeerError) -> None:
        """See `Surroundings.ended`."""
        self._passing.add(connection)  # its deadlines are short from now on
        host = connection.peer.host
        if connection.delivery is None:
            self.incidents.handshakes[f"{connection.mechanism or 'none'}/{error.code}"] += 1
        if error.code is ErrorCode.AUTH_FAILED:
            self.admission.failed(host, connection.claimed, self.now())
        if error.code in _UNSAID:
            self.incidents.counts[error.code] += 1
        else:
            self.incidents.note(error.code, connection.claimed, host, error.text)
        if connection.delivery is None and error.code is not ErrorCode.SHUTTING_DOWN:
            self.refusals.note(connection.claimed, error.code)  # last: it may ask the registry

    def broke(self, connection: Member, reason: str) -> None:
        """See `Surroundings.broke`."""
        self.incidents.note(TLS_FAILED, connection.claimed, connection.peer.host, reason)

    def took(self, connection: Member, size: int, begun: float) -> None:
        """See `Surroundings.took`."""
        seconds = self.now() - begun
        if seconds > SLOW:
            self._slow.enter(connection, size, seconds)
        elif size >= connection.intake.size:
            connection.intake.grow()
        self._after_read(size)

    def remove(self, connection: Member) -> None:
        """See `Surroundings.remove`."""
        if connection in self._passing or connection in self._open:
            self._count -= 1
        self._passing.discard(connection)
        self._open.pop(connection, None)
        if self._stopped is not None and not self._count:
            stopped, self._stopped = self._stopped, succeed(None)
            stopped.callback(None)
        self.admission.count(self._all)

    # What the journal tells: see `FlowControl`.

    def pause(self) -> None:
        """Stop reading frames from all devices."""
        self.paused = True
        self._paused_at = self.now()
        for_each(self._open, _update_reading)

    def resume(self) -> None:
        """Read from all devices again.

        The first to be read from fill the journal again, so they are taken in random order: over
        a few turns all progress alike.
        """
        self.paused = False
        self._paused_for += self.now() - self._paused_at
        for_each(random.sample(list(self._open), len(self._open)), _update_reading)

    # What the service asks for.

    def count_at_doors(self, waiting: int) -> None:
        """Called when so many wait for their PROXY header: each takes a descriptor."""
        self.at_doors = waiting
        self.admission.count(self._all)

    def check_deadlines(self, every: float) -> None:
        """End handshakes, answers and farewells that have taken too long.

        Args:
            every: seconds between two calls. If many more have passed, such as while the process
                was stopped, the devices' bytes have waited unheard, and the time is not theirs.
        """
        now = self.now()
        if stall := self._deadlines.stall(now, every):
            for connection in self.members():
                self._deadlines.forgive(connection, stall)
        for connection in list(self._passing):
            with isolated(connection):
                self._deadlines.check(connection, now, is_paused=self.paused)
        self._watch_unread(now)
        self.books.close_durable()

    def go_round(self) -> Deferred[Iterator[None]]:
        """Note when each device was last heard, and end the connections of those that are idle.

        It takes its time; fires when it has seen them all.
        """
        return self._rounds.coiterate(self._go_round())

    def check_revocations(self) -> None:
        """Cut the devices whose keys were revoked since the last call."""
        error = PeerError(ErrorCode.REVOKED, "the device was disabled, removed or re-keyed")
        revoked = self.identities.revoked(self._proved)
        for_each(revoked, lambda connection: connection.fail(error))

    def _proved(self, names: Collection[str]) -> list[Member]:
        """Return the connections that have proved one of some names, and may wait for a lease."""
        held = [each for each in self._open if each.device in names]
        claiming = [each for each in self._passing if each.phase is Phase.CLAIMING]
        return held + [each for each in claiming if each.claimed in names]

    def accounts(self) -> dict[str, Account]:
        """Return the account of each device that came since the start."""
        return self.books.accounts(
            member.delivery for member in self._open if member.delivery is not None
        )

    def totals(self) -> dict[str, Account]:
        """Return the account of all devices since the start, by protocol."""
        return self.books.totals(
            member.delivery for member in self._open if member.delivery is not None
        )

    @property
    def paused_seconds(self) -> float:
        """For how long the journal has taken no more, all times together."""
        return self._paused_for + (self.now() - self._paused_at if self.paused else 0.0)

    def members(self) -> Iterator[Member]:
        """Go through the connections."""
        yield from self._passing
        yield from (each for each in self._open if each not in self._passing)

    def devices(self) -> Collection[Member]:
        """Return the connections of devices that were let in."""
        return self._open

    def stop(self) -> Deferred[None]:
        """Say good-bye to all; fires when the last connection is gone."""
        if not self._count:
            return succeed(None)
        self._stopped = Deferred()
        for_each(self.members(), lambda connection: connection.fail(_shutting_down()))
        return self._stopped

    def abort(self) -> None:
        """Cut all connections that are left."""
        for_each(self.members(), lambda connection: connection.abort())

    @property
    def _all(self) -> int:
        """How many connections there are, at the doors or behind: each takes a descriptor."""
        return self._count + self.at_doors

    def _note_seen(self, connection: Member) -> None:
        ago = self.now() - connection.intake.heard
        self._sightings.note(connection, self._seen_at(self._wall() - ago).decode())

    def _watch_unread(self, now: float) -> None:
        if self._poller is None:
            return
        unread = [member for member in self._passing if not member.intake.is_reading]
        if self.paused and now - self._paused_at > _UNHEARD:
            unread += self._open
        for connection in unread:
            if connection.intake.socket is not None:
                with isolated(connection):
                    self._poller.watch_end(connection.intake.socket)

    def _go_round(self) -> Iterator[None]:
        for connection in list(self._open):
            if connection in self._open:
                with isolated(connection):
                    self._note_seen(connection)
                    self._deadlines.check(connection, self.now(), is_paused=self.paused)
            yield


def _update_reading(connection: Member) -> None:
    connection.update_reading()


def _shutting_down() -> PeerError:
    return PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping; connect again")
