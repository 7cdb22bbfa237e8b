"""Numbers that the listener left out on purpose, noted beside the log for those who read it.

Where the log no longer tells which numbers were given (its end was deleted, or an older copy was
restored), all devices go on at much higher ones. Which, is added to `.ingest-jumps` in the log's
folder, one line of JSON each time; `others` is where those begin that are not named:

    {"time":"2026-11-22T11:39:00.000000Z","next":{"sensor-1":10000052},"others":10000001}
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from ingest.layout import open_own
from ingest.log.files import sync_folder
from ingest.record import record_time

_NAME = ".ingest-jumps"


class Jump(NamedTuple):
    """Numbers that were left out.

    Attributes:
        following: the number at which each device goes on that was known.
        others: the number at which all others begin; 1 if none of theirs are left out.
    """

    following: Mapping[str, int]
    others: int


def note_jump(
    folder: Path, moment: datetime, following: Mapping[str, int], others: int = 1
) -> None:
    """Note that the devices go on at these numbers, and wait until that is on disk: see `Jump`.

    Raises:
        OSError: the disk is full or failing, or what bears the notes' name is no file of ours.
    """
    time = record_time(moment).decode()
    note = {"time": time, "next": dict(following), "others": others}
    fd = open_own(folder / _NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(fd, "ab") as stream:
        # What a crash left of an earlier note must not spoil this one.
        stream.write(b"\n" + orjson.dumps(note) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)


def read_jumps(folder: Path) -> dict[str, set[int]]:
    """Return the numbers at which each device went on after a jump.

    Raises:
        OSError: the notes are there and can't be read.
    """
    found: dict[str, set[int]] = {}
    for jump in all_jumps(folder):
        for device, number in jump.following.items():
            found.setdefault(device, set()).add(number)
    return found


def all_jumps(folder: Path) -> list[Jump]:
    """Return all jumps that are noted, the oldest first.

    Raises:
        OSError: the notes are there and can't be read.
    """
    try:
        notes = (folder / _NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [jump for note in notes if note and (jump := _jump(note))]


def _jump(note: bytes) -> Jump | None:
    try:
        fields = orjson.loads(note)
        following = {device: int(number) for device, number in fields["next"].items()}
        # Older notes do not say where others begin: it was below all that they name.
        return Jump(following, int(fields.get("others", min(following.values(), default=1))))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # cut short by a crash: the listener noted it again
