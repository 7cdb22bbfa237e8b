"""Makes Parquet of the log's closed files, in the background of `twistd ingest-watch`.

One file at a time, in a process of its own at a low priority and with one thread: see `columns`.
Nothing is made while the disk has little room, which the listener needs more.
"""

import shutil
from contextlib import suppress
from typing import Final

from ingest.layout import Layout
from ingest.units import format_size
from ingest.watch.columns import BusyError, Converter

_POLL: Final = 5.0
"""Seconds between two looks for files that were closed."""
_WAIT: Final = 30.0  # seconds until what hinders is looked at again
_THREADS: Final = 1
_ROOM: Final = 1 << 30
"""Bytes that must be free on the disk: what is sorted goes there too for a while."""
_SHOWN: Final = 20  # files that can't be converted


class Converting:
    """The conversion of one data folder. `step` and `stop` may be called from any thread."""

    def __init__(self, layout: Layout) -> None:
        """Nothing is converted before the first step."""
        self._layout = layout
        self._converter: Converter | None = None
        self._is_stopped = False
        self._waits_for = ""

    def step(self) -> float:
        """Convert one file, if there is one; blocks for as long as that takes.

        Returns:
            Seconds until the next step.

        Raises:
            OSError: the log or the folder can't be read or written; call it again later.
        """
        try:
            self._waits_for = self._hindrance()
            if self._is_stopped or self._waits_for:
                return _WAIT
            if self._converter is None:
                self._converter = Converter(self._layout, threads=_THREADS)
                if self._is_stopped:  # meanwhile: then `stop` has not seen it
                    self._converter.stop()
        except BusyError as error:
            self._waits_for = str(error)
            return _WAIT
        except OSError as error:
            self._waits_for = f"{error.filename}: {error.strerror}"
            raise
        return 0.0 if self._converter.convert_next() else _POLL

    def stop(self) -> None:
        """End for good; a conversion that runs is broken off, and made anew at the next start."""
        self._is_stopped = True
        if self._converter is not None:
            self._converter.stop()

    def shown(self) -> dict[str, object]:
        """Say how far it is."""
        if self._converter is None:
            return {"waits_for": self._waits_for, "converted": 0, "pending": 0, "failed": []}
        progress = self._converter.progress
        return {
            "waits_for": self._waits_for,
            "converted": progress.converted,
            "pending": progress.pending,
            "failed": [{"file": name, "why": why} for name, why in progress.failed[-_SHOWN:]],
        }

    def _hindrance(self) -> str:
        """Say why nothing may be converted now; empty if it may."""
        free = _ROOM
        with suppress(OSError):
            free = shutil.disk_usage(self._layout.data).free
        return "" if free >= _ROOM else f"the disk has less than {format_size(_ROOM)} left"
