"""What the two dialects say to each other, whatever bytes they use for it."""

from dataclasses import dataclass
from sys import intern
from typing import Protocol

from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.framing import Framing, LineFormat
from ingest.wire.sasl import PLAIN, SCRAM_SHA_256

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


def known_mechanism(name: str) -> str:
    """Return the name of a mechanism that we offer; what follows it means nothing without.

    Raises:
        PeerError: we do not offer it.
    """
    if name not in (PLAIN, SCRAM_SHA_256):
        raise PeerError(
            ErrorCode.MECHANISM_UNSUPPORTED, f"the mechanisms are {PLAIN} and {SCRAM_SHA_256}"
        )
    return intern(name)  # each connection keeps it


class Dialect(Framing, Protocol):
    """One connection's way of writing messages and frames: bytes in, meaning out, and back."""

    def auth(self, data: bytes) -> Auth | None:
        """Go on with `data`; return the first message once it is whole.

        Raises:
            PeerError: it is not an authentication message.
        """

    def response(self, data: bytes) -> Response | None:
        """Go on with `data`; return the answer to a challenge once it is whole.

        Raises:
            PeerError: it is not a response.
        """

    def parse_by(self, line_format: LineFormat) -> None:
        """Make the values of frames by this format, if they are lines of text."""

    def unread(self) -> bytes:
        """Give up the bytes that came behind the last message."""

    def ok(self, device: str, grant: Grant, max_frame: int, data: bytes | None) -> bytes:
        """Write the success of the handshake."""

    def challenge(self, data: bytes) -> bytes:
        """Write a challenge of the mechanism."""
