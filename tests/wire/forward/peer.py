"""A listener without sockets and disks for conversations whose clients share a name."""

from collections.abc import Sequence

from ingest.record import record_block
from ingest.wire.chunks import RecentChunks
from ingest.wire.conversation import (
    Claim,
    Context,
    Conversation,
    Converse,
    Ended,
    Event,
    Grant,
    Peer,
    Send,
)
from ingest.wire.errors import PeerError
from ingest.wire.framing import Frames
from tests.wire.ingest1.peer import find_keys
from tests.wire.streams import TIME

LOCAL = Peer("127.0.0.1", 50123, encrypted=False, local=True)
ELSEWHERE = Peer("192.0.2.1", 50123, encrypted=False, local=False)


class Log:
    """What the connections of one device have stored, in their order.

    Attributes:
        block: the records.
        last: the number of the newest.
        durable: the number of the newest that is on disk.
    """

    def __init__(self) -> None:
        self.block = b""
        self.last = 0
        self.durable = 0
        self.chunks = RecentChunks()

    @property
    def lines(self) -> list[bytes]:
        return self.block.splitlines()


class Client:
    """Carries out the events of one conversation.

    Attributes:
        sent: the bytes that the client gets.
        claims: what was claimed.
        ended: how it ended; one item at most.
    """

    def __init__(
        self,
        converse: Converse,
        log: Log | None = None,
        *,
        peer: Peer = LOCAL,
        slow: bool = False,
        refusal: PeerError | None = None,
        max_frame: int = 65536,
    ) -> None:
        """Connect.

        Args:
            converse: makes the conversation.
            log: what others have stored.
            peer: where the client is.
            slow: whether records become durable by `sync` only, instead of at once.
            refusal: why it is not let in.
            max_frame: the most bytes of a frame.
        """
        self.log = log or Log()
        self.sent = b""
        self.claims: list[Claim] = []
        self.ended: list[Ended] = []
        self._slow = slow
        self._numbers: list[int] = []  # of each frame of ours, its number in the log
        self._told = 0
        self.conversation: Conversation = converse(
            Context(peer, max_frame, False, find_keys, refusal)
        )
        self._carry_out(self.conversation.begin())

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.ended:
                self._carry_out(self.conversation.receive(piece))

    def close_side(self) -> None:
        if not self.ended:
            self._carry_out(self.conversation.end_of_stream())

    def take(self) -> bytes:
        """Return what was sent since the last call."""
        sent, self.sent = self.sent, b""
        return sent

    def sync(self) -> None:
        """Make all records durable."""
        self.log.durable = self.log.last
        if len(self._numbers) > self._told:
            self._told = len(self._numbers)
            self.sent += self.conversation.acknowledge(self._told)

    def _is_durable(self, seq: int) -> bool:
        return seq <= len(self._numbers) and self._numbers[seq - 1] <= self.log.durable

    def _carry_out(self, events: Sequence[Event]) -> None:
        for event in events:
            assert not self.ended, f"{event} after the end"
            match event:
                case Send():
                    self.sent += event.data
                case Frames():
                    self._append(event)
                case Claim():
                    self.claims.append(event)
                    chunks = self.log.chunks.of(event.device)
                    grant = Grant(1, TIME, "", self._is_durable, chunks)
                    self._carry_out(self.conversation.granted(grant))
                case Ended():
                    self.sync()
                    self.ended.append(event)
                    if event.error is not None:
                        self.sent += self.conversation.farewell(event.error)
        if not self._slow and not self.ended:
            self.sync()

    def _append(self, frames: Frames) -> None:
        count = len(frames.values.items)
        if count:
            log = self.log
            log.block += record_block(TIME, b"d", log.last + 1, frames.values)
            self._numbers += range(log.last + 1, log.last + count + 1)
            log.last += count
