"""What there is of a connection only until its device is let in."""

from ingest.wire.conversation import Converse
from ingest.wire.errors import PeerError


class Handshake:
    """What a device does before it is let in, and how long it takes.

    Attributes:
        converse: makes its conversation.
        refusal: why it is not let in, whatever it says; None if it may be.
        early: bytes that came and wait for their turn, or for the lease.
        received_bytes: how many bytes came so far.
        spent: seconds that the device has taken so far; those that it waited for us don't count.
    """

    __slots__ = ("converse", "early", "received_bytes", "refusal", "spent")

    def __init__(self, converse: Converse, refusal: PeerError | None) -> None:
        self.converse = converse
        self.refusal = refusal
        self.early = b""
        self.received_bytes = 0
        self.spent = 0.0

    def take_early(self) -> bytes:
        """Return what waits for its turn, which has come."""
        early, self.early = self.early, b""
        return early
