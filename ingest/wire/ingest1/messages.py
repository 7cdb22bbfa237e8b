"""What the two dialects say to each other, whatever bytes they use for it."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ingest.wire.errors import PeerError

MAX_HANDSHAKE = 4096
"""Bytes that a message may have before authentication; a SCRAM message has under 300."""


@dataclass(frozen=True, slots=True)
class Auth:
    """The device's first message: how it will prove its name.

    Attributes:
        mechanism: the SASL mechanism (RFC 4422).
        data: the initial response, decoded.
        wants_acks: False after `ack=none`.
    """

    mechanism: str
    data: bytes
    wants_acks: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """The device's answer to a challenge, decoded."""

    data: bytes


class Records(NamedTuple):
    """The frames of one read, as finished lines of the log.

    Attributes:
        block: the lines.
        frames: how many.
        error: what came after them that is no frame; nothing after it was read.
    """

    block: bytes
    frames: int
    error: PeerError | None = None


NO_RECORDS = Records(b"", 0)


class Dialect(Protocol):
    """One connection's way of writing messages and frames: bytes in, meaning out, and back."""

    def auth(self, data: bytes) -> Auth | None:
        """Take more bytes; return the first message once it is whole.

        Raises:
            PeerError: it is not an authentication message.
        """

    def response(self, data: bytes) -> Response | None:
        """Take more bytes; return the answer to a challenge once it is whole.

        Raises:
            PeerError: it is not a response.
        """

    def unread(self) -> bytes:
        """Give up the bytes that came behind the last message."""

    def records(self, data: bytes, prefix: bytes, first: int) -> Records:
        """Take more bytes; return the frames that are whole now, numbered from `first`."""

    def last_record(self, prefix: bytes, first: int) -> Records:
        """Return what the end of the stream completes."""

    def ok(self, device: str, following: int, max_frame: int, data: bytes | None) -> bytes:
        """Write the success of the handshake; `following` is the next frame's number."""

    def challenge(self, data: bytes) -> bytes:
        """Write a challenge of the mechanism."""

    def ack(self, seq: int) -> bytes:
        """Write that all frames up to `seq` are on disk."""

    def err(self, error: PeerError) -> bytes:
        """Write why the connection closes."""
