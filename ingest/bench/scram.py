"""The device's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) for thousands of devices.

`ingest.client.Scram` is for one device and checks that the server knows the token too; this one
leaves that out, and derives a key once for all devices that share their token and salt.
"""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from functools import lru_cache
from typing import NamedTuple


class Keys(NamedTuple):
    """What a token gives (RFC 5802, section 3)."""

    client: bytes
    stored: bytes


def first(name: str) -> bytes:
    """Write client-first-message-bare with a new nonce; `n,,` before it makes it the message."""
    return f"n={name},r={secrets.token_hex(12)}".encode()


def final(first_bare: bytes, server_first: bytes, token: str) -> bytes:
    """Write client-final-message, the proof.

    Raises:
        ValueError: `server_first` is malformed.
    """
    fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
    try:
        keys = _keys(token, b64decode(fields[b"s"]), int(fields[b"i"]))
        without_proof = b"c=biws,r=" + fields[b"r"]  # biws is the base64 of `n,,`
    except KeyError as error:
        raise ValueError(f"the challenge lacks {error}") from None
    signature = hmac.digest(
        keys.stored, b",".join((first_bare, server_first, without_proof)), "sha256"
    )
    proof = int.from_bytes(keys.client) ^ int.from_bytes(signature)
    return without_proof + b",p=" + b64encode(proof.to_bytes(32))


@lru_cache(maxsize=1024)
def _keys(token: str, salt: bytes, iterations: int) -> Keys:
    salted = hashlib.pbkdf2_hmac("sha256", token.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return Keys(client, hashlib.sha256(client).digest())
