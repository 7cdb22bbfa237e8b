"""All connections of a listener: who is there, and what is done with them together."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ingest.devices.registry import Registry, RegistryError
from ingest.journal.interface import Journal
from ingest.listener.admission import Admission
from ingest.listener.authentication import Authenticator
from ingest.listener.books import Account, Books, Delivery
from ingest.listener.hangups import Hangups
from ingest.listener.incidents import REGISTRY_FAILED, TLS_FAILED, Incidents
from ingest.listener.pacing import SLOW, RestBetweenReads, SlowLane, Turns, cooperator
from ingest.listener.phases import Phase
from ingest.listener.poller import Poller
from ingest.listener.refusals import Refusals
from ingest.listener.sightings import Sightings
from ingest.listener.stamp import Stamper
from ingest.listener.surroundings import Member
from ingest.wire.chunks import RecentChunks
from ingest.wire.conversation import Claim, Context, Peer, Standing, host_of
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.sasl import Credentials, StoredKeys, auth_failed

_ROUND = 0.001
"""Seconds of a round at once, and twenty times as much without: nobody waits for a round."""
_ROUND_PAUSE = 20 * _ROUND
_UNHEARD = 1.0
"""Seconds without reading after which it is time to watch for devices that give up."""
_STALL = 1.0
"""Seconds between two looks at the deadlines, beyond what was agreed, that count as a stall."""
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
        hangups: hears of devices that go while nothing is read.
        poller: serves the connections' sockets; the reactor does, where there is none.
        now: the time by which deadlines are kept: seconds since some moment; never set back.
        wall: the time by which records are stamped: seconds since 1970.
        rest: rests between reads.
    """

    reactor: IReactorTime
    registry: Registry
    authenticator: Authenticator
    admission: Admission
    hangups: Hangups | None = None
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
        at_doors: how many connections wait for their PROXY header, and will join if it is good.
        paused: whether the journal takes no more for now.
        registry_health: why the registry can't be read; empty while it can.
    """

    _log = Logger(namespace="ingest.listener")

    journal: Journal
    shares: Journal

    def __init__(self, parts: Parts) -> None:
        self.admission = parts.admission
        self.books = Books()
        self.incidents = Incidents()
        self.refusals = Refusals(parts.registry.registered)
        self.at_doors = 0
        self.paused = False
        self.registry_health = ""
        self.now = parts.now
        self._wall = parts.wall
        self._reactor = parts.reactor
        self._stamp = Stamper()
        self._registry = parts.registry
        self._authenticator = parts.authenticator
        self._hangups = parts.hangups
        self._poller = parts.poller
        self._after_read = parts.rest.after_read
        self._slow = SlowLane(parts.reactor)
        self.queue_up = Turns(parts.reactor).queue_up
        self._rounds = cooperator(parts.reactor, _ROUND, pause=_ROUND_PAUSE)
        self._sightings = Sightings()
        self.take_seen = self._sightings.take
        self._seen_at = Stamper()
        self._members: set[Member] = set()
        self._passing: set[Member] = set()  # those of them that come or go
        self._open: dict[Member, None] = {}  # those that were let in
        self._chunks = RecentChunks()
        self.load_chunks = self._chunks.load
        self.chunks = self._chunks.of
        self._revocation = parts.registry.last_revocation()
        self._paused_at = 0.0
        self._paused_for = 0.0
        self._looked_at = self.now()
        self._stopped: Deferred[None] | None = None

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._members)

    # What a connection sees: see `Surroundings`.

    @property
    def handshake_timeout(self) -> float:
        """See `Surroundings.handshake_timeout`."""
        return self.admission.limits.handshake_timeout

    @property
    def idle_timeout(self) -> float:
        """See `Surroundings.idle_timeout`."""
        return self.admission.limits.idle_timeout

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
        return self.admission.refusal(len(self._members))

    def context(self, peer: Peer, refusal: PeerError | None) -> Context:
        """See `Surroundings.context`."""
        limits = self.admission.limits

        def find_keys(device: str) -> StoredKeys:
            self.admission.check(peer.host, device, self.now(), self._last_host)
            try:
                return self._authenticator.keys(device)
            except RegistryError as error:
                raise self._not_now(peer, device, error) from None

        def check_attempt(name: str) -> None:
            self.admission.check(peer.host, name, self.now(), self._last_host)

        return Context(
            peer,
            limits.max_frame,
            limits.allow_plaintext_auth,
            find_keys,
            refusal,
            check_attempt,
        )

    def add(self, connection: Member) -> None:
        """See `Surroundings.add`."""
        self.books.connections += 1
        self._members.add(connection)
        self._passing.add(connection)
        self.admission.count(self._all)
        if self._poller is not None and connection.socket is not None:
            self._poller.adopt(connection.socket)

    def check_token(self, peer: Peer, credentials: Credentials) -> Deferred[bool]:
        """See `Surroundings.check_token`."""
        self.admission.check(peer.host, credentials.device, self.now(), self._last_host)
        try:
            return self._authenticator.check(credentials)
        except RegistryError as error:
            raise self._not_now(peer, credentials.device, error) from None

    def last_revocation(self) -> int:
        """See `Surroundings.last_revocation`."""
        try:
            return self._registry.last_revocation()
        except RegistryError:
            return self._revocation  # an older mark; no key can be looked up now either

    def check_claim(self, claim: Claim, since: int) -> None:
        """See `Surroundings.check_claim`."""
        try:
            if claim.standing is Standing.PROVED:
                # The keys that proved the name may have been revoked since they were looked up.
                if claim.device in self._registry.revoked_since(since)[1]:
                    raise PeerError(ErrorCode.REVOKED, "the device was disabled or has a new token")
            elif not self._registry.may_connect(
                claim.device, unregistered=claim.standing is Standing.UNREGISTERED
            ):
                raise auth_failed()
        except RegistryError:
            raise _no_registry() from None

    def format_of(self, device: str) -> str:
        """See `Surroundings.format_of`."""
        try:
            return self._registry.format_of(device)
        except RegistryError:
            raise _no_registry() from None

    def call_later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """See `Surroundings.call_later`."""
        return self._reactor.callLater(seconds, call)

    def let_in(self, connection: Member) -> None:
        """See `Surroundings.let_in`."""
        self._passing.discard(connection)
        self._open[connection] = None
        self.incidents.handshakes[f"{connection.mechanism}/ok"] += 1
        self._note_seen(connection)

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
            if connection.claimed and error.code is not ErrorCode.SHUTTING_DOWN:
                self.refusals.note(connection.claimed, error.code)
        if error.code is ErrorCode.AUTH_FAILED:
            self.admission.failed(host, connection.claimed, self.now())
        if error.code in _UNSAID:
            self.incidents.counts[error.code] += 1
        else:
            self.incidents.note(error.code, connection.claimed, host, error.text)

    def broke(self, connection: Member, reason: str) -> None:
        """See `Surroundings.broke`."""
        self.incidents.note(TLS_FAILED, connection.claimed, connection.peer.host, reason)

    def took(self, connection: Member, size: int, begun: float) -> None:
        """See `Surroundings.took`."""
        seconds = self.now() - begun
        if seconds > SLOW:
            self._slow.enter(connection, size, seconds)
        elif size >= connection.read_size:
            connection.read_more()
        self._after_read(size)

    def remove(self, connection: Member) -> None:
        """See `Surroundings.remove`."""
        self._members.discard(connection)
        self._passing.discard(connection)
        if self._hangups is not None:
            self._hangups.forget(connection)
        self.admission.count(self._all)
        if self._stopped is not None and not self._members:
            stopped, self._stopped = self._stopped, succeed(None)
            stopped.callback(None)

    # What the journal tells: see `FlowControl`.

    def pause(self) -> None:
        """Stop reading frames from all devices."""
        self.paused = True
        self._paused_at = self.now()
        for connection in list(self._open):  # one that fails leaves
            connection.update_reading()

    def resume(self) -> None:
        """Read from all devices again.

        The first to be read from fill the journal again, so they are taken in random order: over
        a few turns all progress alike.
        """
        self.paused = False
        self._paused_for += self.now() - self._paused_at
        for connection in random.sample(list(self._open), len(self._open)):
            connection.update_reading()

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
        missed = now - self._looked_at - every
        self._looked_at = now
        if missed > _STALL:
            for connection in self._members:
                connection.forgive(missed)
        for connection in list(self._passing):
            connection.check_deadline(now)
        self._watch_unread(now)
        self.books.close_durable()

    def go_round(self) -> Deferred[Iterator[None]]:
        """Note when each device was last heard, and end the connections of those that are idle.

        It takes its time; fires when it has seen them all.
        """
        return self._rounds.coiterate(self._go_round())

    def check_revocations(self) -> None:
        """Cut the devices whose keys were revoked since the last call.

        While the registry can't be read, those that are connected stay so, and nobody is let in.
        """
        try:
            mark, names = self._registry.revoked_since(self._revocation)
            proved = self._proved(names)
            revoked = [connection for connection in proved if self._is_outdated(connection)]
        except RegistryError as error:
            self._tell_registry(str(error))
            return
        self._revocation = mark
        self._tell_registry("")
        for connection in revoked:
            connection.fail(
                PeerError(ErrorCode.REVOKED, "the device was disabled, removed or re-keyed")
            )

    def _proved(self, names: Collection[str]) -> list[Member]:
        """Return the connections that have proved one of some names, and may wait for a lease."""
        if not names:
            return []
        wanted = frozenset(names)
        held = [each for each in self._open if each.device in wanted]
        claiming = [each for each in self._passing if each.phase is Phase.CLAIMING]
        return held + [each for each in claiming if each.claimed in wanted]

    def _is_outdated(self, connection: Member) -> bool:
        """Tell whether a device that was revoked has proved its name by keys from before.

        It may have come since, with its new token: to cut it would tell it to stay away.
        """
        since = connection.revocations
        if since <= self._revocation:
            return True
        return connection.claimed in self._registry.revoked_since(since)[1]

    def _tell_registry(self, health: str) -> None:
        if health == self.registry_health:
            return
        self.registry_health = health
        if health:
            self._log.error("{health}; nobody is let in meanwhile", health=health)
        else:
            self._log.info("the registry can be read again")

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
        return iter(self._members)

    def devices(self) -> Collection[Member]:
        """Return the connections of devices that were let in."""
        return self._open

    def stop(self) -> Deferred[None]:
        """Say good-bye to all; fires when the last connection is gone."""
        if not self._members:
            return succeed(None)
        self._stopped = Deferred()
        for connection in list(self._members):
            connection.fail(_shutting_down())
        return self._stopped

    def abort(self) -> None:
        """Cut all connections that are left."""
        for connection in list(self._members):
            connection.abort()

    def _last_host(self, device: str) -> str:
        try:
            found = self._registry.get(device)
        except RegistryError:
            return ""  # whoever looks up its keys is told
        return "" if found is None or found.last_peer is None else host_of(found.last_peer)

    @property
    def _all(self) -> int:
        """How many connections there are, at the doors or behind: each takes a descriptor."""
        return len(self._members) + self.at_doors

    def _note_seen(self, connection: Member) -> None:
        ago = self.now() - connection.heard
        self._sightings.note(connection, self._seen_at(self._wall() - ago).decode())

    def _watch_unread(self, now: float) -> None:
        if self._hangups is None:
            return
        self._hangups.unwatch_read()
        unread = [member for member in self._passing if not member.is_reading]
        if self.paused and now - self._paused_at > _UNHEARD:
            unread += self._open
        for connection in unread:
            self._hangups.watch(connection)

    def _go_round(self) -> Iterator[None]:
        for connection in list(self._open):
            if connection in self._open:
                self._note_seen(connection)
                connection.check_deadline(self.now())
            yield

    def _not_now(self, peer: Peer, device: str, error: RegistryError) -> PeerError:
        self.incidents.note(REGISTRY_FAILED, device, peer.host, str(error))
        return _no_registry()


def _no_registry() -> PeerError:
    return PeerError(ErrorCode.BUSY, "devices can't be looked up now; try again later")


def _shutting_down() -> PeerError:
    return PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping; connect again")
