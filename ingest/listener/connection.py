"""One device's connection: the pump between its transport, its session and the journal."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from twisted.internet import tcp
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ingest.journal.interface import Lease
from ingest.listener.books import Visit
from ingest.listener.halfclose import pass_half_close
from ingest.listener.outlet import DeviceTransport, Outlet, outlet_for
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.ingest1.messages import Records
from ingest.wire.ingest1.session import (
    WAITING_FOR_PEER,
    CheckToken,
    Claim,
    Ended,
    Event,
    Reply,
    Session,
    State,
)

if TYPE_CHECKING:
    from ingest.listener.fleet import Hub

_FRAME_ERRORS = frozenset({ErrorCode.BAD_FRAME, ErrorCode.FRAME_TOO_LONG})

_READ = 120 << 10
"""Bytes of one read at most, where Twisted would take 64 KiB: at full speed a read has a price,
whatever its size. From 128 KiB on the C library would map new memory for each."""

LINGER = 2.0
"""Seconds that a device has to read our last words before the connection is cut. To close at once
would send a reset where it is still sending, and take the words away."""


@implementer(IHalfCloseableProtocol)
class DeviceProtocol(Protocol):
    """Carries out what the session says.

    Attributes:
        heard: when the device last sent something; seconds since 1970.
        visit: what it has brought, from the moment that the device was let in.
    """

    def __init__(self, hub: "Hub", refusal: PeerError | None) -> None:
        self._hub = hub
        self._refusal = refusal
        self._lease: Lease | None = None
        self._error: PeerError | None = None
        self._reading = True
        self._waiting = False  # for its turn, for the token's check, or for the lease
        self._early = b""  # what waits for its turn
        self._said_all = False
        self._peer_closed = False
        self._lost = False
        self._spent = 0.0  # seconds of the handshake, when we last stopped reading
        self._sent_ahead = 0  # bytes before the device was let in
        self.visit: Visit | None = None

    # The transport's side.

    def connectionMade(self) -> None:
        """Begin the session."""
        self._transport = cast(DeviceTransport, self.transport)
        pass_half_close(self.transport, self)
        if isinstance(self.transport, tcp.Connection):
            self.transport.bufferSize = _READ
        self._outlet: Outlet = outlet_for(self._transport)
        self._session = Session(self._hub.rules, plaintext=False, refusal=self._refusal)
        self._revocations = self._hub.revocations()
        self.heard = self._begun = self._hub.now()
        self._hub.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass on what one read brought; before the device is let in, when it is its turn."""
        self.heard = now = self._hub.now()
        if self.visit is not None:
            self.visit.received_bytes += len(data)
            self._carry_out(self._session.receive(data, self._hub.stamp(now)))
            self._hub.count_read(len(data))
            return
        self._sent_ahead += len(data)
        if self._session.state not in WAITING_FOR_PEER:
            self._session.receive(data, b"")  # which keeps it, or wants no more
            return
        self._early += data
        if not self._waiting:
            self._waiting = True
            self._hub.queue_up(self)
            self.update_reading()

    def readConnectionLost(self) -> None:
        """Take that the device has closed its side: it wants its last acknowledgement."""
        self.go_on()
        self._peer_closed = True
        if self._said_all:
            self._close()
        else:
            self._end_of_stream()

    def writeConnectionLost(self) -> None:
        """Take that our side is closed: what we had to say has gone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back what the connection held. What it sent is in the journal."""
        self._early = b""
        self._peer_closed = self._lost = True
        if self._session.state is State.READY and reason.check(ConnectionDone):
            self._end_of_stream()
        else:
            self._session.abandon()
        if self._lease is not None:
            self._give_back(self._lease)
        self._withdraw_claim()
        self._hub.remove(self)

    # The hub's side.

    @property
    def device(self) -> str:
        """The device's name, once it holds its lease; empty before."""
        return self._lease.device if self._lease is not None else ""

    @property
    def host(self) -> str:
        """The other end's address, without its port; `local` for a Unix socket."""
        return str(getattr(self._transport.getPeer(), "host", "local"))

    @property
    def peer(self) -> str:
        """The other end, for people: `192.0.2.7:50123`."""
        port = getattr(self._transport.getPeer(), "port", None)
        return self.host if port is None else f"{self.host}:{port}"

    def go_on(self) -> None:
        """Go on with the handshake, if it is still there: it is our turn."""
        if not self._early:
            return
        if self._session.state is State.OPENING:
            # Now it counts who the other end is; behind a proxy, the bytes before these said it.
            self._session = self._make_session()
        data, self._early = self._early, b""
        self._waiting = False
        self._carry_out(self._session.receive(data, b""))
        self.update_reading()

    def fail(self, error: PeerError) -> None:
        """End the conversation from our side, with all that was accepted acknowledged."""
        self._carry_out(self._session.fail(error))

    def update_reading(self) -> None:
        """Read, unless the journal is full or the session waits for us."""
        wanted = not self._peer_closed and (
            self._said_all
            or not (self._waiting or self._hub.paused or self._session.state is State.ENDED)
        )
        if wanted == self._reading or self._lost:
            return
        self._reading = wanted
        now = self._hub.now()
        if wanted:
            # While we did not listen, no time passed.
            self._begun = now - self._spent
            self.heard = now
            self._transport.resumeProducing()
        else:
            self._spent = now - self._begun
            self._transport.pauseProducing()

    def check_time(self, now: float, handshake: float) -> None:
        """End a handshake or a farewell that has taken too long; called now and then.

        Args:
            now: seconds since 1970.
            handshake: seconds that the device may take to say who it is.
        """
        if self._said_all:
            if now - self._ended > LINGER:
                self.abort()
        elif (
            self._reading
            and self._session.state in WAITING_FOR_PEER
            and now - self._begun > handshake
        ):
            self.fail(PeerError(ErrorCode.AUTH_TIMEOUT, f"not authenticated in {handshake:g} s"))

    def check_idle(self, now: float, idle: float) -> None:
        """End the conversation with a device that has said nothing for too long.

        Args:
            now: seconds since 1970.
            idle: seconds that it may say nothing; 0 for no bound.
        """
        if self._reading and idle and now - self.heard > idle:
            self.fail(PeerError(ErrorCode.IDLE_TIMEOUT, f"nothing came for {idle:g} s"))

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abortConnection()

    # The journal's side: see `Holder`.

    def granted(self, lease: Lease) -> None:
        """Take the lease, and let the frames come."""
        self._lease = lease
        self.visit = Visit(lease, self._sent_ahead, lease.last)
        self._waiting = False
        self._hub.let_in(self)
        self._carry_out(self._session.granted(lease.last + 1, self._hub.stamp(self._hub.now())))
        self.update_reading()

    def refused(self, reason: str) -> None:
        """End the conversation: nobody can say which number comes next."""
        self.fail(PeerError(ErrorCode.BUSY, f"try again later: {reason}"))

    def fenced(self) -> None:
        """Make way for a newer connection of the device."""
        self.fail(PeerError(ErrorCode.REPLACED, "a newer connection of this device has taken over"))

    def durable(self, seq: int) -> None:
        """Tell the device, unless our last words are about to say it."""
        if self._session.state is State.ENDED:
            self._say_farewell_if_durable()
            return
        data = self._session.acknowledge(seq)
        if data:
            assert self.visit is not None
            self.visit.acknowledged = seq
            self._outlet.acknowledge(data)

    # What the session asks for.

    def _carry_out(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Records():
                    if event.frames:
                        assert self._lease is not None
                        self._hub.journal.append(self._lease, event.block, event.frames)
                case Reply():
                    self._outlet.send(event.data)
                case CheckToken():
                    self._check_token(event)
                case Claim():
                    self._claim(event)
                case Ended():
                    self._end(event.error)

    def _check_token(self, event: CheckToken) -> None:
        self._waiting = True
        self._hub.check_token(event.credentials).addCallback(self._token_checked)
        self.update_reading()

    def _token_checked(self, good: bool) -> None:
        self._waiting = False
        self._carry_out(self._session.token_checked(good=good))
        self.update_reading()

    def _claim(self, event: Claim) -> None:
        # The keys that proved the name may have been revoked since they were looked up.
        if self._hub.is_revoked(event.device, self._revocations):
            self.fail(PeerError(ErrorCode.REVOKED, "the device was disabled or has a new token"))
            return
        self._waiting = True
        self._hub.journal.claim(event.device, self)
        self.update_reading()

    def _end(self, error: PeerError | None) -> None:
        self._error = error
        if error is not None:
            self._hub.ended(self, error)
            if self.visit is not None and error.code in _FRAME_ERRORS:
                self.visit.refused = error.code
        self._withdraw_claim()
        self.update_reading()
        self._say_farewell_if_durable()

    def _end_of_stream(self) -> None:
        self._carry_out(self._session.end_of_stream(self._hub.stamp(self._hub.now())))

    def _say_farewell_if_durable(self) -> None:
        lease = self._lease
        if self._lost or self._said_all or (lease is not None and lease.durable < lease.last):
            return
        self._said_all = True
        self._ended = self._hub.now()
        words = self._last_acknowledgement()
        if self._error is not None:
            words += self._session.farewell(self._error)
        if words:
            self._outlet.send(words)
        self._close()
        if lease is not None:
            self._give_back(lease)

    def _last_acknowledgement(self) -> bytes:
        if self.visit is None or self.visit.acknowledged == self.visit.lease.last:
            return b""
        data = self._session.acknowledge(self.visit.lease.last)
        if data:
            self.visit.acknowledged = self.visit.lease.last
        return data

    def _withdraw_claim(self) -> None:
        if self._lease is None and self._session.device:
            self._hub.journal.withdraw(self._session.device, self)

    def _give_back(self, lease: Lease) -> None:
        self._hub.left(self)
        self._lease = None
        self._hub.journal.release(lease)

    def _close(self) -> None:
        """Close our side now, and all of it when the device has closed its own."""
        if self._peer_closed:
            self._transport.loseConnection()
        else:
            self._outlet.finish()
            self.update_reading()  # only to hear the device close; what it says is dropped

    def _make_session(self) -> Session:
        refusal = self._refusal or self._hub.refusal_of(self.host)
        return Session(self._hub.rules, plaintext=self._may_send_plaintext(), refusal=refusal)

    def _may_send_plaintext(self) -> bool:
        if self._hub.settings.allow_plaintext_auth or ISSLTransport.providedBy(self.transport):
            return True
        address = self._transport.getPeer()
        return isinstance(address, UNIXAddress) or _is_loopback(getattr(address, "host", ""))


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
