"""The handshake of Fluent Forward v1: HELO, PING, PONG.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1#authentication
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha512
from secrets import token_bytes
from typing import Any, NamedTuple

import msgpack

from ingest.wire.errors import ErrorCode, PeerError

MAX_PING = 4096
"""Bytes that a PING may have: two names and three digests."""

_NONCE = 16  # bytes
_HOST = "ingest"
_OTHER_HOST = "ingest-listener"
"""What the listener calls itself. Fluentd refuses a server that has its own name."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a client must know.

    Attributes:
        shared_key: that of all clients.
        users: passwords by user; empty where none is wanted.
    """

    shared_key: bytes
    users: Mapping[str, str] = field(default_factory=dict)


class Ping(NamedTuple):
    """The PING of a client, as it came: nothing of it is proved.

    Attributes:
        raw_host: what the client calls its host; a name may be any bytes.
        salt: the client's part of what its digest is made of.
        digest: shows that it knows the shared key.
        raw_user: what the client calls its user; empty where it has none.
        password: the digest that shows that it knows the user's password.
    """

    raw_host: bytes
    salt: bytes
    digest: bytes
    raw_user: bytes
    password: bytes

    @property
    def host(self) -> str:
        """What the client calls its host."""
        return self.raw_host.decode(errors="replace")

    @property
    def user(self) -> str:
        """What the client calls its user."""
        return self.raw_user.decode(errors="replace")


class Handshake:
    """One connection's handshake."""

    __slots__ = ("_nonce", "_salt", "_secrets")

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._nonce = token_bytes(_NONCE)
        self._salt = token_bytes(_NONCE) if secrets.users else b""

    def helo(self) -> bytes:
        """Write the HELO; Fluent Bit wants it in one read."""
        options = {"nonce": self._nonce, "auth": self._salt or "", "keepalive": True}
        return _pack(["HELO", options])

    def check(self, ping: Ping) -> bytes:
        """Check a PING; return the PONG that lets the client in.

        Raises:
            PeerError: a digest is wrong.
        """
        key = self._secrets.shared_key
        if not _is_same(ping.digest, ping.salt, ping.raw_host, self._nonce, key):
            raise PeerError(ErrorCode.AUTH_FAILED, "shared key mismatch")
        if self._secrets.users:
            known = self._secrets.users.get(ping.user, "")
            good = _is_same(ping.password, self._salt, ping.raw_user, known.encode())
            if not (good and known):
                raise PeerError(ErrorCode.AUTH_FAILED, "unknown user or wrong password")
        ours = _HOST if ping.host != _HOST else _OTHER_HOST
        proof = _digest(ping.salt, ours.encode(), self._nonce, key)
        return _pack(["PONG", True, "", ours, proof])


def refusal(error: PeerError) -> bytes:
    """Write the PONG that does not let a client in."""
    return _pack(["PONG", False, error.text, "", ""])


def read_ping(message: bytes) -> Ping:
    """Read a PING.

    Args:
        message: one msgpack object.

    Raises:
        PeerError: it is none.
    """
    try:
        ping: Any = msgpack.unpackb(message, raw=True)
    except Exception:  # the decoder's errors share no better base
        ping = None
    if (
        not isinstance(ping, list)
        or len(ping) != 6
        or ping[0] != b"PING"
        or not all(isinstance(word, bytes) for word in ping)
    ):
        raise PeerError(ErrorCode.AUTH_REQUIRED, "a PING of six strings is wanted here")
    return Ping(*ping[1:])


def _digest(*parts: bytes) -> str:
    return sha512(b"".join(parts)).hexdigest()


def _is_same(given: bytes, *parts: bytes) -> bool:
    return hmac.compare_digest(given, _digest(*parts).encode())


def _pack(message: list[object]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed
