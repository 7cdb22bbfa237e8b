"""Times of records, as the rules count them."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from ingest.watch.rules.nodes import SECOND

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(stamp: bytes) -> int:
    """Read a record's time as microseconds since 1970; 0 if it is none."""
    try:
        return _second(stamp[:19]) + int(stamp[20:26])
    except ValueError:
        return 0


@lru_cache(16)
def _second(stamp: bytes) -> int:
    """Read a time without its fraction; records that come one after another share it."""
    moment = datetime.fromisoformat(stamp.decode() + "+00:00")
    return int((moment - _EPOCH).total_seconds()) * SECOND
