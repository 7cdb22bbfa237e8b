"""The handshake of Fluent Forward v1: HELO, PING, PONG.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1#authentication
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha512
from secrets import token_bytes
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Ping:
    """A PING whose digests are good.

    Attributes:
        host: what the client calls its host.
        user: the user whose password it knows; empty where none is wanted.
        pong: the answer that lets it in.
    """

    host: str
    user: str
    pong: bytes


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

    def check(self, message: bytes) -> Ping:
        """Check a PING.

        Args:
            message: one msgpack object.

        Raises:
            PeerError: it is none, or a digest is wrong.
        """
        host, salt, digest, user, password = _read_ping(message)
        key = self._secrets.shared_key
        if not _is_same(digest, salt, host, self._nonce, key):
            raise PeerError(ErrorCode.AUTH_FAILED, "shared key mismatch")
        if self._secrets.users:
            known = self._secrets.users.get(user.decode(errors="replace"), "")
            good = _is_same(password, self._salt, user, known.encode())
            if not (good and known):
                raise PeerError(ErrorCode.AUTH_FAILED, "unknown user or wrong password")
        else:
            user = b""
        ours = _HOST if host != _HOST.encode() else _OTHER_HOST
        proof = _digest(salt, ours.encode(), self._nonce, key)
        pong = _pack(["PONG", True, "", ours, proof])
        return Ping(host.decode(errors="replace"), user.decode(errors="replace"), pong)


def refusal(error: PeerError) -> bytes:
    """Write the PONG that does not let a client in."""
    return _pack(["PONG", False, error.text, "", ""])


def _read_ping(message: bytes) -> list[bytes]:
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
    return ping[1:]


def _digest(*parts: bytes) -> str:
    return sha512(b"".join(parts)).hexdigest()


def _is_same(given: bytes, *parts: bytes) -> bool:
    return hmac.compare_digest(given, _digest(*parts).encode())


def _pack(message: list[object]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed
