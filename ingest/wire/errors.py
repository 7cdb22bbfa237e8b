"""What the peer did wrong, as the wire names it."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The word after `ERR` (text) or in `err` (msgpack)."""

    AUTH_REQUIRED = "auth-required"
    AUTH_FAILED = "auth-failed"
    AUTH_TIMEOUT = "auth-timeout"
    MECHANISM_UNSUPPORTED = "mechanism-unsupported"
    PLAINTEXT_REFUSED = "plaintext-refused"
    BAD_FRAME = "bad-frame"
    FRAME_TOO_LONG = "frame-too-long"
    REPLACED = "replaced"
    REVOKED = "revoked"
    IDLE_TIMEOUT = "idle-timeout"
    BUSY = "busy"
    SHUTTING_DOWN = "shutting-down"


class PeerError(Exception):
    """The conversation can't go on; the peer is told why and the connection closes.

    Attributes:
        code: the word for a program.
        text: one line for a person; it never repeats what the peer sent.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def without_traceback(self) -> "PeerError":
        """Return the error as it was before it was raised.

        The traceback of an error that is kept knows the frames that keep it, and all that they
        know: a cycle, which would wait for the garbage collector.
        """
        return PeerError(self.code, self.text)


class IllegalStep(Exception):  # noqa: N818 - the fault is the caller's, and none of the peer's
    """A conversation was told of what can't have happened; nothing has changed."""


def bad_frame(text: str) -> PeerError:
    """Make the error for bytes that are no frame and no message."""
    return PeerError(ErrorCode.BAD_FRAME, text)


def too_long(limit: int) -> PeerError:
    """Make the error for a message or frame that needs more than `limit` bytes."""
    return PeerError(ErrorCode.FRAME_TOO_LONG, f"more than {limit} bytes")
