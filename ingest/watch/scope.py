"""Which part of the log is asked about: from when, until when, which devices."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest.watch.schema import literal

_PATTERN = re.compile(r"[A-Za-z0-9._:*?-]+")


@dataclass(frozen=True)
class Scope:
    """Records that meet every condition that is given.

    Args:
        since: an aware time; records from then on.
        until: an aware time; records before then.
        device: a pattern for the device's name; `*` is any characters, `?` is any one.

    Raises:
        ValueError: `device` has a character that no device name has.
    """

    since: datetime | None = None
    until: datetime | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Check the pattern."""
        if self.device is not None and not _PATTERN.fullmatch(self.device):
            raise ValueError(
                f"{self.device!r} names no device; write a name, or a pattern such as 'sensor-*'"
            )

    @property
    def condition(self) -> str:
        """The conditions in SQL."""
        conditions = ["true"]
        if self.since is not None:
            conditions.append(f"time >= {timestamp(self.since)}")
        if self.until is not None:
            conditions.append(f"time < {timestamp(self.until)}")
        if self.device is not None:
            compare = "GLOB" if {"*", "?"} & set(self.device) else "="
            conditions.append(f"device {compare} {literal(self.device)}")
        return " AND ".join(conditions)


def timestamp(moment: datetime) -> str:
    """Write an aware time in SQL, in UTC."""
    return f"TIMESTAMP '{moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=' ')}'"
