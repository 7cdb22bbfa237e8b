"""The registry as a listener keeps it open, whatever becomes of the file meanwhile.

A file may be replaced by a restored copy, overwritten in place, damaged or taken away, while
devices are connected. SQLite tells none of that to a connection that is open. So this looks at the
file itself, whenever it is asked for revocations: its number, its size, and when it was written
to. A file that is not the one that was opened, or does not hold what it held, is opened again, and
each device that was let in by keys which are no longer good counts as revoked.
"""

import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

from ingest.devices.registry import Registry, RegistryError
from ingest.devices.verifier import Verifier

_STATE = "SELECT ifnull(max(id), 0), (SELECT devices FROM tally) FROM revocations"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Stamp(NamedTuple):
    """What changes when somebody writes to a file, or puts another in its place."""

    device: int
    inode: int
    size: int
    written: int

    def is_same_file(self, other: "_Stamp") -> bool:
        return self[:2] == other[:2]


def _folder(path: str) -> tuple[int, int]:
    status = os.stat(os.path.dirname(path) or ".")  # noqa: PTH116, PTH120 - as below
    return status.st_dev, status.st_ino


def _stamp(path: str) -> _Stamp:
    status = os.stat(path)  # noqa: PTH116 - four times a second, and at each handshake
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class WatchedRegistry(Registry):
    """A registry whose file may be replaced or damaged while it is open.

    While the file can't be read, `keys` and `revoked_since` raise RegistryError, and the next
    `revoked_since` tries again.

    Attributes:
        health: why the registry can't be read, one line for a person; empty while it can.
    """

    def __init__(self, path: Path) -> None:
        """Open the registry, and make it if there is none.

        Raises:
            RegistryError: it can't be opened or is not a registry.
        """
        self.health = ""
        super().__init__(path)
        self._stamp = _stamp(self._path)
        self._home = _folder(self._path)
        self._hopeless: _Stamp | None = None  # when it was last tried in vain
        self._given: dict[str, bytes] = {}  # the stored keys of those who were looked up
        self._cut: dict[str, int] = {}  # the marks of those whose keys a replaced file has not
        # A mark is the number of a revocation plus the shift. After a replacement the shift grows
        # so that new marks are above all old ones; what the new file revoked before, up to the
        # floor, is its history and no news.
        self._shift = 0
        self._floor = 0
        self._highest = super().last_revocation()
        self._last, self._devices = self._highest, self.count()  # as of the last look

    def last_revocation(self) -> int:
        """Return the mark of the last revocation; see `Registry`."""
        last = self._shift + max(self._floor, super().last_revocation())
        self._highest = max(self._highest, last)
        return last

    def revoked_since(self, mark: int) -> tuple[int, list[str]]:
        """Look at the file, and return whose connections must be cut; see `Registry`.

        Raises:
            RegistryError: the file can't be read now.
        """
        self._look()
        last, devices = self._query(_STATE)[0]
        if self._goes_back(last, devices):
            self._begin_anew(self)
        self._last, self._devices = last, devices
        known = max(mark - self._shift, self._floor)
        names = super().revoked_since(known)[1] if last > known else []
        following = max(last, known) + self._shift
        self._highest = max(self._highest, following)
        if mark < self._shift + self._floor:  # it is from before the file was replaced
            names = [*(name for name, cut_at in self._cut.items() if cut_at > mark), *names]
        return following, names

    def keys(self, name: str) -> Verifier:
        """Return what a handshake under this name goes by; see `Registry`.

        Raises:
            RegistryError: the file could not be read at the last look, or can't be now. What is
                still in memory of it counts no longer.
        """
        if self.health:
            raise RegistryError(self.health)
        return super().keys(name)

    def may_connect(self, name: str, *, unregistered: bool) -> bool:
        """Tell whether a device may connect that proves its name otherwise; see `Registry`.

        It counts as revoked when another file is put in the place of this one.

        Raises:
            RegistryError: see `keys`.
        """
        if self.health:
            raise RegistryError(self.health)
        allowed = super().may_connect(name, unregistered=unregistered)
        if allowed:
            self._given.setdefault(name, b"")
        return allowed

    def _keys_of(self, name: str) -> tuple[bool, Verifier]:
        good, keys = super()._keys_of(name)
        if good:
            self._given[name] = keys.stored_key
        return good, keys

    def _failure(self, error: sqlite3.Error) -> RegistryError:
        if isinstance(error, sqlite3.ProgrammingError):
            return RegistryError(self.health)  # it is closed, since another file is in its place
        failure = super()._failure(error)
        self.health = str(failure)
        return failure

    def _look(self) -> None:
        """Open the file again if it is another one, was written to, or could not be read.

        Raises:
            RegistryError: it can't be read now.
        """
        try:
            if _folder(self._path) != self._home:
                # Another listener's, perhaps: what stands there says nothing of our devices.
                self.health = f"the registry {self._path}: its folder was moved away or replaced"
                raise RegistryError(self.health)
            stamp = _stamp(self._path)
        except OSError as error:
            self.health = f"the registry {self._path}: {error.strerror}: restore it from a backup"
            raise RegistryError(self.health) from error
        if stamp == self._hopeless:
            raise RegistryError(self.health)
        if stamp == self._stamp and not self.health:
            return
        if not stamp.is_same_file(self._stamp):
            # SQLite removes the files beside a database when it closes it, by their names; once
            # the new one is open, they are its own.
            self._connection.close()
        try:
            self._open_again(stamp)
        except RegistryError as error:
            self.health = str(error)
            self._hopeless = stamp if _is_lasting(error) else None
            raise
        self.health = ""
        self._hopeless = None

    def _open_again(self, stamp: _Stamp) -> None:
        fresh = Registry(self._path, make=False)
        try:
            if self.health:
                fresh.check()
            elif stamp.is_same_file(self._stamp) and self._agrees_with(fresh):
                fresh.close()
                self._stamp = stamp
                return
            self._begin_anew(fresh)
        except BaseException:
            fresh.close()
            raise
        self._connection.close()
        self._connection, self._decoy_key = fresh._connection, fresh._decoy_key
        self._stamp = stamp

    def _begin_anew(self, fresh: Registry) -> None:
        """Go by what another registry says from now on; revoke whoever is not good there."""
        good = fresh.stored_keys(self._given)
        lost = [name for name, key in self._given.items() if good.get(name) != key]
        self._floor = Registry.last_revocation(fresh)  # its number, without our shift
        self._last, self._devices = self._floor, fresh.count()
        self._highest += 1
        self._shift = self._highest - self._floor
        for name in lost:
            del self._given[name]
            self._cut[name] = self._highest

    def _agrees_with(self, fresh: Registry) -> bool:
        """Tell whether the file was only written to in good order: what is open here has it too."""
        return not self._goes_back(fresh.last_revocation(), fresh.count()) and (
            fresh.revision() == self.revision()
        )

    def _goes_back(self, last: int, devices: int) -> bool:
        """Tell whether revocations are missing: SQLite has restored an older copy, page by page.

        Args:
            last: the number of the last revocation.
            devices: how many there are; each that is gone must have been revoked.
        """
        news = last - self._last
        return news < 0 or devices < self._devices - news


def _is_lasting(error: RegistryError) -> bool:
    """Tell whether the same bytes will fail again: damage, or another program's file."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGED
