"""What the `ingest` command may ask of a running listener."""

from collections.abc import Callable

from orjson import Fragment, dumps
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorUNIX
from twisted.internet.task import cooperate

from ingest.journal.writer import HOLD
from ingest.layout import Layout
from ingest.ops.control import Command, ControlError, ControlSocket
from ingest.ops.status import Latencies, Summary
from ingest.service.parts import Connections, Dials, Records
from ingest.service.ports import Ports
from ingest.service.settings import Settings
from ingest.service.snapshot import Snapshots


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
        reactor: IReactorUNIX,
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
            "summary": self._snapshots.summary,
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
        journal = self._records.journal
        done: Deferred[object] = Deferred(lambda _: journal.release_hold())
        journal.hold(lambda: done.callback(HOLD))
        return done

    def _refuse_if_held(self) -> None:
        if self._records.journal.hold_ends_in:
            raise ControlError("the log is held: `ingest release` lets it be written again")
