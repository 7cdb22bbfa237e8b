"""How a device proves its name: the SASL mechanisms (RFC 4422) of `ingest/1`."""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from scramp import ScramException, ScramMechanism

from ingest.names import is_device_name
from ingest.wire.errors import ErrorCode, PeerError, bad_frame

PLAIN = "PLAIN"
SCRAM_SHA_256 = "SCRAM-SHA-256"

# RFC 5802, section 7, as far as a listener without channel binding goes. The name is looked at
# here, before the message is taken apart: SASLprep costs 30 us for each character of a name.
_CLIENT_FIRST = re.compile(rb"[ny],,n=((?:[^\0,=]++|=2C|=3D)++),r=")


class StoredKeys(Protocol):
    """What the server keeps of a token (RFC 5802, section 3)."""

    @property
    def salt(self) -> bytes:
        """The salt, at least 12 bytes."""

    @property
    def iterations(self) -> int:
        """The iteration count, at least 4,096 (RFC 7677, section 4)."""

    @property
    def stored_key(self) -> bytes:
        """H(HMAC(SaltedPassword, "Client Key"))."""

    @property
    def server_key(self) -> bytes:
        """HMAC(SaltedPassword, "Server Key")."""


FindKeys = Callable[[str], StoredKeys]
"""Returns the keys of a device; for a name that may not log in, keys that no token has."""


class Credentials(NamedTuple):
    """A claimed name and the token that would prove it."""

    device: str
    token: str


def auth_failed() -> PeerError:
    """Make the one answer for an unknown device, a wrong token and a disabled device."""
    return PeerError(ErrorCode.AUTH_FAILED, "unknown device, wrong token or device disabled")


def parse_plain(data: bytes) -> Credentials:
    """Read a PLAIN message: `[authzid] NUL authcid NUL passwd` (RFC 4616, section 2).

    Raises:
        PeerError: it is malformed, asks to act for another device, or names what can't be one.
    """
    try:
        authzid, device, token = data.decode().split("\0")
    except ValueError:
        raise bad_frame("a PLAIN response is NUL device NUL token") from None
    if authzid not in ("", device) or not is_device_name(device):
        raise auth_failed()
    return Credentials(device, token)


class ScramExchange:
    """The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding."""

    _mechanism = ScramMechanism(SCRAM_SHA_256)

    def __init__(self, find_keys: FindKeys) -> None:
        self._find_keys = find_keys
        self._server = self._mechanism.make_server(self._auth_fn)
        self.device = ""

    def challenge(self, client_first: bytes) -> bytes:
        """Answer the client's first message with the server's first.

        Raises:
            PeerError: the message is malformed, or names what can't be a device.
            Exception: what `find_keys` raised.
        """
        _check_name(client_first)
        try:
            self._server.set_client_first(client_first.decode())
            challenge: str = self._server.get_server_first()
        except (ScramException, UnicodeDecodeError) as error:
            if self.device:  # the message is good: scramp wraps what the look-up raised
                raise (error.__cause__ or error) from None
            raise bad_frame("not a SCRAM client-first-message") from error
        return challenge.encode()

    def verify(self, client_final: bytes) -> bytes:
        """Check the client's proof and return the server's final message, with its own.

        Raises:
            PeerError: the proof is wrong.
        """
        server = self._server
        del self._server  # which knows us: as a cycle, both would wait for the garbage collector
        try:
            server.set_client_final(client_final.decode())
            final: str = server.get_server_final()
        except (ScramException, UnicodeDecodeError) as error:
            raise auth_failed() from error
        return final.encode()

    def _auth_fn(self, username: str) -> tuple[bytes, bytes, bytes, int]:
        self.device = username
        keys = self._find_keys(username)
        return keys.salt, keys.stored_key, keys.server_key, keys.iterations


def _check_name(client_first: bytes) -> None:
    found = _CLIENT_FIRST.match(client_first)
    if found is None:
        raise bad_frame("not a SCRAM client-first-message")
    if not is_device_name(found[1].decode(errors="replace")):
        raise auth_failed()
