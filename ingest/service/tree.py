"""The listener as a tree of services: what stands on what, and so starts and stops in which order.

Folder        the data folder is there, and is ours alone
Web           metrics and health over HTTP, if they are wanted: until all else has stopped
Devices       the registry, and the threads that check tokens
Records       the journal: recovers the log, and writes it
Connections   the fleet; when it stops, all that was accepted becomes durable and is told
Ports         where connections are accepted
Dials         the devices that are called, since they only answer
Housekeeping  what is done again and again
Control       answers the `ingest` command
Signals       SIGHUP, SIGINT, SIGTERM
Systemd       says that all is there
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger

from ingest.devices.registry import RegistryError
from ingest.journal.measures import Measures
from ingest.layout import Layout
from ingest.listener.admission import Admission
from ingest.listener.dialer import DialError, check_dials
from ingest.listener.doors import DoorError
from ingest.listener.incidents import KINDS
from ingest.log.files import ACTIVE
from ingest.ops.metrics import Metrics
from ingest.ops.notify import Notifier
from ingest.ops.status import Latencies
from ingest.service.control import Control
from ingest.service.housekeeping import Chore, Housekeeping
from ingest.service.inorder import InOrder
from ingest.service.parts import (
    Connections,
    Devices,
    Dials,
    Folder,
    IListenerReactor,
    Records,
)
from ingest.service.ports import Ports, entrance
from ingest.service.process import StartError, spare_the_collector
from ingest.service.reload import changes
from ingest.service.settings import Settings, SettingsError
from ingest.service.signals import Signals
from ingest.service.snapshot import SAMPLES
from ingest.service.systemd import Systemd
from ingest.service.web import View, Web

_OFTEN = 0.25  # seconds between two looks at what was revoked, and at who takes too long
_ROUNDS = 1.0  # seconds between two looks whether it is time for a round
_SUMMARY = 60.0  # seconds between two summaries of what went wrong with connections


class ListenerService(InOrder):
    """A listener. Its services are made here, and hear of each other by what they are given.

    Attributes:
        make_observer: makes what writes the log of the process; twistd does if it is None.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: IListenerReactor,
        reread: Callable[[], Settings],
        *,
        stderr: IO[str] | None = None,
    ) -> None:
        """Make the services; nothing is opened yet.

        Args:
            settings: by which to start.
            reactor: whose sockets, threads and clock to use.
            reread: gives the settings afresh, for SIGHUP; may raise SettingsError.
            stderr: where to say why the start fails, for whoever waits for it in another process;
                None while this is the process that was started.

        Raises:
            StartError: an endpoint makes no sense.
        """
        super().__init__()
        self.setName("ingest")
        self._settings = settings
        self._reread = reread
        self._stderr = stderr
        self.make_observer: Callable[[], ILogObserver] | None = None
        self._log = Logger(namespace="ingest")
        try:
            entrances = [entrance(listen, reactor) for listen in settings.listen]
            check_dials(settings.dial, reactor)
        except (DoorError, DialError) as error:
            raise StartError(str(error)) from None
        self._reactor = reactor
        self._layout = Layout(settings.data)
        self._admission = Admission(settings.limits())
        self._devices = Devices(self._layout, reactor)
        metrics = Metrics((each.protocol for each in entrances), KINDS)
        latencies = Latencies()
        measures = _measures(metrics, latencies)
        self._records = Records(self._layout, settings.journal_policy(), measures, reactor)
        self._connections = Connections(
            self._layout, self._devices, self._records, self._admission, reactor
        )
        self._ports = Ports(entrances, self._connections, reactor)
        self._dials = Dials(settings.dial, self._connections, reactor)
        control = Control(
            self._layout,
            self._connections,
            self._records,
            self._ports,
            self._dials,
            latencies,
            reactor,
        )
        control.settings = lambda: self._settings
        view = View(control.summary, control.health, lambda: bool(self.running))
        self._systemd = Systemd(Notifier(os.environ), view.summary, view.health, reactor)
        self._web = None
        if settings.http:
            self._web = Web(settings.http, settings.http_token_file, view, metrics, reactor)
        for service in (
            Folder(self._layout),
            *([] if self._web is None else [self._web]),
            self._devices,
            self._records,
            self._connections,
            self._ports,
            self._dials,
            Housekeeping(reactor, self._chores(control)),
            control,
            Signals(reactor, self.reload, self._connections.abort),
            self._systemd,
        ):
            service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """See `IService`; twistd looks at the application for an observer of its log."""
        super().setServiceParent(parent)
        if self.make_observer is not None:
            parent.setComponent(ILogObserver, self.make_observer())

    def startService(self) -> None:
        """Open the files, bind the ports and begin.

        Raises:
            SystemExit: something can't be opened; a line on stderr says what and why.
            StartError: the same, where another process waits for us.
        """
        try:
            super().startService()
        except (StartError, DoorError, RegistryError, CannotListenError, OSError) as error:
            self._records.close()
            # twistd sends sys.stderr to its log; this line is for who started it.
            line = f"ingest: can't start: {_in_words(error, self._layout.data)}"
            print(line, file=self._stderr or sys.__stderr__, flush=True)
            if self._stderr is not None:  # the process that waits takes no SystemExit for an answer
                raise StartError("see above") from None
            raise SystemExit(1) from None
        if self._stderr is not None:
            self._stderr.close()
        self._announce()
        spare_the_collector()

    def reload(self) -> None:
        """Reopen the log, read the settings again, and say what has changed and what has not."""
        with self._systemd.reloading():
            self._reload()

    def _reload(self) -> None:
        self._records.journal.reopen()
        try:
            settings = self._reread()
            check_dials(settings.dial, self._reactor)
        except (SettingsError, DialError) as error:
            self._log.error("the settings stay as they are: {error}", error=str(error))
            return
        for line in changes(self._settings, settings):
            self._log.info("{line}", line=line)
        self._settings = settings.with_those_of_the_start(self._settings)
        self._admission.limits = settings.limits()
        self._dials.dial(settings.dial)
        self._ports.set_timeout(settings.handshake_timeout)
        self._records.journal.set_policy(settings.journal_policy())
        if self._web is not None:
            self._web.reload()
        self._log.info("the log is reopened and the settings are read again")

    def _chores(self, control: Control) -> list[Chore]:
        fleet = self._connections
        return [
            Chore("deadlines", _OFTEN, partial(fleet.check_deadlines, _OFTEN)),
            Chore("revocations", _OFTEN, fleet.check_revocations),
            Chore("rounds", _ROUNDS, fleet.go_round_if_due),
            Chore("summaries", _SUMMARY, fleet.summarise),
            Chore("rates", SAMPLES, control.sample),
            *self._systemd.chores(),
        ]

    def _announce(self) -> None:
        for address in self._ports.addresses:
            self._log.info("listening on {address}", address=address)
        self._log.info("logging to {path}", path=str(self._layout.log_folder / ACTIVE))
        count = self._devices.registry.count()
        self._log.info(
            "{devices} may connect", devices="1 device" if count == 1 else f"{count} devices"
        )
        if not count:
            self._log.info(
                "add one with: ingest --data {data} device add NAME", data=str(self._layout.data)
            )


def _measures(metrics: Metrics, latencies: Latencies) -> Measures:
    def note_ack(seconds: float) -> None:
        metrics.ack_seconds.observe(seconds)
        latencies.observe(seconds)

    return Measures(
        metrics.commit_bytes.observe,
        metrics.commit_seconds.observe,
        metrics.sync_seconds.observe,
        note_ack,
    )


def _in_words(error: Exception, data: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or data}: {error.strerror}"
    return str(error)
