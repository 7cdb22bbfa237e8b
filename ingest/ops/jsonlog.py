"""The daemon's own log as lines of JSON, for programs that collect logs."""

import json
import math
from datetime import UTC, datetime
from typing import IO, Any

from twisted.logger import FileLogObserver, LogEvent, formatEvent
from twisted.python.reflect import safe_str

_LEGACY = frozenset({"message", "time", "system", "isError", "failure", "why", "format"})
"""What events of `twisted.python.log` carry besides their fields; it is in the others."""


def json_observer(stream: IO[Any]) -> FileLogObserver:
    """Make an observer that writes one line of JSON for each event."""
    return FileLogObserver(stream, as_json)


def as_json(event: LogEvent) -> str:
    """Write an event as a line: `time`, `level`, `namespace`, `message`, `fields`, `traceback`.

    All but ASCII is escaped, so that no line steers the terminal that shows it. `traceback` is
    there for an exception only.
    """
    level = event.get("log_level")
    line: dict[str, object] = {
        "time": _timestamp(event.get("log_time")),
        "level": level.name if level is not None else "info",
        "namespace": event.get("log_namespace") or "",
        "message": formatEvent(event),
        "fields": {
            name: _value(value)
            for name, value in event.items()
            if not name.startswith("log_") and name not in _LEGACY
        },
    }
    failure = event.get("log_failure")
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line) + "\n"


def _timestamp(seconds: float | None) -> str | None:
    """Return RFC 3339, UTC, in microseconds."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _value(value: object) -> object:
    """Return what JSON can say; of all else what a person would read."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else safe_str(value)
