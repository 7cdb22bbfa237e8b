"""The services that a listener is made of; see `tree` for their order."""

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, cast

from orjson import Fragment, dumps
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.internet.task import LoopingCall, cooperate
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel

from ingest.devices.registry import Registry, RegistryError
from ingest.devices.watched import WatchedRegistry
from ingest.journal.events import Event, Rotated
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.measures import Measures
from ingest.journal.writer import HOLD
from ingest.layout import Layout
from ingest.listener.admission import REFUSALS, Admission, Port
from ingest.listener.authentication import Authenticator
from ingest.listener.dialer import Dial, DialCounts, Dialer
from ingest.listener.doors import Door, IReactorPorts, ProxyDoors, describe, listen
from ingest.listener.factory import ConnectionFactory
from ingest.listener.fleet import Fleet, Parts
from ingest.listener.hangups import Hangups
from ingest.listener.incidents import NO_PROXY_HEADER
from ingest.listener.poller import IDescriptorReactor, Poller
from ingest.listener.shares import Shares
from ingest.listener.sightings import Sighting
from ingest.log.chunks import recent_chunks
from ingest.ops.control import Command, ControlError, ControlSocket
from ingest.ops.status import Latencies, Summary
from ingest.service.process import FolderLock, raise_file_limit
from ingest.service.settings import Settings
from ingest.service.snapshot import Snapshots
from ingest.wire.conversation import Converse

DRAIN = 10.0
"""Seconds that stopping may take: for frames to become durable and devices to hear of it."""
_CHUNKED = "forward"
"""The protocol whose clients send chunks."""
_DRAIN_SWEEP = 0.5
_ROUND = 15.0  # seconds between two rounds at most, each of which notes who was seen


class IListenerReactor(IReactorCore, IReactorFromThreads, IDescriptorReactor, IReactorPorts):
    """What a listener needs of a reactor."""


class Folder(Service):
    """The data folder: made where it is missing, and locked while we run."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def startService(self) -> None:
        """Make it and lock it.

        Raises:
            StartError: another listener has it.
            OSError: it can't be made.
        """
        raise_file_limit()
        self._layout.create()
        self._lock = FolderLock(self._layout)
        super().startService()

    def stopService(self) -> None:
        """Let go of it."""
        super().stopService()
        self._lock.release()


class Devices(Service):
    """The registry of devices, and the threads that check their tokens."""

    registry: Registry
    authenticator: Authenticator

    def __init__(self, layout: Layout, reactor: IReactorFromThreads) -> None:
        self._path = layout.devices
        self._reactor = reactor

    def startService(self) -> None:
        """Open the registry.

        Raises:
            RegistryError: it can't be opened.
        """
        self.registry = WatchedRegistry(self._path)
        self.authenticator = Authenticator(self.registry, self._reactor)
        self.authenticator.start()
        super().startService()

    def stopService(self) -> None:
        """Close it."""
        super().stopService()
        self.authenticator.stop()
        self.registry.close()

    def record_seen(self, seen: Collection[Sighting]) -> None:
        """Note who was seen; may be called in another thread, and takes as long as the disk."""
        if seen:
            # A full disk is the journal's to tell of; who is seen will be noted the next time.
            # The registry is this thread's own.
            with suppress(RegistryError), Registry(self._path, make=False) as registry:
                registry.record_seen(seen)


class Records(Service):
    """The journal.

    Attributes:
        rotations: how many files it has closed.
    """

    journal: FileJournal
    fleet: Fleet

    def __init__(
        self,
        layout: Layout,
        policy: JournalPolicy,
        measures: Measures,
        reactor: IReactorFromThreads,
    ) -> None:
        self.rotations = 0
        self._layout = layout
        self._policy = policy
        self._measures = measures
        self._reactor = reactor
        self._log = Logger(namespace="ingest.journal")

    def startService(self) -> None:
        """Recover the log, and begin to write.

        Raises:
            OSError: the log can't be read, mended or made.
            sqlite3.Error: `positions.db` can't be made.
        """
        self.journal = FileJournal(
            self._layout,
            self._policy,
            self._reactor.callFromThread,
            self,
            self._report,
            measures=self._measures,
        )
        self.journal.start()
        super().startService()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Write what is left; fires when the files are closed."""
        yield maybeDeferred(super().stopService)
        yield deferToThread(self.journal.close)
        self._log.info("stopped: all acknowledged frames are on disk")

    def close(self) -> None:
        """Close the files at once, where the start of a later service has failed."""
        if self.running:
            super().stopService()
            self.journal.close()

    def pause(self) -> None:
        """See `FlowControl.pause`."""
        self.fleet.pause()

    def resume(self) -> None:
        """See `FlowControl.resume`."""
        self.fleet.resume()

    def _report(self, event: Event) -> None:
        self.rotations += isinstance(event, Rotated)
        level = LogLevel.warn if event.is_warning else LogLevel.info
        self._log.emit(level, "{event}", event=event)


class Connections(Service):
    """The fleet of connections."""

    fleet: Fleet

    def __init__(
        self,
        layout: Layout,
        devices: Devices,
        records: Records,
        admission: Admission,
        reactor: IListenerReactor,
    ) -> None:
        self._layout = layout
        self._devices = devices
        self._records = records
        self._admission = admission
        self._reactor = reactor
        self._next_round = 0.0

    def startService(self) -> None:
        """Make the fleet, which has no connections yet."""
        devices = self._devices
        self._hangups, self._poller = Hangups(self._reactor), Poller(self._reactor)
        parts = Parts(
            self._reactor,
            devices.registry,
            devices.authenticator,
            self._admission,
            self._hangups,
            self._poller,
        )
        self.fleet = self._records.fleet = Fleet(parts)
        self.fleet.journal = self._records.journal
        self.fleet.shares = Shares(self._records.journal)
        super().startService()

    def remember_chunks(self) -> None:
        """Read from the end of the log which chunks it holds, for a protocol that has some.

        Raises:
            OSError: the log can't be read.
        """
        self.fleet.load_chunks(recent_chunks(self._layout.log_folder))

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Make all that was accepted durable, say so, and close; takes `DRAIN` seconds at most."""
        yield maybeDeferred(super().stopService)
        sweep = LoopingCall(self.fleet.check_deadlines, _DRAIN_SWEEP)
        sweep.clock = self._reactor
        sweep.start(_DRAIN_SWEEP)
        deadline = self._reactor.callLater(DRAIN, self.fleet.abort)
        yield self.fleet.stop()
        sweep.stop()
        if deadline.active():
            deadline.cancel()
        self._hangups.close()
        self._poller.close()
        self._devices.record_seen(self.fleet.take_seen())

    def abort(self) -> None:
        """Cut all connections: wait for none of them."""
        self.fleet.abort()

    def check_deadlines(self, every: float) -> None:
        """See `Fleet.check_deadlines`."""
        self.fleet.check_deadlines(every)

    def check_revocations(self) -> None:
        """See `Fleet.check_revocations`."""
        self.fleet.check_revocations()

    def summarise(self) -> None:
        """See `Incidents.summarise`."""
        self.fleet.incidents.summarise()

    @inlineCallbacks
    def go_round_if_due(self) -> Generator[Deferred[Any], Any, None]:
        """See `Fleet.go_round`; how often is a matter of the idle time-out."""
        if self.fleet.now() < self._next_round:
            return
        self._next_round = self.fleet.now() + min(_ROUND, self.fleet.idle_timeout / 4 or _ROUND)
        yield self.fleet.go_round()
        yield deferToThread(self._devices.record_seen, self.fleet.take_seen())


class Entrance(NamedTuple):
    """Where connections come in, and what makes their conversations."""

    protocol: str
    converse: Converse
    door: Door


class Ports(Service):
    """The ports where connections are accepted."""

    def __init__(
        self, entrances: Sequence[Entrance], connections: Connections, reactor: IReactorTime
    ) -> None:
        self._entrances = entrances
        self._connections = connections
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._proxies: list[ProxyDoors] = []

    def startService(self) -> None:
        """Begin to accept connections.

        Raises:
            DoorError: the system does not let us.
        """
        fleet = self._connections.fleet
        if any(entrance.protocol == _CHUNKED for entrance in self._entrances):
            self._connections.remember_chunks()
        for protocol, converse, door in self._entrances:
            is_wrapped = door.is_proxied or door.is_tls
            factory: IProtocolFactory = ConnectionFactory(
                fleet, protocol, converse, is_wrapped=is_wrapped
            )
            if door.is_proxied:
                factory = self._behind_proxies(factory, is_wrapped=door.is_tls)
            self._ports.append(listen(door, factory))
        fleet.admission.ports = [cast(Port, port) for port in self._ports]
        super().startService()

    def _behind_proxies(self, factory: IProtocolFactory, *, is_wrapped: bool) -> IProtocolFactory:
        fleet = self._connections.fleet

        def room() -> int:
            limit = fleet.admission.limits.max_connections + REFUSALS
            return limit - len(fleet) - fleet.at_doors

        def changed() -> None:
            fleet.count_at_doors(sum(map(len, self._proxies)))

        proxies = ProxyDoors(
            factory,
            self._reactor,
            fleet.handshake_timeout,
            room,
            changed,
            partial(fleet.incidents.note, NO_PROXY_HEADER, ""),
            is_wrapped=is_wrapped,
        )
        self._proxies.append(proxies)
        return proxies

    def stopService(self) -> Deferred[Any]:
        """Accept no more."""
        super().stopService()
        return DeferredList([maybeDeferred(port.stopListening) for port in self._ports])

    @property
    def addresses(self) -> list[str]:
        """Where connections are accepted, for people."""
        return [describe(port) for port in self._ports]

    def set_timeout(self, seconds: float) -> None:
        """Let a PROXY header take so long, for later connections."""
        for proxies in self._proxies:
            proxies.timeout = seconds


class Dials(Service):
    """Calls the devices that only answer."""

    def __init__(
        self, dials: Sequence[Dial], connections: Connections, reactor: IReactorTime
    ) -> None:
        self._dials = dials
        self._connections = connections
        self._reactor = reactor

    def startService(self) -> None:
        """Begin to call them.

        Raises:
            DialError: an endpoint makes no sense.
        """
        self._dialer = Dialer(self._connections.fleet, self._reactor)
        self._dialer.dial(self._dials)
        super().startService()

    def stopService(self) -> None:
        """Call nobody any more."""
        super().stopService()
        self._dialer.stop()

    def dial(self, dials: Sequence[Dial]) -> None:
        """See `Dialer.dial`."""
        self._dialer.dial(dials)

    def counts(self) -> DialCounts:
        """See `Dialer.counts`."""
        return self._dialer.counts()


class Control(Service):
    """Answers the `ingest` command.

    Attributes:
        settings: returns the settings in force; set before the start.
    """

    settings: Callable[[], Settings]

    def __init__(
        self,
        layout: Layout,
        connections: Connections,
        records: Records,
        ports: Ports,
        dials: Dials,
        latencies: Latencies,
        reactor: IListenerReactor,
    ) -> None:
        self._dials = dials
        self._latencies = latencies
        self._layout = layout
        self._connections = connections
        self._records = records
        self._ports = ports
        self._reactor = reactor

    def startService(self) -> None:
        """Begin to answer.

        Raises:
            CannotListenError: the socket can't be made.
        """
        self._snapshots = Snapshots(
            self._connections.fleet,
            self._records.journal,
            self.settings,
            self._ports.addresses,
            lambda: self._records.rotations,
            self._dials.counts,
            self._latencies,
        )
        commands: dict[str, Command] = {
            "connections": self._list_connections,
            "hold": self._hold,
            "incidents": self._list_incidents,
            "release": self._records.journal.release_hold,
            "rotate": self._rotate,
            "status": self._snapshots.take,
        }
        self._socket = ControlSocket(self._reactor, self._layout.control, commands)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Answer no more."""
        super().stopService()
        return self._socket.stop()

    def sample(self) -> None:
        """See `Snapshots.sample`."""
        self._snapshots.sample()

    def summary(self) -> Summary:
        """See `Snapshots.summary`."""
        return self._snapshots.summary()

    def health(self) -> tuple[str, str]:
        """See `Snapshots.health`."""
        return self._snapshots.health()

    def _list_connections(self) -> Deferred[object]:
        listed: list[Fragment] = []
        # A few at a time, each written at once, so that no device has to wait for thousands.
        each = map(Fragment, map(dumps, self._snapshots.connections()))
        return cooperate(map(listed.append, each)).whenDone().addCallback(lambda _: listed)

    def _list_incidents(self) -> object:
        newest = self._connections.fleet.incidents.newest()
        return [incident._asdict() for incident in newest]

    def _rotate(self) -> Deferred[object]:
        self._refuse_if_held()
        done: Deferred[object] = Deferred()
        self._records.journal.rotate(lambda closed: done.callback(closed and closed.name))
        return done

    def _hold(self) -> Deferred[object]:
        self._refuse_if_held()
        done: Deferred[object] = Deferred()
        self._records.journal.hold(lambda: done.callback(HOLD))
        return done

    def _refuse_if_held(self) -> None:
        if self._records.journal.hold_ends_in:
            raise ControlError("the log is held: `ingest release` lets it be written again")
