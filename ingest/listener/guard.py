"""One connection's fault is its own: what goes wrong in its turn ends it, and nothing else."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from ingest.wire.errors import PeerError


class Guarded(Protocol):
    """Whose turns are guarded."""

    def fail(self, error: PeerError) -> None:
        """End the conversation, and tell the peer why."""

    def give_up(self) -> None:
        """Called within `except`, when a fault of ours has shown: cut the connection."""


_Arguments = ParamSpec("_Arguments")
_Self = TypeVar("_Self", bound=Guarded)


def guarded(
    turn: Callable[Concatenate[_Self, _Arguments], None],
) -> Callable[Concatenate[_Self, _Arguments], None]:
    """Let what goes wrong in a turn of a connection end that connection, and nothing else."""

    @wraps(turn)
    def take(self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            turn(self, *args, **kwargs)
        except PeerError as error:
            self.fail(error.without_traceback())
        except Exception:
            self.give_up()

    return take
