"""One device's connection: the pump between its transport, its conversation and the journal."""

from collections.abc import Iterable
from typing import cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ingest.journal.interface import Lease
from ingest.listener.books import Delivery
from ingest.listener.countdown import Countdown
from ingest.listener.guard import guarded
from ingest.listener.handshake import Handshake
from ingest.listener.intake import Intake
from ingest.listener.outlet import DeviceTransport, NoOutlet, Outlet, outlet_for
from ingest.listener.peer import peer_of
from ingest.listener.phases import PHASES, TAKING, Deadline, Phase
from ingest.listener.surroundings import Surroundings
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
from ingest.wire.identity import check_name
from ingest.wire.sasl import Credentials

_NO_OUTLET = NoOutlet()
_LISTENING = frozenset({Phase.GREETING, Phase.OPEN})
"""The phases in which the conversation takes what comes, and its end."""
_SOON = 0.01
"""Seconds until we look again whether a device is late, while something of it waits to be read."""
_OPEN = Phase.OPEN  # which Python 3.11 looks up as slowly as it calls three functions


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """Carries out what the conversation says, as a `Holder` of the device's lease.

    Attributes:
        protocol: what is spoken on it.
        phase: where it stands.
        since: when it came there, by `Surroundings.now`.
        made: when the connection was made, by the same.
        claimed: the name that the device claims, proved or not; empty before it claims one.
        handshake: what there is until the device is let in, or its conversation has ended.
        intake: what is read from it; there once the connection is made.
        delivery: what it has brought, from the moment that the device was let in.
        revocations: the mark of the last revocation when it was made; no key was looked up before.
    """

    __slots__ = (
        "_conversation", "_countdown", "_ended", "_journal", "_lease", "_outlet",
        "_stream_ended", "_surroundings", "_transport", "claimed", "connected", "delivery",
        "factory", "handshake", "intake", "made", "phase", "protocol", "revocations", "since",
        "transport",
    )  # fmt: skip

    _log = Logger(namespace="ingest.listener")

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
        self.connected = 0
        self.factory = None
        self.transport = None
        self._surroundings = surroundings
        self.protocol = protocol
        self.handshake: Handshake | None = Handshake(converse, refusal)
        self._conversation: Conversation
        self._outlet: Outlet = _NO_OUTLET
        self._journal = surroundings.journal  # or, once it claims a name to share, `shares`
        self._lease: Lease | None = None
        self._ended: Ended | None = None
        self._countdown: Countdown | None = None  # most conversations never ask for one
        self._stream_ended = False  # the device has closed its side
        self.phase = Phase.GREETING
        self.claimed = ""
        self.delivery: Delivery | None = None

    # What the transport tells.

    @guarded
    def connectionMade(self) -> None:
        """Begin the conversation."""
        self._transport = cast(DeviceTransport, self.transport)
        self.intake = Intake(self._transport, self._surroundings.now)
        self.since = self.made = self.intake.heard
        self._surroundings.add(self)
        self._outlet = outlet_for(self._transport, self)
        assert self.handshake is not None
        identities = self._surroundings.identities
        self.revocations = identities.last_revocation()
        context = identities.context(self.peer, self.handshake.refusal)
        self._conversation = self.handshake.converse(context)
        self._carry_out(self._conversation.begin())

    @guarded
    def dataReceived(self, data: bytes) -> None:
        """Deal with what one read brought; before the device is let in, when it is its turn."""
        self.intake.heard = now = self._surroundings.now()
        if self.handshake is not None:
            self._receive_early(self.handshake, data)
        elif self.phase is _OPEN and self.delivery is not None:
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
        if self.phase in _LISTENING:
            self._carry_out(self._conversation.end_of_stream())
        elif self.phase is Phase.LINGERING:
            self._close()

    def writeConnectionLost(self) -> None:
        """Called when our side is closed: what we had to say has gone."""

    @guarded
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back what the connection held. What it sent is in the journal."""
        try:
            self._end_stream(reason)
            self._leave()
        finally:
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
    def mechanism(self) -> str:
        """By what the device proves its name; empty before it says so."""
        return self._conversation.mechanism

    @guarded
    def take_turn(self) -> None:
        """Go on with the handshake, if it is still there."""
        if self.phase is not Phase.QUEUED or self.handshake is None:
            return
        self._carry_out(self._conversation.receive(self.handshake.take_early()))
        if self.phase is Phase.QUEUED:
            self._enter(Phase.GREETING)

    def fail(self, error: PeerError) -> None:
        """End the conversation from our side, with all that was accepted acknowledged."""
        if self.phase in TAKING:
            try:
                self._carry_out(self._conversation.fail(error))
            except Exception:  # a `PeerError` too: there is no second end to tell it at
                self.give_up()

    @guarded
    def update_reading(self) -> None:
        """Read, unless the phase, the journal or the device's own cost is against it."""
        wanted = PHASES[self.phase].reads and not self._stream_ended
        if self.phase is Phase.OPEN:
            wanted = wanted and not (self.intake.is_resting or self._surroundings.paused)
        if self.phase is not Phase.LOST:
            self.intake.read(wanted)

    @guarded
    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abortConnection()

    # What the journal tells: see `Holder`.

    @guarded
    def granted(self, lease: Lease) -> None:
        """See `Holder.granted`."""
        self._lease = lease  # first: whatever goes wrong from here on, it is given back
        assert self.handshake is not None
        early = self.handshake.take_early()
        self.delivery = Delivery(self.protocol, lease, self.handshake.received_bytes, lease.last)
        self.handshake = None
        self._enter(Phase.OPEN)
        self._surroundings.let_in(self)
        is_shared = self._journal is not self._surroundings.journal
        grant = Grant(
            lease.last + 1,
            self._surroundings.stamp(),
            self._surroundings.identities.format_of(lease.device),
            lambda seq: lease.durable >= seq,
            self._surroundings.chunks(lease.device) if is_shared else None,
        )
        self._carry_out(self._conversation.granted(grant))
        if early and self.phase is _OPEN:
            self._carry_out(self._conversation.receive(early))
        if self._stream_ended and self.phase is _OPEN:
            self._carry_out(self._conversation.end_of_stream())

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
        if self.phase is _OPEN:
            self._outlet.acknowledge(seq)
        elif self.phase is Phase.DRAINING:
            self._say_farewell_if_durable()

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

    @guarded
    def _end_stream(self, reason: Failure) -> None:
        """Take what the stream ends with, if the device has closed all of it in good order."""
        if reason.check(SSL.Error):
            self._surroundings.broke(self, reason.getErrorMessage())
        is_clean = reason.check(ConnectionDone) and not self._outlet.broken
        if self.phase is Phase.OPEN and is_clean:
            self._stream_ended, self._outlet = True, _NO_OUTLET
            self._carry_out(self._conversation.end_of_stream())

    def _receive_early(self, handshake: Handshake, data: bytes) -> None:
        handshake.received_bytes += len(data)
        handshake.early += data
        if self.phase is Phase.GREETING:
            self._enter(Phase.QUEUED)
            self._surroundings.queue_up(self)

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
                    self._ended = event
                    self._end(event.error)
                case Wait():
                    self._wait(event)

    def _append(self, frames: Frames) -> None:
        if count := len(frames.values.items):
            assert self.delivery is not None
            block = self.delivery.records(self._surroundings.stamp(), frames)
            self._journal.append(self.delivery.lease, block, count)

    def _check_token(self, credentials: Credentials) -> None:
        self.claimed = credentials.device
        self._enter(Phase.CHECKING)
        checked = self._surroundings.identities.check_token(self.peer, credentials)
        checked.addBoth(self._token_checked)

    @guarded
    def _token_checked(self, good: bool | Failure) -> None:
        if isinstance(good, Failure):
            good.raiseException()
        elif self.phase is Phase.CHECKING:
            self._carry_out(self._conversation.checked(good=good))

    def _claim(self, claim: Claim) -> None:
        self.claimed = claim.device
        self._enter(Phase.CLAIMING)
        check_name(claim.device)  # a protocol that somebody else wrote may have left it out
        self._surroundings.identities.check_claim(claim, self.revocations)
        if claim.shared:
            self._journal = self._surroundings.shares
        self._journal.claim(claim.device, self)

    def _end(self, error: PeerError | None) -> None:
        self.claimed = self.claimed or self._conversation.device
        self.handshake = None
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
        if self._ended is not None and self._ended.error is not None:
            words += self._conversation.farewell(self._ended.error)
        if words:
            self._outlet.send(words)
        self._close()
        self._release()

    def _wait(self, wait: Wait) -> None:
        if self._countdown is None:
            self._countdown = Countdown(self._surroundings.call_later, self._overdue)
        self._countdown.begin(wait)

    @guarded
    def _overdue(self, wait: Wait) -> None:
        if self.phase is not Phase.OPEN:
            return
        if not self.intake.is_reading:
            self._wait(wait)  # the device may well have spoken, but we do not listen
        elif self.intake.has_unread():
            self._wait(Wait(_SOON, wait.awaited))  # it has spoken, and we are late
        else:
            self._carry_out(cast(Timed, self._conversation).overdue(wait.awaited))

    def _close(self) -> None:
        """Close our side; all of it when the device has closed its own, or is not waited for."""
        if self._stream_ended or (self._ended is not None and not self._ended.lingers):
            self._outlet.close()
        else:
            self._outlet.finish()

    def _enter(self, phase: Phase) -> None:
        rule = PHASES[self.phase]
        if phase not in rule.next:
            raise IllegalStep(f"{phase} follows {self.phase}")
        now = self._surroundings.now()
        if rule.deadline is Deadline.HANDSHAKE and self.handshake is not None:
            self.handshake.spent += now - self.since
        self.phase = phase
        self.since = now
        self.update_reading()

    def blame(self, error: PeerError) -> None:
        """See `Guarded.blame`; once its conversation has ended, a peer can do nothing wrong."""
        if self.phase in TAKING:
            self.fail(error)
        else:
            self.give_up()

    def give_up(self) -> None:
        """Called when a fault of ours has shown: say so, give back what it held, and cut it."""
        self._log.failure("the connection of {device!r} has failed and is cut", device=self.claimed)
        for step in (self._leave, self._transport.abortConnection):
            try:
                step()
            except Exception:
                self._log.failure("the end of {device!r} has failed as well", device=self.claimed)

    def _leave(self) -> None:
        """Give back all that the connection holds."""
        if self.phase is Phase.LOST:
            return
        self.phase = Phase.LOST  # from wherever it is; nothing that entering does may keep it here
        if self._countdown is not None:
            self._countdown.stop()
            self._countdown = None  # it knows us, as the outlet does
        self._outlet = _NO_OUTLET  # it knows us: as a cycle, both would wait for the collector
        self.handshake = None
        try:
            self._withdraw_claim()
        finally:
            self._release()

    def _withdraw_claim(self) -> None:
        if self._lease is None and self.claimed:
            self._journal.withdraw(self.claimed, self)

    def _release(self) -> None:
        if (lease := self._lease) is None:
            return
        try:
            if self.delivery is not None:
                self._surroundings.left(self, self.delivery)
        finally:
            self._lease = None
            self._journal.release(lease)
