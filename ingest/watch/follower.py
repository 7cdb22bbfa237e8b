"""Reads the log on, and notes what came: of each device, of the fleet, and every numeric field.

A step reads one block, acts on it, and says what to do next. It knows no reactor: a thread calls
it again and again. Where more comes than can be followed, every line still counts for its device
and for the fleet, but only one in `stride` lines goes into the curves.
"""

import random
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from ingest.layout import Layout
from ingest.log.log import LinesMissingError, Log
from ingest.log.places import Place
from ingest.record import dated_numbers_in, parse, record_time
from ingest.watch.fields import fields_of
from ingest.watch.keeping import Keeper
from ingest.watch.roster import SLOT, Roster
from ingest.watch.series import SPAN, Curves

_SAVE_EVERY: Final = 5.0  # seconds
_LATE: Final = 3.0  # seconds behind from which on the curves may be thinned
_CATCH_UP: Final = 30.0
"""Seconds in which we want to have caught up: where we are slower, the curves are thinned."""
_LOOK: Final = 1.0  # seconds between two looks at whether we catch up
_MAX_STRIDE: Final = 256
_TOLD: Final = 20  # problems that are kept

Clock = Callable[[], float]


@dataclass(frozen=True)
class Progress:
    """How far the follower is.

    Attributes:
        behind: seconds between the last record that was read and now; 0 at the end of the log.
        stride: one in how many lines goes into the curves.
        read: records read since the start.
        thinned_at: the time of the newest record in whose neighbourhood lines were left out of the
            curves, in seconds since 1970; 0 if none was.
    """

    behind: float = 0.0
    stride: int = 1
    read: int = 0
    thinned_at: float = 0.0

    @property
    def is_late(self) -> bool:
        """Whether so much has yet to be read that one should know."""
        return self.behind > _LATE


class Traffic:
    """Frames and bytes of each second of the last hour, by the time of the records."""

    def __init__(self) -> None:
        self._frames: dict[int, int] = {}
        self._bytes: dict[int, int] = {}

    def add(self, seconds: Counter[int], size: int, now: float) -> None:
        """Count lines by second, and their bytes.

        Args:
            seconds: how many lines each second has.
            size: the bytes of all of them.
            now: seconds since 1970.
        """
        lines = seconds.total()
        for second, count in seconds.items():
            if now - SPAN <= second <= now + 1:
                self._frames[second] = self._frames.get(second, 0) + count
                self._bytes[second] = self._bytes.get(second, 0) + size * count // lines
        for old in [second for second in islice(self._frames, 100) if second < now - SPAN]:
            del self._frames[old], self._bytes[old]

    def rates(self, now: float, width: int) -> tuple[list[int], list[float], list[float]]:
        """Return the last hour: when each bucket begins, its frames and its bytes a second."""
        end = int(now) // width * width
        starts = list(range(end - SPAN, end, width))
        frames, sizes = [0] * len(starts), [0] * len(starts)
        for second, count in list(self._frames.items()):
            place = (second - starts[0]) // width
            if 0 <= place < len(starts):
                frames[place] += count
                sizes[place] += self._bytes.get(second, 0)
        return starts, [each / width for each in frames], [each / width for each in sizes]


class Follower:
    """Follows one log.

    Attributes:
        progress: how far it is.
        problems: what was missing or damaged in the log, the newest last, each with its time.
    """

    def __init__(
        self,
        layout: Layout,
        roster: Roster,
        curves: Curves,
        traffic: Traffic,
        clock: Clock = time.time,
    ) -> None:
        """Begin where the last run ended, or an hour ago if that is earlier.

        Args:
            layout: the data folder.
            roster: where devices are noted.
            curves: where fields are noted.
            traffic: where the fleet's frames are counted.
            clock: returns seconds since 1970.

        Raises:
            OSError, sqlite3.Error: what is kept can't be written.
        """
        self.progress = Progress()
        self.problems: deque[tuple[float, str]] = deque(maxlen=_TOLD)
        self._log = Log(layout.log_folder)
        self._roster = roster
        self._curves = curves
        self._traffic = traffic
        self._clock = clock
        self._keeper = Keeper(layout.page_state)
        self._place: Place | None = None
        self._reached = 0.0
        self._changed: set[str] = set()
        self._saved_at = clock()
        self._second = ("", 0)
        self._looked_at, self._was_behind = clock(), 0.0

    def close(self) -> None:
        """Keep the place, and close the files."""
        with suppress(sqlite3.Error):
            self._save()
        self._keeper.close()
        self._log.close()

    def step(self) -> bool:
        """Read a block and act on it.

        Returns:
            Whether there may be more at once.

        Raises:
            OSError: the log can't be read.
            sqlite3.Error: the place can't be kept.
            Exception: a fault of ours; the next step goes on with the same block.
        """
        if self._place is None:
            self._place = self._begin()
        try:
            place, block = self._log.read_from(self._place)
        except LinesMissingError as error:
            self.problems.append((self._clock(), str(error)))
            self._place = error.place
            return True
        now = self._clock()
        if block:
            self._act(block, now)
        self._place = place
        self._pace(now, bool(block))
        if now - self._saved_at > _SAVE_EVERY:
            self._save()
        return bool(block)

    def _begin(self) -> Place:
        kept, hour_ago = self._keeper.load(), self._clock() - SPAN
        if kept is not None:
            for name, last, seq in kept.devices:
                self._roster.note_records(name, last, seq, 0, 0.0)
            if kept.reached < hour_ago:
                return kept.place
        # What was acted on before is acted on again: nothing comes of it but the curves.
        return self._log.place_at(datetime.fromtimestamp(hour_ago, UTC))

    def _act(self, block: bytes, now: float) -> None:
        found = dated_numbers_in(block)
        if not found:
            return
        # Only what came just now counts for a device's rate, also while we catch up.
        lately = record_time(datetime.fromtimestamp(now - SLOT, UTC))[:19]
        frames = Counter(device for second, device, _ in found if second >= lately)
        newest = {device: (second, number) for second, device, number in found}
        seconds: Counter[int] = Counter()
        for second, count in Counter(second for second, _, _ in found).items():
            seconds[self._seconds(second.decode())] += count
        # First what is likeliest to fail: the block comes again then, and is counted once.
        if max(seconds) > now - SPAN:
            # Not always the same lines: they may be those of the same devices.
            stride = self.progress.stride
            self._draw(block.split(b"\n")[random.randrange(stride) :: stride], now)
        for device, (second, number) in newest.items():
            name = device.decode()
            last = self._seconds(second.decode())
            self._roster.note_records(name, last, int(number), frames[device], now)
            self._changed.add(name)
        self._traffic.add(seconds, len(block), now)
        self._reached = self._seconds(found[-1][0].decode())
        self.progress = replace(self.progress, read=self.progress.read + len(found))

    def _draw(self, lines: Sequence[bytes], now: float) -> None:
        """Put the numeric fields of lines into the curves."""
        devices: list[str] = []
        names: list[str] = []
        seconds: list[int] = []
        values: list[float] = []
        for line in lines:
            try:
                record = parse(line)
            except ValueError:
                continue
            second = self._seconds(record.time[:19])
            for name, value in fields_of(record).items():
                if type(value) is float:
                    devices.append(record.device)
                    names.append(name)
                    seconds.append(second)
                    values.append(value)
        self._curves.add(devices, names, seconds, values, now)

    def _seconds(self, text: str) -> int:
        """Read the second of a record; 0 if it is none."""
        if text != self._second[0]:
            try:
                self._second = text, int(datetime.fromisoformat(f"{text}+00:00").timestamp())
            except ValueError:
                self._second = text, 0
        return self._second[1]

    def _pace(self, now: float, more: bool) -> None:
        """Thin the curves while we do not catch up in time, and no longer than that."""
        progress = self.progress
        behind = max(0.0, now - self._reached) if more else 0.0
        stride = progress.stride
        if behind <= _LATE:
            stride = max(1, stride // 2)
        elif now - self._looked_at > _LOOK:
            gained = (self._was_behind - behind) / (now - self._looked_at)
            if gained < behind / _CATCH_UP:
                stride = min(stride * 2, _MAX_STRIDE)
            self._looked_at, self._was_behind = now, behind
        thinned_at = self._reached if stride > 1 else progress.thinned_at
        self.progress = Progress(behind, stride, progress.read, thinned_at)

    def _save(self) -> None:
        if self._place is None:
            return
        entries = [self._roster.entry(name) for name in self._changed]
        self._keeper.save(
            self._place, self._reached, ((each.name, each.last, each.seq) for each in entries)
        )
        self._changed.clear()
        self._saved_at = self._clock()
