"""Reads lines for a person who watches: the last ones, then what comes, from a place on.

Each watcher reads for itself, so one that is slow or away costs nobody anything, and nothing is
lost for it: the place that goes with what it got says where to read on.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import orjson

from ingest.layout import Layout
from ingest.log.log import LinesMissingError, Log
from ingest.log.places import Place
from ingest.log.reading import Filter, last

_LOOK_BACK: Final = timedelta(hours=1)
"""How old the lines may be that a tail begins with: a rare text must not be sought for ever."""


_AROUND: Final = 120.0
"""Seconds before a device was heard last from which on its last lines are sought."""
_AROUND_BLOCKS: Final = 64


class Lines(NamedTuple):
    """What one look brought.

    Attributes:
        place: where to read on.
        lines: the wanted lines, without their LF.
        more: whether there may be more at once.
        missing: what of the log is gone; empty if nothing is.
    """

    place: Place
    lines: list[bytes]
    more: bool
    missing: str = ""


def wanted(device: str, grep: str, since: datetime | None = None) -> Filter:
    """Make a filter.

    Args:
        device: a pattern, as `ingest tail --device` takes it; empty for all.
        grep: text that the line holds, as it is written or as JSON escapes it; empty for any. It
            is no regular expression: one could be so slow that nobody else is served.
        since: an aware time.
    """
    pattern = None
    if grep:
        written = grep.encode("utf-8", "replace")
        escaped = orjson.dumps(written.decode())[1:-1]
        pattern = re.compile(b"|".join(map(re.escape, {written, escaped})))
    return Filter(device=device or None, since=since, grep=pattern)


def lines_around(layout: Layout, device: str, moment: float, count: int) -> list[bytes]:
    """Return lines of a device from about a moment, oldest first; blocks.

    The moment is sought by halving, so it costs the same however long ago it is.

    Args:
        layout: the data folder.
        device: its name.
        moment: when it was heard last, in seconds since 1970.
        count: how many lines at most.

    Raises:
        OSError: the log can't be read.
    """
    since = datetime.fromtimestamp(max(0.0, moment - _AROUND), UTC)
    lines: list[bytes] = []
    with Log(layout.log_folder) as log:
        place = log.place_at(since)
        for _ in range(_AROUND_BLOCKS):
            try:
                place, block = log.read_from(place)
            except LinesMissingError as error:
                place = error.place
                continue
            if not block:
                break
            lines += Filter(device=device, since=since).matching(block)
    return lines[-count:]


class Tail:
    """One person's tail; a thread calls `look`, one call at a time."""

    def __init__(
        self,
        layout: Layout,
        device: str,
        grep: str,
        *,
        place: Place | None,
        count: int,
        heard: float = 0.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is read yet.

        Args:
            layout: the data folder.
            device: see `wanted`.
            grep: see `wanted`.
            place: where to read on; None to begin with the last lines.
            count: how many of them.
            heard: when the one device that is wanted was heard last, in seconds since 1970; 0 if
                that is not known. Its last lines may be older than an hour.
            now: returns an aware time.
        """
        self._layout = layout
        self._folder = layout.log_folder
        self._heard = heard
        self._log = Log(self._folder)
        self._filter = wanted(device, grep)
        self._device = device
        self._begin_at = now() - _LOOK_BACK
        self._recent = wanted(device, grep, self._begin_at)
        self._place = place
        self._count = count
        self._shown: frozenset[bytes] = frozenset()

    def close(self) -> None:
        """Close the files."""
        self._log.close()

    def look(self) -> Lines:
        """Read what is new.

        Raises:
            OSError: the log can't be read.
        """
        if self._place is None:
            return self._begin()
        try:
            self._place, block = self._log.read_from(self._place)
        except LinesMissingError as error:
            self._place = error.place
            return Lines(self._place, [], True, str(error))
        lines = self._filter.matching(block)
        if self._shown:
            lines = [line for line in lines if line not in self._shown]
        if not block:
            self._shown = frozenset()
        return Lines(self._place, lines, bool(block))

    def _begin(self) -> Lines:
        """Return the last lines. Some may have come after the end was noted: once is enough."""
        self._place = self._log.end()
        lines = self._last() if self._count else []
        self._shown = frozenset(lines)
        return Lines(self._place, lines, True)

    def _last(self) -> list[bytes]:
        if 0 < self._heard < self._begin_at.timestamp():
            around = lines_around(self._layout, self._device, self._heard, self._count)
            return self._filter.matching(b"".join(line + b"\n" for line in around))
        return last(self._folder, self._count, self._recent)
