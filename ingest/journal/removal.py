"""What retention has removed of the log, noted beside it for a start that finds no positions.

Once files are removed the log alone no longer tells which numbers were given. Whether it has to
is told by `.ingest-removed` in the log's folder, one line of JSON that is written before the files
go:

    {"newest":"ingest-20261122T113900.123Z.log","highest":4711}
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from ingest.layout import open_own
from ingest.log.files import sync_folder

_NAME = ".ingest-removed"
_FRESH = f"{_NAME}.tmp"
_ROOM = 512  # bytes, more than a note has


class Removal(NamedTuple):
    """What was removed.

    Attributes:
        newest: the name of the newest file, as it was when it was closed; empty for none.
        highest: no record in those files has a higher number.
    """

    newest: str
    highest: int


NOTHING = Removal("", 0)


def keep_room(folder: Path) -> None:
    """Keep room for the next note: on a full disk there is none, and files go to make some.

    Raises:
        OSError: the disk is full already, or failing.
    """
    with _fresh(folder) as stream:
        os.posix_fallocate(stream.fileno(), 0, _ROOM)


def note_removal(folder: Path, removal: Removal) -> None:
    """Note what is about to be removed, and wait until that is on disk.

    Raises:
        OSError: the disk is full or failing, or what bears the note's name is no file of ours.
    """
    with _fresh(folder) as stream:
        stream.write(orjson.dumps(removal._asdict()) + b"\n")
        stream.truncate()
        os.fsync(stream.fileno())
    (folder / _FRESH).replace(folder / _NAME)
    sync_folder(folder)


def _fresh(folder: Path) -> BinaryIO:
    """Open what becomes the next note, with the room that it has; begin it if it is not there."""
    path = folder / _FRESH
    with suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # others put it there
            path.unlink()
    return os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb", buffering=0)


def read_removal(folder: Path) -> Removal:
    """Return what was removed of a log; `NOTHING` if nothing was, or if the note makes no sense.

    Raises:
        OSError: the note is there and can't be read.
    """
    try:
        fields = orjson.loads((folder / _NAME).read_bytes())
        return Removal(str(fields["newest"]), int(fields["highest"]))
    except FileNotFoundError:
        return NOTHING
    except (ValueError, TypeError, KeyError):
        return NOTHING  # somebody else wrote it: a note is renamed into place when it is whole
