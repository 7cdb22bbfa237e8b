"""Which files make the log, in which order, and what lies beside them and is left out.

What the listener closed is in the order of its names. The numbers of their records place what an
external rotation left. What has the same first record as another file is a copy of it and is left
out, as is what can't be read (`ingest.log.1.xz`) or what has another name.
"""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ingest.log.decompressing import SUFFIXES
from ingest.log.files import (
    ACTIVE,
    LogFile,
    head_in,
    head_of_open,
    identity,
    is_member,
    sample,
    suffix_of,
)
from ingest.log.order import Clues, oldest_first

_OTHER_COMPRESSION = (".xz", ".bz2", ".lz4", ".lzma", ".lzo", ".7z", ".zip", ".Z", ".br")
_LOOKS_LIKE_THE_LOG = re.compile(r"ingest(?:\.log|-)(?!.*\.tmp$).*", re.DOTALL)


class LeftOut(NamedTuple):
    """What lies in the folder, looks like a file of the log, and is not read; and why."""

    path: Path
    why: str


class Listing(NamedTuple):
    """The log, oldest file first and the active one last, and what is left out."""

    files: list[LogFile]
    left_out: list[LeftOut]


def list_log(folder: Path) -> Listing:
    """List the log, and what is left out of it.

    A file that stands there both compressed and not is listed once: as the original, since that
    one is removed only after its copy is on disk. If all names are the listener's no file is
    opened: their order is known.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    with os.scandir(folder) as entries:
        found = {entry.name: entry for entry in entries}
    names = {name for name, entry in found.items() if is_member(name) and entry.is_file()}
    left_out = [
        LeftOut(folder / name, _why_not(name))
        for name in found.keys() - names
        if _LOOKS_LIKE_THE_LOG.fullmatch(name)
    ]
    files = [
        LogFile(folder / name, suffix_of(name), found[name].inode())
        for name in names
        if not _has_better(name, names)
    ]
    if all(file.closed or file.path.name == ACTIVE for file in files):
        files.sort(key=lambda file: file.closed or "")
    else:
        files = _without_copies(files, left_out)
        files = [files[place] for place in oldest_first([_clues(file) for file in files])]
    files.sort(key=lambda file: file.path.name == ACTIVE)
    return Listing(files, sorted(left_out))


def log_files(folder: Path) -> list[LogFile]:
    """List the log, oldest file first and the active one last: see `list_log`.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    return list_log(folder).files


def snapshot(folder: Path) -> tuple[list[LogFile], BinaryIO | None]:
    """List the files that are older than the active one, and open the active one.

    A rotation between the two steps would hide a file; then both are taken again. The active
    file is opened unbuffered: its reader sees what is there now, and None if there is none.

    Raises:
        OSError: the folder can't be read, or is missing.
    """
    while True:
        active = _open_active(folder)
        head = active and head_of_open(active)
        older = [file for file in log_files(folder) if file.path.name != ACTIVE]
        if identity(folder / ACTIVE) == (active and identity(active.fileno())) and head == (
            active and head_of_open(active)  # another one after a copytruncate
        ):
            return older, active
        if active is not None:
            active.close()


def _has_better(name: str, names: Collection[str]) -> bool:
    suffix = suffix_of(name)
    better = SUFFIXES[: SUFFIXES.index(suffix)]
    return any(name.removesuffix(suffix) + other in names for other in better)


def _why_not(name: str) -> str:
    if is_member(name):
        return "it is no regular file"
    if name.endswith(_OTHER_COMPRESSION):
        return "only .gz and .zst are read"
    return "its name is none of the log's"


def _without_copies(files: Iterable[LogFile], left_out: list[LeftOut]) -> list[LogFile]:
    """Leave out what begins as another file does: a backup, or half of a copytruncate."""
    first: dict[bytes, LogFile] = {}
    kept = []
    for file in sorted(files, key=_rank):
        head = _head_or_nothing(file)
        if head and head in first:
            what = f"it begins with the same record as {first[head].path.name}"
            left_out.append(LeftOut(file.path, what))
        else:
            first[head] = file
            kept.append(file)
    return kept


def _rank(file: LogFile) -> tuple[bool, bool, int, str]:
    """Sort first what is to be read of files that begin alike; copies may be cut short."""
    try:
        size = file.path.stat().st_size
    except OSError:
        size = 0
    name = file.path.name
    return name != ACTIVE and not file.closed, bool(file.compressed), -size, name


def _head_or_nothing(file: LogFile) -> bytes:
    try:
        return head_in(file)
    except OSError:  # whoever reads the file will say so
        return b""


def _clues(file: LogFile) -> Clues:
    if file.path.name == ACTIVE:
        return Clues("", "", False, {})  # the newest, whatever its records say
    begun, numbers = sample(file)
    return Clues(file.closed or begun, file.path.name, bool(file.closed), numbers)


def _open_active(folder: Path) -> BinaryIO | None:
    try:
        return (folder / ACTIVE).open("rb", buffering=0)
    except FileNotFoundError:
        return None
