"""How long each phase of a connection may take, and what becomes of one that takes longer."""

from typing import Protocol

from twisted.logger import Logger

from ingest.listener.admission import Admission
from ingest.listener.handshake import Handshake
from ingest.listener.intake import Intake
from ingest.listener.phases import PHASES, Deadline, Phase
from ingest.wire.conversation import Peer
from ingest.wire.errors import ErrorCode, PeerError

ANSWER = 60.0
"""Seconds that our own part may take: a turn, a check, a lease, the disk. Far more than any takes,
so that what never comes holds no connection for ever."""

LINGER = 2.0
"""Seconds that a device has to read the last message before the connection is cut. To close at once
would send a reset where it is still sending, and the message would be lost."""

_STALL = 1.0
"""Seconds between two looks at the deadlines, beyond what was agreed, that count as a stall."""


class TimedConnection(Protocol):
    """A connection, as far as its time goes.

    Attributes:
        phase: where it stands.
        since: when it came there, in seconds since some moment.
        intake: what is read from it: if nothing is, it can't be blamed for its silence.
        claimed: the name that it claims; empty before it claims one.
        handshake: what there is of it until it is let in.
    """

    phase: Phase
    since: float
    intake: Intake
    claimed: str
    handshake: Handshake | None

    @property
    def peer(self) -> Peer:
        """The other end."""

    def fail(self, error: PeerError) -> None:
        """End the conversation, and tell the device why."""

    def abort(self) -> None:
        """Cut the connection."""


class Deadlines:
    """Ends what has taken too long: see `Deadline` for what that means in each phase."""

    _log = Logger(namespace="ingest.listener")

    def __init__(self, admission: Admission, now: float) -> None:
        """Begin to look.

        Args:
            admission: has the limits.
            now: seconds since some moment, as always here.
        """
        self._admission = admission
        self._looked_at = now

    def stall(self, now: float, every: float) -> float:
        """Return for how long nobody looked, beyond the usual time between two looks.

        Then the process was stopped, say, and what devices sent has waited unheard. Less than a
        second counts as none.

        Args:
            now: the time of this look.
            every: seconds that should lie between two.
        """
        missed = now - self._looked_at - every
        self._looked_at = now
        return missed if missed > _STALL else 0.0

    def forgive(self, connection: TimedConnection, seconds: float) -> None:
        """Let the seconds of a stall not count against a device: we were not listening."""
        connection.intake.heard += seconds
        connection.since += seconds

    def check(self, connection: TimedConnection, now: float, *, is_paused: bool) -> None:
        """End what has taken too long.

        Args:
            connection: where to look.
            now: the time of this look.
            is_paused: whether the disk takes nothing, which is said elsewhere: we may be late then.
        """
        match PHASES[connection.phase].deadline:
            case Deadline.HANDSHAKE:
                self._check_handshake(connection, now)
            case Deadline.IDLE:
                self._check_idle(connection, now)
            case Deadline.ANSWER if is_paused:
                connection.since = now
            case Deadline.ANSWER if now - connection.since > ANSWER:
                self._answer_is_late(connection)
            case Deadline.LINGER if now - connection.since > LINGER:
                connection.abort()

    def _check_handshake(self, connection: TimedConnection, now: float) -> None:
        seconds = self._admission.limits.handshake_timeout
        spent = 0.0 if connection.handshake is None else connection.handshake.spent
        if spent + now - connection.since > seconds:
            connection.fail(
                PeerError(ErrorCode.AUTH_TIMEOUT, f"not authenticated in {seconds:g} s")
            )

    def _check_idle(self, connection: TimedConnection, now: float) -> None:
        seconds = self._admission.limits.idle_timeout
        intake = connection.intake
        if seconds and intake.is_reading and now - intake.heard > seconds:
            connection.fail(PeerError(ErrorCode.IDLE_TIMEOUT, f"nothing came for {seconds:g} s"))

    def _answer_is_late(self, connection: TimedConnection) -> None:
        self._log.warn(
            "the connection of {device!r} at {peer} has waited for {seconds:g} s in {phase}",
            device=connection.claimed,
            peer=str(connection.peer),
            seconds=ANSWER,
            phase=connection.phase.name,
        )
        if connection.phase is Phase.DRAINING:
            connection.abort()
        else:
            connection.fail(PeerError(ErrorCode.BUSY, "the listener is too busy; try again later"))
