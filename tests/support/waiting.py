"""Waiting for what another thread or another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a test gives up waiting.

Nothing takes nearly as long, not even on a machine whose cores are all busy with other tests: so a
test that gives up has found a fault, and one that passes never waits for this.
"""


_SHORTEST, _LONGEST = 0.005, 0.02
"""Seconds between two looks, the first and the last. Looks take time of the cores for which what is
awaited may wait itself: so pauses grow by a tenth each, and a wait by about as much."""
_GROWTH = 1.1


def wait_for(condition: Callable[[], T | None], what: str = "what was expected") -> T:
    """Look until `condition` holds, and return what it then returned.

    Raises:
        AssertionError: it did not in `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    pause = _SHORTEST
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LONGEST)
    return found
