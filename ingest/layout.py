"""Where things are kept below the data folder, and for whom. Nothing is written elsewhere."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA = Path("ingest-data")

_FOLDER = 0o755
_OTHERS = 0o077
_WORLD_WRITES = 0o002
_ROOT = 0
BESIDE_DATABASE = ("-wal", "-shm")
"""How the names of the files end that SQLite keeps beside a database while it is open."""


_Kind = Callable[[int], bool]


@dataclass(frozen=True)
class Layout:
    """The names on disk below one data folder."""

    data: Path

    @property
    def log_folder(self) -> Path:
        """The folder of the log: the active file and the rotated ones."""
        return self.data / "log"

    @property
    def state_folder(self) -> Path:
        """The folder of everything that is not the log."""
        return self.data / "state"

    @property
    def columns_folder(self) -> Path:
        """The folder of Parquet made of closed files. It can always be made again."""
        return self.data / "columns"

    @property
    def devices(self) -> Path:
        """The registry of devices (SQLite)."""
        return self.state_folder / "devices.db"

    @property
    def positions(self) -> Path:
        """The cache of each device's last number (SQLite)."""
        return self.state_folder / "positions.db"

    @property
    def intent(self) -> Path:
        """The last write, in case a crash cuts it short."""
        return self.state_folder / "intent"

    @property
    def control(self) -> Path:
        """The Unix socket by which the `ingest` command talks to a running listener."""
        return self.state_folder / "control.sock"

    @property
    def page_state(self) -> Path:
        """What the page keeps: its place in the log, and the devices there (SQLite)."""
        return self.state_folder / "page.db"

    @property
    def saved_queries(self) -> Path:
        """Queries that people keep, by name (JSON)."""
        return self.state_folder / "queries.json"

    @property
    def rules_state(self) -> Path:
        """Where the rules stand, and what they have yet to tell whom (SQLite)."""
        return self.state_folder / "rules.db"

    @property
    def alerts_folder(self) -> Path:
        """The log of alerts, which is written and read as the log is."""
        return self.data / "alerts"

    @property
    def lock(self) -> Path:
        """The file that a running listener holds locked, so that no second one writes the log."""
        return self.state_folder / "lock"

    def create(self) -> None:
        """Make the folders that are missing, and see that what is there is safe to use.

        Whatever the umask, no folder is for everyone to write, and the state is its owner's alone.

        Raises:
            OSError: a folder can't be made or closed to others, or something stands in the place
                of one of our files that is not ours.
        """
        _make_folder(self.log_folder, _FOLDER)
        _make_folder(self.state_folder, 0o700)
        _forbid(self.state_folder, _OTHERS)
        with suppress(PermissionError):  # a volume may be everyone's; each file is looked at
            _forbid(self.log_folder, _WORLD_WRITES)
        for path in self._files():
            _check(path, stat.S_ISREG, "a regular file")
        _check(self.control, stat.S_ISSOCK, "a socket")

    def _files(self) -> Iterator[Path]:
        yield from (self.lock, self.intent)
        yield from (self.log_folder / name for name in ("ingest.log", ".ingest-log"))
        for database in (self.devices, self.positions):
            yield from (database.with_name(database.name + end) for end in ("", *BESIDE_DATABASE))


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open or make a file as `os.open` does, but only if it is a regular file and ours.

    Where others may write the folder, they may have put a link there, to a file that they could
    not write themselves.

    Raises:
        OSError: it can't be opened; or it is a link, no regular file, or somebody else's.
    """
    try:
        # A pipe would make us wait for its other end; to a regular file O_NONBLOCK means nothing.
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours(path, "is a symbolic link") from None
        raise
    try:
        _check_status(path, os.fstat(fd), stat.S_ISREG, "a regular file")
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_folder(path: Path, mode: int) -> None:
    """Make a folder and those above it; their modes are narrowed by the umask."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_folder(path.parent, _FOLDER)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():  # or another process has just made it
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path)) from None


def _forbid(folder: Path, bits: int) -> None:
    """Take rights to a folder away from others."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & bits:
        return
    try:
        folder.chmod(mode & ~bits)
    except PermissionError:
        reason = f"is open to other users (mode {mode:04o}): its owner must chmod it"
        raise PermissionError(errno.EPERM, reason, str(folder)) from None


def _check(path: Path, is_kind: _Kind, kind: str) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    _check_status(path, status, is_kind, kind)


def _check_status(path: Path, status: os.stat_result, is_kind: _Kind, kind: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise _not_ours(path, "is a symbolic link")
    if not is_kind(status.st_mode):
        raise _not_ours(path, f"is not {kind}")
    owner = path.parent.stat().st_uid
    if status.st_uid not in (os.geteuid(), owner, _ROOT):
        raise _not_ours(path, f"belongs to another user ({status.st_uid})")
    if status.st_nlink > 1 and status.st_uid != owner:
        raise _not_ours(path, "is a hard link to a file of another user than its folder's")


def _not_ours(path: Path, reason: str) -> OSError:
    return OSError(errno.ELOOP, f"{reason}, and is not used: see who put it there", str(path))
