"""What a connection sees of all others, and what they see of it."""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from ingest.journal.interface import Journal
from ingest.listener.books import Delivery
from ingest.listener.deadlines import TimedConnection
from ingest.listener.guard import Guarded
from ingest.listener.identities import Identities
from ingest.wire.chunks import Chunks
from ingest.wire.errors import PeerError


class Member(TimedConnection, Guarded, Protocol):
    """What the fleet sees of one connection.

    Attributes:
        protocol: what is spoken on it.
        made: when the connection was made, by `Surroundings.now`.
        delivery: what it has brought; None before the device was let in.
        revocations: the mark of the last revocation when the connection was made.
    """

    protocol: str
    made: float
    delivery: Delivery | None
    revocations: int

    @property
    def mechanism(self) -> str:
        """By what the device proves its name; empty before it says so."""

    @property
    def device(self) -> str:
        """The device's name, once it holds its lease; empty before."""

    def take_turn(self) -> None:
        """Go on with the handshake, if it is still there."""

    def update_reading(self) -> None:
        """Called when `Surroundings.paused` has changed."""


class Surroundings(Protocol):
    """What one connection sees of all others, and of the listener."""

    @property
    def journal(self) -> Journal:
        """Where records go."""

    @property
    def shares(self) -> Journal:
        """Where records of shared names go: see `Claim.shared`."""

    def chunks(self, device: str) -> Chunks:
        """Return the chunks that a device has sent lately."""

    @property
    def identities(self) -> Identities:
        """What the registry says of those who connect."""

    @property
    def paused(self) -> bool:
        """Whether the journal takes no more for now."""

    def now(self) -> float:
        """Return the time by which deadlines are kept; seconds since some moment."""

    def stamp(self) -> bytes:
        """Return the time by which records are stamped: UTC, RFC 3339."""

    def add(self, connection: Member) -> None:
        """Called when a connection was made."""

    def queue_up(self, connection: Member) -> None:
        """Call `take_turn` of a connection when it is its turn."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """Call something after so many seconds."""

    def let_in(self, connection: Member) -> None:
        """Called when a device has proved its name and holds its lease."""

    def left(self, connection: Member, delivery: Delivery) -> None:
        """Called when a device gives its lease back."""

    def ended(self, connection: Member, error: PeerError) -> None:
        """Called when a conversation ends with an error."""

    def took(self, connection: Member, size: int, begun: float) -> None:
        """Called when a read of `size` bytes was dealt with, which began at `begun`."""

    def broke(self, connection: Member, reason: str) -> None:
        """Called when the encryption of a connection has failed."""

    def remove(self, connection: Member) -> None:
        """Called when a connection is lost."""
