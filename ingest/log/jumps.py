"""Numbers that the listener left out on purpose, noted beside the log for those who read it.

Where the log no longer tells which numbers were given (its end was deleted, or an older copy was
restored), all devices go on at much higher ones. Which, is added to `.ingest-jumps` in the log's
folder, one line of JSON each time:

    {"time":"2026-11-22T11:39:00.000000Z","next":{"sensor-1":10000052,"sensor-2":10000001}}
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import orjson

from ingest.layout import open_own
from ingest.log.files import sync_folder
from ingest.record import record_time

_NAME = ".ingest-jumps"


def note_jump(folder: Path, moment: datetime, following: Mapping[str, int]) -> None:
    """Note that the devices go on at these numbers, and wait until that is on disk.

    Raises:
        OSError: the disk is full or failing, or what bears the notes' name is no file of ours.
    """
    note = {"time": record_time(moment).decode(), "next": dict(following)}
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
    try:
        notes = (folder / _NAME).read_bytes().splitlines()
    except FileNotFoundError:
        return found
    for note in filter(None, notes):
        for device, number in _following(note).items():
            found.setdefault(device, set()).add(number)
    return found


def _following(note: bytes) -> dict[str, int]:
    try:
        following = orjson.loads(note)["next"]
        return {device: int(number) for device, number in following.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}  # cut short by a crash: the listener noted it again
