"""The services that a listener is made of; see `tree` for their order."""

import sqlite3
from collections.abc import Collection, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
)
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel

from ingest.devices.registry import Registry, RegistryError
from ingest.devices.watched import WatchedRegistry
from ingest.journal.events import Event, Rotated
from ingest.journal.file import FileJournal, JournalPolicy
from ingest.journal.measures import Measures
from ingest.layout import Layout
from ingest.listener.admission import Admission
from ingest.listener.authentication import Authenticator
from ingest.listener.dialer import Dial, DialCounts, Dialer
from ingest.listener.doors import IReactorPorts
from ingest.listener.fleet import Fleet, Parts
from ingest.listener.names import HostNames
from ingest.listener.poller import IDescriptorReactor, Poller
from ingest.listener.shares import Shares
from ingest.listener.sightings import Sighting
from ingest.log.chunks import recent_chunks
from ingest.service.housekeeping import Chore, Housekeeping
from ingest.service.process import FolderLock, StartError, raise_file_limit

DRAIN = 10.0
"""Seconds that stopping may take: for frames to become durable and devices to hear of it."""
_DRAIN_SWEEP = 0.5
_CUT = 1.0
"""Seconds after that in which the last connections are lost, unless a fault of ours shows."""
_ROUND = 15.0  # seconds between two rounds at most, each of which notes who was seen


class IListenerReactor(
    IReactorCore,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IDescriptorReactor,
    IReactorPorts,
):
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
            StartError: `positions.db` can't be made or read.
        """
        try:
            self.journal = FileJournal(
                self._layout,
                self._policy,
                self._reactor.callFromThread,
                self,
                self._report,
                measures=self._measures,
            )
        except sqlite3.Error as error:  # which names no file
            raise StartError(f"{self._layout.positions}: {error}") from error
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
        self._poller = Poller(self._reactor)
        parts = Parts(
            self._reactor,
            devices.registry,
            devices.authenticator,
            self._admission,
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
        """Make all that was accepted durable, say so, and close; takes `DRAIN` seconds at most.

        Raises:
            TimeoutError: a second later there are connections that seem not to be lost.
        """
        yield maybeDeferred(super().stopService)
        look = partial(self.fleet.check_deadlines, _DRAIN_SWEEP)
        sweep = Housekeeping(self._reactor, [Chore("deadlines", _DRAIN_SWEEP, look)])
        sweep.startService()
        deadline = self._reactor.callLater(DRAIN, self.fleet.abort)
        try:
            yield self.fleet.stop().addTimeout(DRAIN + _CUT, self._reactor)
        finally:
            sweep.stopService()
            if deadline.active():
                deadline.cancel()
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
        """See `Incidents.summarise` and `Admission.summarise`."""
        self.fleet.incidents.summarise()
        self.fleet.admission.summarise()

    @inlineCallbacks
    def go_round_if_due(self) -> Generator[Deferred[Any], Any, None]:
        """See `Fleet.go_round`; how often is a matter of the idle time-out."""
        if self.fleet.now() < self._next_round:
            return
        self._next_round = self.fleet.now() + min(
            _ROUND, self.fleet.admission.limits.idle_timeout / 4 or _ROUND
        )
        yield self.fleet.go_round()
        yield deferToThread(self._devices.record_seen, self.fleet.take_seen())


class Dials(Service):
    """Calls the devices that only answer."""

    def __init__(
        self, dials: Sequence[Dial], connections: Connections, reactor: IListenerReactor
    ) -> None:
        self._dials = dials
        self._connections = connections
        self._reactor = reactor

    def startService(self) -> None:
        """Begin to call them.

        Raises:
            DialError: an endpoint makes no sense.
        """
        self._reactor.installNameResolver(HostNames(self._reactor))
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
