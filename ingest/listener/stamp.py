"""Time stamps of records: UTC, microseconds, RFC 3339."""

import time


class Stamper:
    """Writes time stamps; it formats the date once a second, not once a read."""

    def __init__(self) -> None:
        self._second = -1
        self._date = b""

    def __call__(self, now: float) -> bytes:
        """Write `now`, seconds since 1970, as `2026-11-22T11:39:00.123456Z`."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%06dZ" % (self._date, (now - second) * 1_000_000)
