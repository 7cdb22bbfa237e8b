"""A fleet with real parts, a clock that a test turns, and transports in memory."""

import queue
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorFromThreads
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.journal.memory import MemoryJournal
from ingest.listener.admission import Admission, Limits
from ingest.listener.authentication import Authenticator
from ingest.listener.connection import Connection
from ingest.listener.factory import ConnectionFactory
from ingest.listener.fleet import Fleet, Parts
from ingest.listener.shares import Shares
from ingest.wire.ingest1.session import make_converse
from ingest.wire.options import Options
from tests.support.waiting import PATIENCE

TOKEN = "s3cr3t"
BEGIN = 1_795_347_540.0  # 2026-11-22T11:39:00Z
_VERIFIER = derive(TOKEN)

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 50123)
ELSEWHERE = IPv4Address("TCP", "192.0.2.1", 50123)


class Turns:
    """The part of a reactor that takes calls from threads; a test lets them come."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]]
        self._calls = queue.SimpleQueue()

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        self._calls.put((call, arguments))

    def run_one(self) -> None:
        """Wait for the next call, and make it."""
        call, arguments = self._calls.get(timeout=PATIENCE)
        call(*arguments)


class Transport(StringTransport):
    """A transport that tells its protocol nothing by itself.

    Attributes:
        is_closed: whether our side is closed; `disconnecting` says that all of it is to be.
    """

    is_closed = False

    def read(self) -> bytes:
        """Take what was sent since the last call."""
        data: bytes = self.value()
        self.clear()
        return data

    def loseWriteConnection(self) -> None:
        self.is_closed = True

    @property
    def is_paused(self) -> bool:
        return bool(self.producerState == "paused")


class Acknowledger:
    """Writes acknowledgements.

    Attributes:
        asked: the numbers it was asked for.
        silent_at: the number of which it says nothing.
    """

    def __init__(self, silent_at: int = 0) -> None:
        self.asked: list[int] = []
        self.silent_at = silent_at

    def acknowledgement(self, seq: int) -> bytes:
        self.asked.append(seq)
        return b"" if seq == self.silent_at else b"ACK %d\n" % seq


class Listener:
    """Everything of a listener but its sockets, its disk and its time."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = BEGIN
        self.registry = Registry(":memory:")
        self.turns = Turns()
        reactor = cast(IReactorFromThreads, self.turns)
        self.authenticator = Authenticator(self.registry, reactor)
        self.authenticator.start()
        self.fleet = Fleet(
            Parts(
                self.clock,
                self.registry,
                self.authenticator,
                Admission(Limits(**limits)),
                now=self.clock.seconds,
                wall=self.clock.seconds,
            )
        )
        self.journal = MemoryJournal()
        self.fleet.journal = self.journal
        self.fleet.shares = Shares(self.journal)
        self.factory = ConnectionFactory(self.fleet, "ingest/1", make_converse(Options()))

    def close(self) -> None:
        """Stop the threads."""
        self.authenticator.stop()
        self.registry.close()

    def add(self, *names: str) -> None:
        """Register devices; their token is `TOKEN`."""
        self.registry.add_many((name, _VERIFIER, "") for name in names)

    def connect(self, peer: IAddress = LOOPBACK) -> tuple[Connection, Transport]:
        """Let a device connect."""
        protocol, transport = self.factory.buildProtocol(peer), Transport(peerAddress=peer)
        assert isinstance(protocol, Connection)
        protocol.makeConnection(transport)
        return protocol, transport

    def log_in(self, name: str = "a") -> tuple[Connection, Transport]:
        """Let a device connect and prove its name with PLAIN; forget what it was told."""
        if self.registry.get(name) is None:
            self.add(name)
        protocol, transport = self.connect()
        self.hear(protocol, plain(name))
        if not transport.value():
            self.turns.run_one()  # the token is not among those that were good before
        transport.clear()
        return protocol, transport

    def hear(self, protocol: Connection, data: bytes) -> None:
        """Let a protocol receive data, and have its turn."""
        protocol.dataReceived(data)
        self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        """Turn the clock, and look at the times as the service does."""
        self.fleet.go_round()
        self.clock.advance(seconds)
        self.fleet.check_deadlines(seconds)


def plain(name: str, token: str = TOKEN, ack: str = "") -> bytes:
    """Write the handshake of PLAIN, in text."""
    option = f" ack={ack}" if ack else ""
    return b"AUTH PLAIN " + b64encode(f"\0{name}\0{token}".encode()) + f"{option}\n".encode()


def lose(protocol: Connection, reason: type[Exception] = ConnectionDone) -> None:
    """Let a connection be lost."""
    protocol.connectionLost(Failure(reason()))
