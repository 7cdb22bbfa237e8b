"""What a connection sees of all others, and what they see of it."""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Connection

from ingest.journal.interface import Journal
from ingest.listener.books import Delivery
from ingest.listener.phases import Phase
from ingest.wire.chunks import Chunks
from ingest.wire.conversation import Claim, Context, Peer
from ingest.wire.errors import PeerError
from ingest.wire.sasl import Credentials


class Member(Protocol):
    """What the fleet sees of one connection.

    Attributes:
        protocol: what is spoken on it.
        heard: when the device last sent something, by `Surroundings.now`.
        made: when the connection was made, by the same.
        claimed: the name that the device claims, proved or not; empty before it claims one.
        delivery: what it has brought; None before the device was let in.
        phase: where it stands.
        read_size: bytes of one read at most.
        revocations: the mark of the last revocation when the connection was made.
        socket: what is read, below TLS and other wrappers; None where the transport has none.
    """

    protocol: str
    heard: float
    made: float
    claimed: str
    delivery: Delivery | None
    phase: Phase
    read_size: int
    revocations: int
    socket: Connection | None

    @property
    def mechanism(self) -> str:
        """By what the device proves its name; empty before it says so."""

    @property
    def device(self) -> str:
        """The device's name, once it holds its lease; empty before."""

    @property
    def peer(self) -> Peer:
        """The other end."""

    @property
    def is_reading(self) -> bool:
        """Whether we read from the device, and so hear when it closes."""

    def take_turn(self) -> None:
        """Go on with the handshake, if it is still there."""

    def fail(self, error: PeerError) -> None:
        """End the conversation from our side, with all that was accepted acknowledged."""

    def abort(self) -> None:
        """Cut the connection."""

    def update_reading(self) -> None:
        """Called when `Surroundings.paused` has changed."""

    def rest(self, size: int) -> None:
        """Read nothing until `resume`, and then at most `size` bytes at once."""

    def read_more(self) -> None:
        """Called when a read was as long as it may be, and was dealt with quickly."""

    def resume(self) -> None:
        """Read again after `rest`."""

    def check_deadline(self, now: float) -> None:
        """End what has taken too long; called now and then."""

    def forgive(self, seconds: float) -> None:
        """Let the seconds just passed not count against the device."""


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
    def paused(self) -> bool:
        """Whether the journal takes no more for now."""

    @property
    def handshake_timeout(self) -> float:
        """Seconds that a device may take to say who it is."""

    @property
    def idle_timeout(self) -> float:
        """Seconds that a device may say nothing; 0 for no bound."""

    def now(self) -> float:
        """Return the time by which deadlines are kept; seconds since some moment."""

    def stamp(self) -> bytes:
        """Return the time by which records are stamped: UTC, RFC 3339."""

    def context(self, peer: Peer, refusal: PeerError | None) -> Context:
        """Return what a conversation may know."""

    def add(self, connection: Member) -> None:
        """Called when a connection was made."""

    def queue_up(self, connection: Member) -> None:
        """Call `take_turn` of a connection when it is its turn."""

    def check_token(self, peer: Peer, credentials: Credentials) -> Deferred[bool]:
        """Tell whether a token is a device's.

        Raises:
            PeerError: it is not to be checked now.
        """

    def last_revocation(self) -> int:
        """Return the mark of the last revocation."""

    def check_claim(self, claim: Claim, since: int) -> None:
        """See that the registry has nothing against a claim; see `Standing`.

        Args:
            claim: the claim.
            since: what `last_revocation` gave when the connection was made.

        Raises:
            PeerError: it has, or can't be asked now.
        """

    def format_of(self, device: str) -> str:
        """Return what a device's lines of text are; empty where the registry does not say.

        Raises:
            PeerError: it can't be asked now.
        """

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
