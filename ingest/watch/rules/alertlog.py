"""The log of alerts: each time a rule fires or clears, one line in a log of its own.

It is written like the log of the devices, in `<data>/alerts/`: whole lines of JSON, the file in use
is `ingest.log`, a full one is named after the time of its closing. So all that reads the one reads
the other. `seq` counts the lines of all rules; `data` is what a webhook gets.

    {"time":"…","device":"cold-1","seq":7,"data":{"state":"firing","rule":"hot",…}}
"""

import errno
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from ingest.log.files import ACTIVE, rotated_name, whole_end
from ingest.log.listing import log_files
from ingest.record import Values, printable, record_block
from ingest.watch.rules.phases import Event, in_utc

_FULL: Final = 64 << 20
"""Bytes at which a file is closed."""
_KEPT: Final = 8
"""Closed files that are kept."""


class AlertLog:
    """The log of alerts, which one process writes. Each event stands in it once."""

    def __init__(self, folder: Path) -> None:
        """Open the log, or make it. A torn last line, which a crash has left, is cut off.

        Raises:
            OSError: it can't be read or written.
        """
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / ACTIVE
        with path.open("ab+") as stream:
            stream.truncate(whole_end(stream))
        self.last = max((_last_number(file.path) for file in log_files(folder)), default=0)
        """The number of the newest event that stands in it; 0 for none."""

    def write(self, events: Iterable[tuple[int, Event]]) -> None:
        """Write the events that do not stand in it yet, and put them on disk.

        Args:
            events: with their numbers, which rise.

        Raises:
            OSError: the disk is full or failing. The events may be written again.
        """
        new = [(number, happened) for number, happened in events if number > self.last]
        if not new:
            return
        path = self._folder / ACTIVE
        lines = b"".join(_line(number, happened) for number, happened in new)
        with path.open("ab", buffering=0) as stream:
            start = stream.tell()
            try:
                if stream.write(lines) != len(lines):  # write(2) is short on a full disk
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(start)
                raise
        self.last = new[-1][0]
        if path.stat().st_size >= _FULL:
            self._rotate(path)

    def _rotate(self, path: Path) -> None:
        closed = [file for file in log_files(self._folder) if file.closed]
        newest = closed[-1].path.name if closed else None
        path.rename(self._folder / rotated_name(datetime.now(UTC), newest))
        for file in closed[: -_KEPT + 1]:
            file.path.unlink()


def _line(number: int, happened: Event) -> bytes:
    values = Values(b',"data":', [printable(orjson.dumps(happened.described()))], b"}\n")
    return record_block(in_utc(happened.time).encode(), happened.device.encode(), number, values)


def _last_number(path: Path) -> int:
    with path.open("rb") as stream:
        end = whole_end(stream)
        stream.seek(max(0, end - (1 << 20)))
        lines = stream.read(end).splitlines()
    return int(orjson.loads(lines[-1])["seq"]) if lines else 0
