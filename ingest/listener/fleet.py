"""What all connections share: the limits, the clock, the journal's pressure, the books."""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Cooperator
from twisted.logger import Logger

from ingest.devices.registry import Registry
from ingest.journal.interface import Journal
from ingest.listener.authentication import Authenticator, FailureLimit
from ingest.listener.books import Account, Books
from ingest.listener.connection import DeviceProtocol
from ingest.listener.outlet import DeviceTransport
from ingest.listener.pacing import ReadCoalescer
from ingest.listener.stamp import Stamper
from ingest.service.settings import Settings
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.ingest1.msgpack_dialect import QuickDecoder
from ingest.wire.ingest1.session import Rules
from ingest.wire.sasl import Credentials

_REFUSALS = 256
"""Connections beyond the limit that are told so; any more are closed without a word."""
_HANDSHAKES = 0.003
"""Seconds of handshakes at once. Each costs as much as many frames: were those of a fleet that
reconnects done as they come, the devices that send would wait for all of them."""
_ROUND = 0.001
"""Seconds of a round at once, and twenty times as much without: nobody waits for a round."""
_ROUND_PAUSE = 20 * _ROUND


class Hub(Factory):
    """The factory of device connections, and what they have in common.

    Attributes:
        settings: the limits; `set_settings` replaces them.
        rules: what all sessions share.
        journal: where records go; set before the first connection.
        books: what came and what became of it.
        paused: whether the journal takes no more for now.
    """

    noisy = False
    journal: Journal

    def __init__(
        self,
        settings: Settings,
        clock: IReactorTime,
        registry: Registry,
        authenticator: Authenticator,
    ) -> None:
        self.books = Books()
        self.paused = False
        self.now = clock.seconds
        self.stamp = Stamper()
        self.count_read = ReadCoalescer().count
        self.revocations = registry.last_revocation
        self._registry = registry
        self._authenticator = authenticator
        self._failures = FailureLimit()
        self._log = Logger()
        self._connections: set[DeviceProtocol] = set()
        self._passing: set[DeviceProtocol] = set()  # those of them that come or go
        self._devices: dict[str, DeviceProtocol] = {}
        self._queue: deque[DeviceProtocol] = deque()  # of handshakes
        self._seen: dict[str, tuple[str, str, str]] = {}
        self._seen_at = Stamper()
        self._handshakes = _cooperator(clock, _HANDSHAKES, pause=0)
        self._rounds = _cooperator(clock, _ROUND, pause=_ROUND_PAUSE)
        self._revocation = registry.last_revocation()
        self._stopped: Deferred[None] | None = None
        self.settings = settings
        self.rules = Rules(settings.max_frame, authenticator.keys, QuickDecoder())

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(self._connections)

    def set_settings(self, settings: Settings) -> None:
        """Go by other limits from now on; a session keeps the `max_frame` it was told."""
        self.settings = settings
        self.rules = replace(self.rules, max_frame=settings.max_frame)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002
        """Make the protocol of a new connection; beyond all limits, one that closes it."""
        self.books.connections += 1
        limit = self.settings.max_connections
        if len(self._connections) >= limit + _REFUSALS:
            self.books.errors[ErrorCode.BUSY] += 1
            return _Refused()
        refusal = None
        if self._stopped is not None:
            refusal = _shutting_down()
        elif len(self._connections) >= limit:
            refusal = PeerError(ErrorCode.BUSY, "too many connections; try again later")
        protocol = DeviceProtocol(self, refusal)
        protocol.factory = self
        return protocol

    def refusal_of(self, host: str) -> PeerError | None:
        """Return why devices at `host` are not let in for now; None if they are."""
        if not self._failures.is_exceeded(host, self.now()):
            return None
        return PeerError(ErrorCode.BUSY, "too many failed attempts from your address")

    # What connections tell.

    def add(self, connection: DeviceProtocol) -> None:
        """Take a new connection."""
        self._connections.add(connection)
        self._passing.add(connection)
        if self.paused:
            connection.update_reading()

    def queue_up(self, connection: DeviceProtocol) -> None:
        """Take that a handshake has something to go on with; it will be told when."""
        if not self._queue:
            self._handshakes.coiterate(self._serve_queue())
        self._queue.append(connection)

    def remove(self, connection: DeviceProtocol) -> None:
        """Forget a connection that is lost."""
        self._connections.discard(connection)
        self._passing.discard(connection)
        if self._stopped is not None and not self._connections:
            stopped, self._stopped = self._stopped, succeed(None)
            stopped.callback(None)

    def let_in(self, connection: DeviceProtocol) -> None:
        """Take that a device has proved who it is and holds its lease."""
        self._passing.discard(connection)
        self._devices[connection.device] = connection
        self._saw(connection)

    def left(self, connection: DeviceProtocol) -> None:
        """Take that a device gives its lease back."""
        self._passing.add(connection)
        if self._devices.get(connection.device) is connection:
            del self._devices[connection.device]
        self._saw(connection)
        if connection.visit is not None:
            self.books.close(connection.visit)

    def ended(self, connection: DeviceProtocol, error: PeerError) -> None:
        """Count why a conversation ended, and tell the operator of failed attempts now and then."""
        self.books.errors[error.code] += 1
        if error.code is not ErrorCode.AUTH_FAILED:
            return
        host = connection.host
        self._failures.failed(host, self.now())
        count = self.books.errors[error.code]
        if count == 1 or count % 100 == 0:
            self._log.warn(
                "authentication failed, {count} times so far; this time from {host}",
                count=count,
                host=host,
            )

    def check_token(self, credentials: Credentials) -> Deferred[bool]:
        """Tell whether a token is a device's."""
        return self._authenticator.check(credentials)

    def is_revoked(self, device: str, since: int) -> bool:
        """Tell whether the keys of a device were revoked since `revocations()` gave `since`."""
        return device in self._registry.revoked_since(since)[1]

    # What the journal tells: see `FlowControl`.

    def pause(self) -> None:
        """Stop reading from all devices."""
        self.paused = True
        for connection in self._connections:
            connection.update_reading()

    def resume(self) -> None:
        """Read from all devices again.

        The first to be read from fill the journal again, so they are taken in random order: over
        a few turns all progress alike.
        """
        self.paused = False
        for connection in random.sample(list(self._connections), len(self._connections)):
            connection.update_reading()

    # What the service asks for.

    def check_times(self) -> None:
        """End handshakes and farewells that have taken too long."""
        now, timeout = self.now(), self.settings.handshake_timeout
        for connection in list(self._passing):
            connection.check_time(now, timeout)
        self.books.settle()

    def go_round(self) -> Deferred[Iterator[None]]:
        """Note when each device was last heard, and end the connections of those that are idle.

        It takes its time; fires when it has seen them all.
        """
        return self._rounds.coiterate(self._go_round())

    def check_revocations(self) -> None:
        """Cut the devices whose keys were revoked since the last call."""
        self._revocation, names = self._registry.revoked_since(self._revocation)
        for name in names:
            connection = self._devices.get(name)
            if connection is not None:
                connection.fail(
                    PeerError(ErrorCode.REVOKED, "the device was disabled, removed or re-keyed")
                )

    def take_seen(self) -> Collection[tuple[str, str, str]]:
        """Return device, time and peer of those that came, left or were seen on a round."""
        seen, self._seen = self._seen, {}
        return seen.values()

    def accounts(self) -> dict[str, Account]:
        """Return the account of each device that came since the start."""
        connections = self._devices.values()
        return self.books.accounts(
            connection.visit for connection in connections if connection.visit is not None
        )

    def devices(self) -> Iterator[str]:
        """Go through the devices that are connected."""
        return iter(self._devices)

    def stop(self) -> Deferred[None]:
        """Say good-bye to all; fires when the last connection is gone."""
        if not self._connections:
            return succeed(None)
        self._stopped = Deferred()
        for connection in list(self._connections):
            connection.fail(_shutting_down())
        return self._stopped

    def abort(self) -> None:
        """Cut all connections that are left."""
        for connection in list(self._connections):
            connection.abort()

    def _saw(self, connection: DeviceProtocol) -> None:
        device, time = connection.device, self._seen_at(connection.heard).decode()
        self._seen[device] = (device, time, connection.peer)

    def _go_round(self) -> Iterator[None]:
        for device in list(self._devices):
            connection = self._devices.get(device)
            if connection is not None:
                self._saw(connection)
                connection.check_idle(self.now(), self.settings.idle_timeout)
            yield

    def _serve_queue(self) -> Iterator[None]:
        while self._queue:
            connection = self._queue[0]
            try:
                connection.go_on()
            except Exception:
                self._log.failure("a handshake failed; its connection is cut")
                connection.abort()
            self._queue.popleft()
            yield


def _cooperator(clock: IReactorTime, seconds: float, pause: float) -> Cooperator:
    """Make what works for some seconds at once, and pauses before it goes on."""

    def begin_slice() -> Callable[[], bool]:
        end = clock.seconds() + seconds
        return lambda: clock.seconds() >= end

    return Cooperator(begin_slice, partial(clock.callLater, pause))


def _shutting_down() -> PeerError:
    return PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping; connect again")


class _Refused(Protocol):
    """Closes its connection without a word. A factory of wrapped protocols can't have None."""

    def connectionMade(self) -> None:
        cast(DeviceTransport, self.transport).abortConnection()
