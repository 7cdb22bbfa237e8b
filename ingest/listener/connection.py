"""One device's connection: the pump between its transport, its conversation and the journal."""

from collections.abc import Iterable
from functools import partial
from typing import cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ingest.journal.interface import Lease
from ingest.listener.books import Delivery
from ingest.listener.guard import guarded
from ingest.listener.outlet import DeviceTransport, NoOutlet, Outlet, outlet_for
from ingest.listener.peer import peer_of, socket_of
from ingest.listener.phases import PHASES, TAKING, Deadline, Phase
from ingest.listener.surroundings import Surroundings
from ingest.record import record_block
from ingest.wire.conversation import (
    CheckToken,
    Claim,
    Conversation,
    Converse,
    Ended,
    Event,
    Grant,
    Peer,
    Send,
    Timed,
    Wait,
)
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError
from ingest.wire.framing import Frames
from ingest.wire.sasl import Credentials

READ = 120 << 10
"""Bytes of one read at most, where Twisted would take 64 KiB: at full speed a read has a price,
whatever its size. From 128 KiB on the C library would map new memory for each."""

FIRST_READ = 8 << 10
"""The same at first. Before a device is let in, what it sends ahead is kept at our cost, whoever it
is. After that its reads grow while they are full and quick to deal with."""

ANSWER = 60.0
"""Seconds that our own part may take: a turn, a check, a lease, the disk. Far more than any takes,
so that what never comes holds no connection for ever."""

LINGER = 2.0
"""Seconds that a device has to read the last message before the connection is cut. To close at once
would send a reset where it is still sending, and the message would be lost."""

_NO_OUTLET = NoOutlet()


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """Carries out what the conversation says, as a `Holder` of the device's lease.

    Attributes:
        protocol: what is spoken on it.
        phase: where it stands.
        heard: when the device last sent something, by `Surroundings.now`.
        claimed: the name that the device claims, proved or not; empty before it claims one.
        delivery: what it has brought, from the moment that the device was let in.
        read_size: bytes of one read at most.
        revocations: the mark of the last revocation when it was made; no key was looked up before.
        socket: what is read, below TLS and other wrappers; None where the transport has none.
    """

    _log = Logger(namespace="ingest.listener")

    # Most connections never have their own: a conversation without deadlines costs no memory.
    _timer: IDelayedCall | None = None
    _lingers = True

    def __init__(
        self,
        surroundings: Surroundings,
        protocol: str,
        converse: Converse,
        refusal: PeerError | None = None,
    ) -> None:
        """Make the protocol of a connection that is about to be made.

        Args:
            surroundings: what it sees of all others.
            protocol: the name of what is spoken on it.
            converse: makes its conversation.
            refusal: why it is not let in, whatever the device says.
        """
        self._surroundings = surroundings
        self.protocol = protocol
        self._converse = converse
        self._refusal = refusal
        self._conversation: Conversation
        self._outlet: Outlet = _NO_OUTLET
        self._journal = surroundings.journal  # or, once it claims a name to share, `shares`
        self._lease: Lease | None = None
        self._error: PeerError | None = None
        self._early = b""  # what waits for its turn
        self._sent_ahead = 0  # bytes that came before the device was let in
        self._spent = 0.0  # seconds of the handshake that the device has taken so far
        self._reading = True
        self._resting = False
        self._is_shared = False  # the name is
        self._stream_ended = False  # the device has closed its side
        self.phase = Phase.GREETING
        self.claimed = ""
        self.delivery: Delivery | None = None

    # What the transport tells.

    @guarded
    def connectionMade(self) -> None:
        """Begin the conversation."""
        self._transport = cast(DeviceTransport, self.transport)
        self.socket = socket_of(self.transport)
        self._read_at_most(FIRST_READ)
        self.heard = self._since = self.made = self._surroundings.now()
        self._surroundings.add(self)
        self._outlet = outlet_for(self._transport, self)
        self.revocations = self._surroundings.last_revocation()
        context = self._surroundings.context(self.peer, self._refusal)
        self._conversation = self._converse(context)
        self._carry_out(self._conversation.begin())

    @guarded
    def dataReceived(self, data: bytes) -> None:
        """Deal with what one read brought; before the device is let in, when it is its turn."""
        self.heard = now = self._surroundings.now()
        if self.delivery is None:
            self._receive_early(data)
        elif self.phase is Phase.OPEN:
            self.delivery.received_bytes += len(data)
            self._carry_out(self._conversation.receive(data))
            self._surroundings.took(self, len(data), now)

    @guarded
    def readConnectionLost(self) -> None:
        """Called when the device has closed its side: it wants its last acknowledgement."""
        if self._outlet.broken:
            self.abort()
            return
        if self.phase is Phase.QUEUED:
            self.take_turn()
        self._stream_ended = True
        if self.phase in TAKING:
            self._carry_out(self._conversation.end_of_stream())
        elif self.phase is Phase.LINGERING:
            self._close()

    def writeConnectionLost(self) -> None:
        """Called when our side is closed: what we had to say has gone."""

    @guarded
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back what the connection held. What it sent is in the journal."""
        try:
            if reason.check(SSL.Error):
                self._surroundings.broke(self, reason.getErrorMessage())
            is_clean = reason.check(ConnectionDone) and not self._outlet.broken
            if self.phase is Phase.OPEN and is_clean:
                self._stream_ended, self._outlet = True, _NO_OUTLET
                self._carry_out(self._conversation.end_of_stream())
        finally:
            self._leave()
            self._surroundings.remove(self)

    # What others see and ask for.

    @property
    def device(self) -> str:
        """The device's name, once it holds its lease; empty before."""
        return self._lease.device if self._lease is not None else ""

    @property
    def peer(self) -> Peer:
        """The other end."""
        return peer_of(cast(ITransport, self.transport))

    @property
    def lease(self) -> Lease | None:
        """The device's lease, while it holds one."""
        return self._lease

    @property
    def mechanism(self) -> str:
        """By what the device proves its name; empty before it says so."""
        return self._conversation.mechanism

    @property
    def is_reading(self) -> bool:
        """Whether we read from the device, and so will hear when it closes."""
        return self._reading

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 where there is none, or no longer."""
        return self.socket.fileno() if self.socket is not None else -1

    @guarded
    def take_turn(self) -> None:
        """Go on with the handshake, if it is still there."""
        if self.phase is not Phase.QUEUED:
            return
        data, self._early = self._early, b""
        self._carry_out(self._conversation.receive(data))
        if self.phase is Phase.QUEUED:
            self._enter(Phase.GREETING)

    @guarded
    def fail(self, error: PeerError) -> None:
        """End the conversation from our side, with all that was accepted acknowledged."""
        if self.phase in TAKING:
            self._early = b""
            self._carry_out(self._conversation.fail(error))

    @guarded
    def update_reading(self) -> None:
        """Read, unless the phase, the journal or the device's own cost is against it."""
        wanted = PHASES[self.phase].reads and not self._stream_ended
        if self.phase is Phase.OPEN:
            wanted = wanted and not (self._resting or self._surroundings.paused)
        if wanted == self._reading or self.phase is Phase.LOST:
            return
        self._reading = wanted
        if wanted:
            self.heard = self._surroundings.now()  # while we did not listen, no time passed
            self._transport.resumeProducing()
        else:
            self._transport.pauseProducing()

    def rest(self, size: int) -> None:
        """Read nothing until `resume`, and then at most `size` bytes at once."""
        self._resting = True
        self._read_at_most(size)
        self.update_reading()

    def read_more(self) -> None:
        """Called when a read was as long as it may be, and was dealt with quickly."""
        if self.read_size < READ:
            self._read_at_most(min(2 * self.read_size, READ))

    def resume(self) -> None:
        """Read again after `rest`."""
        self._resting = False
        self.update_reading()

    @guarded
    def check_deadline(self, now: float) -> None:
        """End what has taken too long; called now and then.

        Args:
            now: by `Surroundings.now`.
        """
        match PHASES[self.phase].deadline:
            case Deadline.HANDSHAKE:
                seconds = self._surroundings.handshake_timeout
                if self._spent + now - self._since > seconds:
                    self.fail(
                        PeerError(ErrorCode.AUTH_TIMEOUT, f"not authenticated in {seconds:g} s")
                    )
            case Deadline.IDLE:
                seconds = self._surroundings.idle_timeout
                if self._reading and seconds and now - self.heard > seconds:
                    self.fail(PeerError(ErrorCode.IDLE_TIMEOUT, f"nothing came for {seconds:g} s"))
            case Deadline.ANSWER:
                if self._surroundings.paused:
                    self._since = now  # the disk takes nothing, which is said elsewhere
                elif now - self._since > ANSWER:
                    self._answer_is_late()
            case Deadline.LINGER:
                if now - self._since > LINGER:
                    self.abort()

    def forgive(self, seconds: float) -> None:
        """Let the seconds just passed not count against the device: we were not listening."""
        self.heard += seconds
        self._since += seconds

    @guarded
    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abortConnection()

    # What the journal tells: see `Holder`.

    @guarded
    def granted(self, lease: Lease) -> None:
        """See `Holder.granted`."""
        self._lease = lease
        self.delivery = Delivery(self.protocol, lease, self._sent_ahead, lease.last)
        self._enter(Phase.OPEN)
        self._surroundings.let_in(self)
        grant = Grant(
            lease.last + 1,
            self._surroundings.stamp(),
            self._surroundings.format_of(lease.device),
            lambda seq: lease.durable >= seq,
            self._surroundings.chunks(lease.device) if self._is_shared else None,
        )
        self._carry_out(self._conversation.granted(grant))

    @guarded
    def refused(self, reason: str) -> None:
        """See `Holder.refused`; nobody can say which number comes next."""
        self.fail(PeerError(ErrorCode.BUSY, f"try again later: {reason}"))

    @guarded
    def fenced(self) -> None:
        """See `Holder.fenced`."""
        self.fail(PeerError(ErrorCode.REPLACED, "a newer connection of this device has taken over"))

    @guarded
    def durable(self, seq: int) -> None:
        """See `Holder.durable`."""
        if self.phase is Phase.DRAINING:
            self._say_farewell_if_durable()
        elif self.phase is Phase.OPEN:
            self._outlet.acknowledge(seq)

    def acknowledgement(self, seq: int) -> bytes:
        """Ask the conversation how to acknowledge `seq`, unless the device was told already."""
        delivery = self.delivery
        if delivery is None or delivery.acknowledged == seq or self._outlet.broken:
            return b""
        data = self._conversation.acknowledge(seq)
        if data:
            delivery.acknowledged = seq
        return data

    # What the conversation asks for.

    def _receive_early(self, data: bytes) -> None:
        self._sent_ahead += len(data)
        match self.phase:
            case Phase.GREETING:
                self._early = data
                self._enter(Phase.QUEUED)
                self._surroundings.queue_up(self)
            case Phase.QUEUED:
                self._early += data
            case Phase.CHECKING | Phase.CLAIMING:
                self._carry_out(self._conversation.receive(data))

    def _carry_out(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Frames():
                    self._append(event)
                case Send():
                    self._outlet.send(event.data)
                case CheckToken():
                    self._check_token(event.credentials)
                case Claim():
                    self._claim(event)
                case Ended():
                    self._lingers = event.lingers
                    self.claimed = self.claimed or event.device
                    self._end(event.error)
                case Wait():
                    self._wait(event.seconds)

    def _append(self, frames: Frames) -> None:
        values = frames.values
        if not values.items:
            return
        lease, delivery = self._lease, self.delivery
        assert lease is not None and delivery is not None
        delivery.unparsed += frames.unparsed
        stamp = self._surroundings.stamp()
        block = record_block(stamp, lease.device.encode(), lease.following, values)
        delivery.brought_bytes += len(block)
        self._journal.append(lease, block, len(values.items))

    def _check_token(self, credentials: Credentials) -> None:
        self.claimed = credentials.device
        self._enter(Phase.CHECKING)
        checked = self._surroundings.check_token(self.peer, credentials)
        checked.addCallbacks(self._token_checked, self._token_not_checked)

    @guarded
    def _token_checked(self, good: bool) -> None:
        if self.phase is Phase.CHECKING:
            self._carry_out(self._conversation.checked(good=good))

    @guarded
    def _token_not_checked(self, failure: Failure) -> None:
        failure.raiseException()

    def _claim(self, claim: Claim) -> None:
        self.claimed = claim.device
        self._enter(Phase.CLAIMING)
        self._surroundings.check_claim(claim, self.revocations)
        self._is_shared = claim.shared
        if claim.shared:
            self._journal = self._surroundings.shares
        self._journal.claim(claim.device, self)

    def _end(self, error: PeerError | None) -> None:
        self._error = error
        if error is not None:
            self._surroundings.ended(self, error)
            if self.delivery is not None:
                self.delivery.ended_by(error.code)
        self._withdraw_claim()
        self._enter(Phase.DRAINING)
        self._say_farewell_if_durable()

    def _say_farewell_if_durable(self) -> None:
        lease = self._lease
        if lease is not None and lease.durable < lease.last:
            return
        self._enter(Phase.LINGERING)
        words = b"" if lease is None else self.acknowledgement(lease.last)
        if self._error is not None:
            words += self._conversation.farewell(self._error)
        if words:
            self._outlet.send(words)
        self._close()
        self._release()

    def _wait(self, seconds: float | None) -> None:
        self._stop_waiting()
        if seconds is not None:
            self._timer = self._surroundings.call_later(seconds, partial(self._overdue, seconds))

    def _stop_waiting(self) -> None:
        if self._timer is None:
            return
        if self._timer.active():
            self._timer.cancel()
        self._timer = None

    @guarded
    def _overdue(self, seconds: float) -> None:
        if self.phase is not Phase.OPEN:
            return
        if self._reading:
            self._carry_out(cast(Timed, self._conversation).overdue())
        else:
            self._wait(seconds)  # the device may well have spoken, but we do not listen

    def _close(self) -> None:
        """Close our side; all of it when the device has closed its own, or is not waited for."""
        if self._stream_ended or not self._lingers:
            self._transport.loseConnection()
        else:
            self._outlet.finish()

    # The phases.

    def _enter(self, phase: Phase) -> None:
        rule = PHASES[self.phase]
        if phase not in rule.next:
            raise IllegalStep(f"{phase} follows {self.phase}")
        now = self._surroundings.now()
        if rule.deadline is Deadline.HANDSHAKE:
            self._spent += now - self._since
        self.phase = phase
        self._since = now
        self.update_reading()

    def _read_at_most(self, size: int) -> None:
        self.read_size = size
        if self.socket is not None:
            self.socket.bufferSize = size

    def _answer_is_late(self) -> None:
        self._log.warn(
            "the connection of {device!r} at {peer} has waited for {seconds:g} s in {phase}",
            device=self.claimed, peer=str(self.peer), seconds=ANSWER, phase=self.phase.name,
        )  # fmt: skip
        if self.phase is Phase.DRAINING:
            self.abort()
        else:
            self.fail(PeerError(ErrorCode.BUSY, "the listener is too busy; try again later"))

    def give_up(self) -> None:
        """Called when a fault of ours has shown: say so, give back what it held, and cut it."""
        self._log.failure("the connection of {device!r} has failed and is cut", device=self.claimed)
        try:
            self._leave()
        finally:
            self._transport.abortConnection()

    def _leave(self) -> None:
        """Give back all that the connection holds."""
        if self.phase is Phase.LOST:
            return
        self._enter(Phase.LOST)
        self._stop_waiting()
        self._outlet = _NO_OUTLET  # it knows us: as a cycle, both would wait for the collector
        self._early = b""
        try:
            self._withdraw_claim()
        finally:
            self._release()

    def _withdraw_claim(self) -> None:
        if self._lease is None and self.claimed:
            self._journal.withdraw(self.claimed, self)

    def _release(self) -> None:
        lease, delivery = self._lease, self.delivery
        if lease is None or delivery is None:
            return
        try:
            self._surroundings.left(self, delivery)
        finally:
            self._lease = None
            self._journal.release(lease)
