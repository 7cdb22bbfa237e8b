"""What makes a connection for each client that a port accepts."""

from typing import cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from ingest.listener.connection import Connection
from ingest.listener.fleet import Fleet
from ingest.listener.outlet import DeviceTransport
from ingest.wire.conversation import Converse


class ConnectionFactory(Factory):
    """Makes the connections of one port, which all speak one protocol."""

    noisy = False

    def __init__(self, fleet: Fleet, protocol: str, converse: Converse) -> None:
        """Make the factory.

        Args:
            fleet: which the connections join.
            protocol: the name of what they speak.
            converse: makes their conversations.
        """
        self._fleet = fleet
        self._protocol = protocol
        self._converse = converse

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002
        """Make the protocol of a new connection; beyond all limits, one that cuts it."""
        if self._fleet.is_full:
            return _Refused()
        fleet = self._fleet
        connection = Connection(fleet, self._protocol, self._converse, fleet.refusal())
        connection.factory = self
        return connection


class _Refused(Protocol):
    """Cuts its connection, which was accepted before the port heard that it is to accept no more.

    A factory that TLS wraps can't have None for that.
    """

    def connectionMade(self) -> None:
        cast(DeviceTransport, self.transport).abortConnection()
