"""What the listener keeps of a device's token: enough to check it, not enough to use it."""

import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from scramp.utils import ScramException, saslprep

ITERATIONS = 4096
"""The least that RFC 7677 (section 4) allows; made tokens are random and need no more."""

MAX_TOKEN = 1024
"""Bytes of UTF-8: with the longest name and in base64 it still fits the first line of a device."""

_SALT_BYTES = 16
_KEY_BYTES = 32
_TASK = 50  # tokens: 40 ms of work for a thread


class InvalidToken(ValueError):  # noqa: N818 - a refusal, named for what is refused
    """A token that no device may have; the message says why."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server keeps of a token (RFC 5802 section 3, with SHA-256 as in RFC 7677).

    Attributes:
        salt: 16 random bytes.
        iterations: of PBKDF2.
        stored_key: H(HMAC(SaltedPassword, "Client Key")), 32 bytes.
        server_key: HMAC(SaltedPassword, "Server Key"), 32 bytes.
    """

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def make_token() -> str:
    """Make a token of 256 random bits: 43 characters of A-Z a-z 0-9 _ -."""
    return secrets.token_urlsafe(32)


def clean_token(text: str) -> str:
    """Return the token that somebody wrote in a file, a variable or a command line.

    Blanks and line ends around it are not part of it.

    Raises:
        InvalidToken: no device may have it; see `normalize`.
    """
    token = text.strip()
    normalize(token)
    return token


def normalize(token: str) -> bytes:
    """Prepare a token with SASLprep (RFC 4013), so that every way to type it is the same token.

    Raises:
        InvalidToken: it is empty, longer than `MAX_TOKEN`, or has a prohibited character.
    """
    _check_length(token)
    # SASLprep leaves printable ASCII as it is; to walk its tables costs 2 us a character.
    prepared = token if token.isascii() and token.isprintable() else _saslprep(token)
    if not prepared:
        raise InvalidToken("a token can't be empty")
    return prepared.encode()


def _check_length(token: str) -> None:
    if len(token.encode("utf-8", "surrogatepass")) > MAX_TOKEN:
        raise InvalidToken(f"a token has at most {MAX_TOKEN:,} bytes")


def _saslprep(token: str) -> str:
    # One character becomes up to 18 (U+FDFA) in the first step of SASLprep, which is in C; the
    # next ones are not, and would hold the interpreter for 10 ms.
    _check_length(unicodedata.ucd_3_2_0.normalize("NFKC", token))
    try:
        prepared: str = saslprep(token)
    except ScramException as error:
        raise InvalidToken(f"not a token by SASLprep (RFC 4013): {error.args[0]}") from None
    return prepared


def derive(token: str, salt: bytes | None = None) -> Verifier:
    """Make the verifier of a token; about 1 ms, during which other threads run.

    Args:
        token: what the device knows.
        salt: random bytes; fresh ones if None.

    Raises:
        InvalidToken: see `normalize`.
    """
    return _derive(token, secrets.token_bytes(_SALT_BYTES) if salt is None else salt, ITERATIONS)


def derive_many(tokens: Sequence[str]) -> Generator[Verifier, None, None]:
    """Make the verifiers of many tokens, in their order, on every core.

    Close the generator to stop early: no thread then works on.

    Raises:
        InvalidToken: see `normalize`.
    """
    tasks = [tokens[start : start + _TASK] for start in range(0, len(tokens), _TASK)]
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        for verifiers in pool.map(_derive_task, tasks):
            yield from verifiers
    finally:
        pool.shutdown(cancel_futures=True)


def _derive_task(tokens: Sequence[str]) -> list[Verifier]:
    return [derive(token) for token in tokens]


def _derive(token: str, salt: bytes, iterations: int) -> Verifier:
    # Not hashlib's PBKDF2: with OpenSSL 3 it takes twice as long.
    salted = PBKDF2HMAC(SHA256(), _KEY_BYTES, salt, iterations).derive(normalize(token))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return Verifier(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def matches(verifier: Verifier, token: str) -> bool:
    """Tell whether the verifier is this token's; as slow as `derive`: not for the reactor thread.

    The comparison takes constant time.
    """
    try:
        derived = _derive(token, verifier.salt, verifier.iterations)
    except InvalidToken:
        return False
    return hmac.compare_digest(derived.stored_key, verifier.stored_key)


def decoy(name: str, key: bytes) -> Verifier:
    """Make the verifier of a device that does not exist; no token matches it.

    A device that does exist shows the same salt in each SCRAM handshake, so one that does not
    must too, or the salt would tell which names exist.

    Args:
        name: the name that was claimed.
        key: a secret of the server, kept as long as salts should stay the same.
    """
    salt, stored_key, server_key = (
        hmac.digest(key, purpose + name.encode(), "sha256")
        for purpose in (b"salt:", b"stored key:", b"server key:")
    )
    return Verifier(salt[:_SALT_BYTES], ITERATIONS, stored_key, server_key)
