"""One connection's fault is its own: what goes wrong in its turn ends it, and nothing else."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from ingest.wire.errors import PeerError


class Guarded(Protocol):
    """Whose turns are guarded."""

    def blame(self, error: PeerError) -> None:
        """Called within `except`, when its turn ends by what the peer did; never raises."""

    def give_up(self) -> None:
        """Called within `except`, when a fault of ours has shown: cut the connection; never raises.

        Whoever gave it its turn has others to serve.
        """


_Arguments = ParamSpec("_Arguments")
_Self = TypeVar("_Self", bound=Guarded)


def guarded(
    turn: Callable[Concatenate[_Self, _Arguments], None],
) -> Callable[Concatenate[_Self, _Arguments], None]:
    """Let what goes wrong in a turn of a connection end that connection, and nothing else.

    Arguments are passed by place only: each frame comes through here twice, and a dictionary of
    names would be made for each.
    """

    call: Callable[..., None] = turn

    @wraps(turn)
    def take(self: _Self, *args: Any) -> None:
        try:
            call(self, *args)
        except PeerError as error:
            self.blame(error.without_traceback())
        except Exception:
            self.give_up()

    return cast(Callable[Concatenate[_Self, _Arguments], None], take)


_Each = TypeVar("_Each", bound=Guarded)


@contextmanager
def isolated(connection: Guarded) -> Iterator[None]:
    """Let what goes wrong with one of many connections end that one: the others have their turn."""
    try:
        yield
    except Exception:
        connection.give_up()


def for_each(connections: Iterable[_Each], act: Callable[[_Each], None]) -> None:
    """Do something with each of many connections, isolated; those that leave meanwhile as well."""
    for connection in list(connections):
        try:
            act(connection)
        except Exception:
            connection.give_up()
