"""The times of events of Fluent Forward v1, as records have them: `"event_time":"...",`.

A time is an integer of seconds since 1970, or an EventTime, an extension of type 0: seconds and
nanoseconds, both of 32 bits. As a float it is not in the specification, and seen all the same.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MARKS = (0xFFFFFFFE, 0xFFFFFFFF)
"""-2 and -1, as seconds of an EventTime: by them Fluent Bit marks the end and the begin of records
that have metadata in common, which the begin holds."""


class _Seconds(dict[int, bytes]):
    """Seconds since 1970 as `2026-11-22T11:39:00`; events of one chunk share few of them."""

    _MOST = 10_000

    def __missing__(self, second: int) -> bytes:
        if second in _MARKS:
            raise OverflowError("a mark, and no time")
        if len(self) >= self._MOST:
            self.clear()
        moment = _EPOCH + timedelta(seconds=second)
        text = self[second] = f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0").encode()
        return text


_SECONDS = _Seconds()
_second = _SECONDS.__getitem__


def times_of(stamps: Sequence[Any]) -> list[bytes]:
    """Write the times of events of one kind, all at once.

    Raises:
        ValueError, OverflowError: they are of several kinds, or one of them is no time.
    """
    kinds = set(map(type, stamps))
    if kinds == {int}:
        return list(map(b'"event_time":"%bZ",'.__mod__, map(_second, stamps)))
    if kinds != {bytes} or set(map(len, stamps)) != {8}:
        raise ValueError
    numbers = struct.unpack(f">{2 * len(stamps)}I", b"".join(stamps))
    if max(numbers[1::2]) > 999_999_999:
        raise ValueError
    # One format for all, and one cut: a call for each would cost three times as much.
    parts: list[object] = list(numbers)
    parts[::2] = map(_second, numbers[::2])
    return (b'"event_time":"%b.%09dZ",\n' * len(stamps) % tuple(parts)).split(b"\n")[:-1]


def time_of(stamp: Any) -> bytes:
    """Write the time of an event; empty if it is none, or beyond the years 1 to 9999."""
    nanoseconds = None
    if isinstance(stamp, msgpack.ExtType) and stamp.code == 0 and len(stamp.data) == 8:
        stamp, nanoseconds = struct.unpack(">II", stamp.data)
    elif isinstance(stamp, msgpack.Timestamp):
        stamp, nanoseconds = stamp.seconds, stamp.nanoseconds
    elif isinstance(stamp, float) and abs(stamp) < 1 << 40:
        nanoseconds = int(stamp % 1 * 1e9)
        stamp = int(stamp // 1)
    if not isinstance(stamp, int) or isinstance(stamp, bool) or (nanoseconds or 0) > 999_999_999:
        return b""
    try:
        second = _second(stamp)
    except OverflowError:
        return b""
    fraction = b"" if nanoseconds is None else b".%09d" % nanoseconds
    return b'"event_time":"%b%bZ",' % (second, fraction)
