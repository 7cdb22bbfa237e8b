"""The phases of a connection: in each, whether we read, whose time runs, and what may follow."""

from enum import Enum, auto
from typing import NamedTuple


class Phase(Enum):
    """Where a connection stands."""

    GREETING = auto()  # the device is to say who it is
    QUEUED = auto()  # it has said something, which waits for its turn
    CHECKING = auto()  # its token is being checked
    CLAIMING = auto()  # the journal is to grant its lease
    OPEN = auto()  # its frames are taken
    DRAINING = auto()  # nothing more is taken; what was waits for the disk
    LINGERING = auto()  # all is said; the device is to read it and to close
    LOST = auto()


class Deadline(Enum):
    """Whose time runs, and what happens when it is over."""

    HANDSHAKE = auto()  # the device's: `auth-timeout`
    ANSWER = auto()  # ours: `busy`, or the connection is cut
    IDLE = auto()  # the device's: `idle-timeout`
    LINGER = auto()  # the device's: the connection is cut
    NONE = auto()


class _Rule(NamedTuple):
    """What holds in a phase: whether we read, whose time runs, and what may come next.

    A connection may be lost in each; see `Connection._leave`.
    """

    reads: bool
    deadline: Deadline
    next: frozenset[Phase]


def _rule(reads: bool, deadline: Deadline, *following: Phase) -> _Rule:
    return _Rule(reads, deadline, frozenset(following))


_P, _D = Phase, Deadline
PHASES = {
    _P.GREETING: _rule(True, _D.HANDSHAKE, _P.QUEUED, _P.CLAIMING, _P.DRAINING),
    _P.QUEUED: _rule(False, _D.ANSWER, _P.GREETING, _P.CHECKING, _P.CLAIMING, _P.DRAINING),
    _P.CHECKING: _rule(False, _D.ANSWER, _P.CLAIMING, _P.DRAINING),
    _P.CLAIMING: _rule(False, _D.ANSWER, _P.OPEN, _P.DRAINING),
    _P.OPEN: _rule(True, _D.IDLE, _P.DRAINING),
    _P.DRAINING: _rule(False, _D.ANSWER, _P.LINGERING),
    _P.LINGERING: _rule(True, _D.LINGER),
    _P.LOST: _rule(False, _D.NONE),
}
TAKING = frozenset({_P.GREETING, _P.QUEUED, _P.CHECKING, _P.CLAIMING, _P.OPEN})
"""The phases in which the conversation has not ended."""
