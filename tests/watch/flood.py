"""Asks a page for more than it can answer. `python -m tests.watch.flood URL DEVICE FIELD`.

It runs until its standard input ends, and then says in JSON how many answers of each kind it got.
Half of the tails are never read: their bytes stay in the page's process, or are never made.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlencode, urlsplit

NICE: Final = 19
_TAILS: Final = 24
_TIMEOUT: Final = 60.0
_SQL: Final = "SELECT device, count(*) AS n, max(time) AS last FROM log GROUP BY device"


class Flood:
    """All who ask."""

    def __init__(self, url: str, device: str, field: str) -> None:
        self.counts: Counter[str] = Counter()
        self._host = urlsplit(url).netloc
        self._device = device
        self._field = field

    def start(self) -> None:
        """Begin to ask."""
        series = {"device": [self._device] * 8, "field": [self._field] * 8, "points": 5000}
        history = series | {"from": 1, "format": "csv"}
        kinds: list[tuple[int, Callable[[], None]]] = [
            (_TAILS // 2, lambda: self._tail(is_read=True)),
            (_TAILS // 2, lambda: self._tail(is_read=False)),
            (4, lambda: self._get("status")),
            (4, lambda: self._get(f"series?{urlencode(series, doseq=True)}")),
            (2, lambda: self._get(f"series?{urlencode(history, doseq=True)}")),
            (4, lambda: self._get("devices?sort=-rate&size=500&q=e")),
            (2, lambda: self._get(f"devices/{self._device}/fields")),
            (4, self._query),
        ]
        for count, ask in kinds:
            for _ in range(count):
                threading.Thread(target=self._repeat, args=(ask,), daemon=True).start()

    def _repeat(self, ask: Callable[[], None]) -> None:
        while True:
            try:
                ask()
            except (OSError, HTTPException):
                self.counts["failures"] += 1
                time.sleep(0.2)

    def _get(self, path: str) -> None:
        self._ask(path.partition("?")[0].partition("/")[0], "GET", path)

    def _query(self) -> None:
        body = json.dumps({"sql": _SQL, "rows": 10_000})
        self._ask("query", "POST", "query", body)

    def _ask(self, kind: str, method: str, path: str, body: str | None = None) -> None:
        connection = HTTPConnection(self._host, timeout=_TIMEOUT)
        try:
            connection.request(method, f"/api/{path}", body, {"X-Ingest": "flood"})
            response = connection.getresponse()
            response.read()
            self.counts[kind if response.status == 200 else f"{kind} {response.status}"] += 1
        finally:
            connection.close()

    def _tail(self, *, is_read: bool) -> None:
        connection = HTTPConnection(self._host, timeout=_TIMEOUT)
        try:
            connection.request("GET", "/api/tail?last=2000")
            response = connection.getresponse()
            while not is_read:
                time.sleep(_TIMEOUT)
            while response.read1(1 << 16):
                self.counts["tail"] += 1
        finally:
            connection.close()


def main() -> None:
    """Flood until standard input ends."""
    os.nice(NICE)
    flood = Flood(*sys.argv[1:])
    flood.start()
    with suppress(KeyboardInterrupt):
        sys.stdin.read()
    print(json.dumps(dict(flood.counts)))


if __name__ == "__main__":
    main()
