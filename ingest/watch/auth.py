"""Who may look at the page, and who may do something there.

The file of passwords has one user a line, `NAME:ROLE:HASH`, as `ingest page-password` writes it.
A request proves its user by HTTP Basic (RFC 7617).
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ingest.layout import open_own

Role: TypeAlias = Literal["view", "operate"]

ROLES: Final = ("view", "operate")

_N, _R, _P = 1 << 15, 8, 1  # scrypt (RFC 7914): 32 MiB, a tenth of a second
_MEMORY: Final = 64 << 20
_NAME_BYTES: Final = 128
_KNOWN: Final = 1000
"""Credentials that were checked and are remembered, as a keyed hash."""


class PasswordFileError(Exception):
    """The file of passwords can't be used; the text says why."""


@dataclass(frozen=True)
class User:
    """One line of the file."""

    name: str
    role: Role
    salt: bytes
    key: bytes

    def matches(self, password: str) -> bool:
        """Tell whether it is the password; takes a tenth of a second."""
        return hmac.compare_digest(_derive(password, self.salt), self.key)


def password_line(name: str, role: Role, password: str) -> str:
    """Write the line of a user.

    Raises:
        ValueError: the name is empty or too long, or holds a colon or a control character.
    """
    if not name or ":" in name or not name.isprintable() or len(name.encode()) > _NAME_BYTES:
        raise ValueError(f"a user's name has 1 to {_NAME_BYTES} bytes and no colon")
    salt = secrets.token_bytes(16)
    parts = (base64.b64encode(part).decode() for part in (salt, _derive(password, salt)))
    return f"{name}:{role}:{'$'.join(parts)}"


def read_passwords(path: Path) -> dict[str, User]:
    """Read a file of passwords.

    Raises:
        PasswordFileError: it can't be read, others may, or a line makes no sense.
    """
    try:
        with os.fdopen(open_own(path, os.O_RDONLY), encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise PasswordFileError(f"{path} may be read by others: chmod 600 {path}")
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PasswordFileError(f"can't read {path}: {error}") from error
    users = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            user = _parse(line, f"{path}, line {number}")
            users[user.name] = user
    if not users:
        raise PasswordFileError(f"{path} has no user: `ingest page-password NAME >> {path}`")
    return users


def _parse(line: str, where: str) -> User:
    name, *rest = line.strip().split(":")
    match rest:
        case ["view" | "operate" as role, keys]:
            try:
                salt, key = (base64.b64decode(part, validate=True) for part in keys.split("$"))
                return User(name, role, salt, key)
            except (ValueError, binascii.Error):
                pass
    raise PasswordFileError(
        f"{where} is not NAME:view:HASH or NAME:operate:HASH; `ingest page-password` writes one"
    )


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32)


class Passwords:
    """A file of passwords, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            PasswordFileError: see `read_passwords`.
        """
        self._path = path
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, Role] = {}
        self._changed = self._state()
        self._users: Mapping[str, User] = read_passwords(path)
        self._nobody = User("", "view", secrets.token_bytes(16), secrets.token_bytes(32))

    def remembered(self, authorization: bytes) -> Role | None:
        """Return the role of a header that `check` has let through; None for any other."""
        self._read()
        return self._known.get(self._hash(authorization))

    def check(self, authorization: bytes) -> Role | None:
        """Return the role that a header `Authorization` proves, if any; takes a tenth of a second.

        It takes the same time for a name that nobody has.
        """
        credentials = _credentials(authorization)
        if credentials is None:
            return None
        name, password = credentials
        user = self._users.get(name, self._nobody)
        if not user.matches(password) or user is self._nobody:
            return None
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[self._hash(authorization)] = user.role
        return user.role

    def _hash(self, authorization: bytes) -> bytes:
        return hmac.digest(self._key, authorization, "sha256")

    def _read(self) -> None:
        """Read the file if it changed; one that is missing or broken lets nobody in."""
        changed = self._state()
        if changed == self._changed:
            return
        self._users, self._known, self._changed = {}, {}, changed
        with suppress(PasswordFileError):
            self._users = read_passwords(self._path)

    def _state(self) -> object:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


def _credentials(authorization: bytes) -> tuple[str, str] | None:
    kind, _, encoded = authorization.partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None
    return (name, password) if colon else None
