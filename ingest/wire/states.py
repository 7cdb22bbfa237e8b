"""Where a conversation stands, in a table of what may follow what."""

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import TypeVar

from ingest.wire.errors import IllegalStep

Place = TypeVar("Place", bound=Enum)


def step(steps: Mapping[Place, Collection[Place]], before: Place, after: Place) -> Place:
    """Return the state that follows.

    Args:
        steps: from each state, those that may follow.
        before: the state that ends.
        after: the one that is to follow.

    Raises:
        IllegalStep: it may not.
    """
    if after not in steps[before]:
        raise IllegalStep(f"{after} follows {before}")
    return after


class State(Enum):
    """Where most conversations stand; one that checks a token has states of its own."""

    GREETING = auto()  # the peer is to say who it is
    CLAIMING = auto()  # the shell is getting the lease
    OPEN = auto()  # frames are arriving
    ENDED = auto()


STEPS = {
    State.GREETING: {State.CLAIMING, State.ENDED},
    State.CLAIMING: {State.OPEN, State.ENDED},
    State.OPEN: {State.ENDED},
    State.ENDED: set[State](),
}
"""From each state, those that may follow."""
