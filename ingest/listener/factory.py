"""What makes a connection for each client that a port accepts."""

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from ingest.listener.connection import Connection
from ingest.listener.fleet import Fleet
from ingest.wire.conversation import Converse


class ConnectionFactory(Factory):
    """Makes the connections of one port, which all speak one protocol."""

    noisy = False

    def __init__(self, fleet: Fleet, converse: Converse) -> None:
        """Make the factory.

        Args:
            fleet: which the connections join.
            converse: makes their conversations.
        """
        self._fleet = fleet
        self._converse = converse

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # noqa: ARG002
        """Make the protocol of a new connection."""
        connection = Connection(self._fleet, self._converse, self._fleet.refusal())
        connection.factory = self
        return connection
