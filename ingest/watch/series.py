"""The last hour of every numeric field, in memory: how many values, their sum, least and greatest.

Time is cut into buckets of equal width, and each field of each device has one row in them. All
rows share the width: it starts at one second, and grows as there are more rows, so that the
arrays never take more than `BUDGET`. The worked example: 3 devices with 2 fields have buckets of
1 s; 10,000 devices with 5 fields have 50,000 rows, and buckets of 30 s.

    curves = Curves()
    curves.add(["sensor-1"], ["temp"], [1795330800], [20.5], now=1795330801)
    curves.read("sensor-1", "temp").mean        # array([20.5])
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SPAN: Final = 3600
"""Seconds that are kept."""
WIDTHS: Final = (1, 5, 10, 30, 60, 300)
"""Widths of a bucket in seconds; each is a multiple of the one before."""
BUDGET: Final = 168 << 20
"""Bytes that all buckets may take: those of 52,000 rows of 30 s."""
MAX_FIELDS: Final = 200
"""Fields of one device that are kept: a device can't take the rows of all others."""

MAX_NAME: Final = 128
"""Characters of a field's name: eight such names and devices fit into one request's line."""

_HUGE: Final = np.errstate(over="ignore", invalid="ignore")
"""A sum of huge values may be no number: `Buckets.mean` knows."""
_CELL: Final = 4 + 3 * 8  # bytes: a count, and three floats
_DAY: Final = 86400
_ROUND: Final = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14400, 21600, 43200, _DAY),
)
_MANY: Final = 0.9  # of the rows
_AHEAD: Final = 5  # seconds that a time may be ahead of the clock


@dataclass(frozen=True)
class Buckets:
    """A field's values, one bucket after another; buckets without a value are left out.

    Attributes:
        width: seconds.
        start: when each begins, in seconds since 1970.
        low: its least value.
        high: its greatest.
        total: the sum of its values.
        count: how many it has.
    """

    width: int | float
    start: Floats
    low: Floats
    high: Floats
    total: Floats
    count: Integers

    @classmethod
    def none(cls, width: float) -> Self:
        """Make no buckets."""
        empty = np.zeros(0)
        return cls(width, empty, empty, empty, empty, np.zeros(0, np.int64))

    @classmethod
    def of(cls, width: float, times: Floats, values: Floats) -> Self:
        """Make buckets of single values, in any order of time."""
        finite = np.isfinite(values)
        ticks, values = np.floor(times[finite] / width), values[finite]
        return cls(
            width, ticks * width, values, values, values, np.ones(len(values), np.int64)
        )._at(width)

    @property
    def mean(self) -> Floats:
        """The mean of each bucket; a sum is rounded, and must not leave the bucket's limits.

        Where it is no number any more, since the values are huge, the middle is shown.
        """
        found = self.total / self.count
        found = np.where(np.isnan(found), self.low / 2 + self.high / 2, found)
        return np.clip(found, self.low, self.high)

    def __len__(self) -> int:
        return len(self.start)

    def between(self, since: float, until: float) -> Self:
        """Leave out what ends before `since`, or begins at `until` or later."""
        kept = (self.start + self.width > since) & (self.start < until)
        return self._with(self.width, *(each[kept] for each in self._arrays))

    def joined(self, other: "Buckets") -> Self:
        """Put other buckets of the same width to these."""
        pairs = zip(self._arrays, other._arrays, strict=True)
        return self._with(self.width, *map(np.concatenate, pairs))._at(self.width)

    def coarser(self, width: float) -> Self:
        """Merge neighbours into buckets that are at least `width` wide."""
        if width <= self.width:
            return self
        return self._at(-(-width // self.width) * self.width)

    @property
    def _arrays(self) -> tuple[Floats, Floats, Floats, Floats, Integers]:
        return self.start, self.low, self.high, self.total, self.count

    def _with(self, width: float, *arrays: NDArray[np.generic]) -> Self:
        return type(self)(width, *arrays)  # type: ignore[arg-type]

    @_HUGE
    def _at(self, width: float) -> Self:
        if not len(self):
            return self._with(width, *self._arrays)
        ticks = np.floor_divide(self.start, width)
        order = np.argsort(ticks, kind="stable")
        ticks = ticks[order]
        first = _firsts(ticks)
        return self._with(
            width,
            ticks[first] * width,
            np.minimum.reduceat(self.low[order], first),
            np.maximum.reduceat(self.high[order], first),
            np.add.reduceat(self.total[order], first),
            np.add.reduceat(self.count[order], first),
        )


def round_width(width: float) -> float:
    """Return the next width of a bucket, in seconds, that people count in."""
    return next((each for each in _ROUND if each >= width), math.ceil(width / _DAY) * _DAY)


def _firsts(sorted_keys: NDArray[np.generic]) -> Integers:
    """Return where each run of equal keys begins."""
    begins = np.ones(len(sorted_keys), bool)
    np.not_equal(sorted_keys[1:], sorted_keys[:-1], out=begins[1:])
    return np.flatnonzero(begins)


class _Table:
    """Cells of one width: `buckets` in a ring by `rows`. An untouched cell takes no memory."""

    def __init__(self, width: int, budget: int) -> None:
        self.width = width
        self.buckets = SPAN // width + 1
        self.rows = budget // (_CELL * self.buckets)
        self.newest = 0
        cells = self.buckets * self.rows
        self.count = np.zeros(cells, np.uint32)
        self.total, self.low, self.high = (np.zeros(cells) for _ in range(3))

    def advance(self, tick: int) -> None:
        """Make room for a newer bucket; the oldest are forgotten."""
        for each in range(max(self.newest + 1, tick - self.buckets + 1), tick + 1):
            self.count[self._span(each)] = 0
        self.newest = max(self.newest, tick)

    @_HUGE
    def add(self, rows: Integers, ticks: Integers, values: Floats) -> None:
        """Add values; none of them is older than the ring."""
        cells = (ticks % self.buckets) * self.rows + rows
        order = np.argsort(cells, kind="stable")
        cells, values = cells[order], values[order]
        first = _firsts(cells)
        cells = cells[first]
        old = self.count[cells]
        is_new = old == 0
        self._put(np.minimum, self.low, cells, np.minimum.reduceat(values, first), is_new)
        self._put(np.maximum, self.high, cells, np.maximum.reduceat(values, first), is_new)
        self._put(np.add, self.total, cells, np.add.reduceat(values, first), is_new)
        self.count[cells] = old + np.diff(np.append(first, len(values))).astype(np.uint32)

    @staticmethod
    def _put(
        merge: np.ufunc, column: Floats, cells: Integers, values: Floats, is_new: NDArray[np.bool_]
    ) -> None:
        column[cells] = np.where(is_new, values, merge(column[cells], values))

    def read(self, row: int) -> Buckets:
        """Return what one row has."""
        ticks = np.arange(self.newest - self.buckets + 1, self.newest + 1)
        cells = (ticks % self.buckets) * self.rows + row
        filled = self.count[cells] > 0
        ticks, cells = ticks[filled], cells[filled]
        return Buckets(
            self.width,
            (ticks * self.width).astype(np.float64),
            self.low[cells],
            self.high[cells],
            self.total[cells],
            self.count[cells].astype(np.int64),
        )

    def empty_rows(self, used: int) -> list[int]:
        """Return the rows that have no value left."""
        filled = self.count.reshape(self.buckets, self.rows)[:, :used].any(axis=0)
        return [int(row) for row in np.flatnonzero(~filled)]

    @_HUGE
    def into(self, wider: "_Table", used: int) -> None:
        """Move everything into a table of a multiple of the width, which is empty.

        One array after another, and each is let go: both tables at once would take too much.
        """
        factor = wider.width // self.width
        wider.newest = self.newest // factor
        ticks = range(max(self.newest - self.buckets + 1, 0), self.newest + 1)
        ticks = range(max(ticks.start, (wider.newest - wider.buckets + 1) * factor), ticks.stop)
        pairs = [(self._span(tick, used), wider._span(tick // factor, used)) for tick in ticks]
        for name, merge in (("low", np.minimum), ("high", np.maximum), ("total", np.add)):
            old, new = getattr(self, name), getattr(wider, name)
            wider.count[:] = 0
            for source, target in pairs:
                counts = self.count[source]
                merged = merge(new[target], old[source])
                merged = np.where(wider.count[target] == 0, old[source], merged)
                np.copyto(new[target], merged, where=counts > 0)
                wider.count[target] += counts
            setattr(self, name, np.zeros(0))

    def _span(self, tick: int, used: int | None = None) -> slice:
        start = (tick % self.buckets) * self.rows
        return slice(start, start + (self.rows if used is None else used))


class Curves:
    """The last hour of every numeric field of every device.

    One thread adds; any may read.

    Attributes:
        left_out: how many values had no place, because there are more fields than rows.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        """Begin with nothing.

        Args:
            budget: bytes that the values may take.
        """
        self.left_out = 0
        self._budget = budget
        self._lock = threading.Lock()
        self._table = _Table(WIDTHS[0], budget)
        self._rows: dict[str, dict[str, int]] = {}
        self._owners: list[tuple[str, str]] = []
        self._free: list[int] = []
        self._sought_at = 0  # the bucket in which free rows were sought last

    @property
    def width(self) -> int:
        """The seconds of a bucket."""
        return self._table.width

    @property
    def rows(self) -> int:
        """How many fields of devices are kept."""
        return len(self._owners) - len(self._free)

    @property
    def since(self) -> float:
        """The start of the oldest bucket, in seconds since 1970; infinite before any value came."""
        table = self._table
        if not table.newest:
            return math.inf
        return float((table.newest - table.buckets + 1) * table.width)

    def add(
        self,
        devices: Sequence[str],
        fields: Sequence[str],
        seconds: Sequence[int],
        values: Sequence[float],
        now: float,
    ) -> None:
        """Add values, each with its device, field and time.

        Values that are not finite are left out, and those whose times lie beyond the last hour or
        in the future: a clock that was wrong once must not empty the curves.

        Args:
            devices: whose.
            fields: their fields.
            seconds: since 1970.
            values: the numbers.
            now: seconds since 1970.
        """
        if not values:
            return
        with self._lock:
            times, numbers = np.array(seconds, np.int64), np.array(values, np.float64)
            kept = np.isfinite(numbers) & (times <= now + _AHEAD)
            if not kept.any():
                return
            self._table.advance(int(times[kept].max()) // self._table.width)
            self._take_back()
            rows = np.array([self._row(*owner) for owner in zip(devices, fields, strict=True)])
            self.left_out += int(np.count_nonzero(rows < 0))
            table = self._table  # a new row may have made it a coarser one
            ticks = times // table.width
            kept &= (rows >= 0) & (ticks > table.newest - table.buckets)
            if kept.any():
                table.add(rows[kept], ticks[kept], numbers[kept])

    def fields(self, device: str) -> list[str]:
        """Return the fields of a device that are kept, in the order in which they came."""
        with self._lock:
            return list(self._rows.get(device, ()))

    def read(self, device: str, field: str) -> Buckets | None:
        """Return the last hour of a field; None if nothing is kept of it."""
        with self._lock:
            row = self._rows.get(device, {}).get(field)
            return None if row is None else self._table.read(row)

    def last(self, device: str) -> dict[str, float]:
        """Return the mean of the newest bucket of each field of a device."""
        found = {field: self.read(device, field) for field in self.fields(device)}
        return {field: float(each.mean[-1]) for field, each in found.items() if each}

    def _row(self, device: str, field: str) -> int:
        """Return the row of a field, a new one if it has none yet; -1 if there is none left."""
        of_device = self._rows.get(device)
        if of_device is None:
            of_device = self._rows[device] = {}
        row = of_device.get(field)
        if row is not None:
            return row
        if len(of_device) >= MAX_FIELDS or len(field) > MAX_NAME:
            return -1
        row = self._new_row()
        if row >= 0:
            self._owners[row] = device, field
            of_device[field] = row
        return row

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if len(self._owners) == self._table.rows and not self._widen():
            return -1
        self._owners.append(("", ""))
        return len(self._owners) - 1

    def _widen(self) -> bool:
        """Make the buckets wider, so that there are more rows; False if they are widest."""
        if self._table.width == WIDTHS[-1]:
            return False
        wider = _Table(WIDTHS[WIDTHS.index(self._table.width) + 1], self._budget)
        self._table.into(wider, len(self._owners))
        self._table = wider
        return True

    def _take_back(self) -> None:
        """Where rows are few, take back those of fields that have not come for an hour."""
        few = self.rows > self._table.rows * _MANY
        if few and self._sought_at != self._table.newest:
            self._sought_at = self._table.newest
            for row in self._table.empty_rows(len(self._owners)):
                self._forget(row)

    def _forget(self, row: int) -> None:
        device, field = self._owners[row]
        of_device = self._rows.get(device, {})
        if of_device.get(field) == row:
            del of_device[field]
            self._owners[row] = "", ""
            self._free.append(row)
        if not of_device:
            self._rows.pop(device, None)
