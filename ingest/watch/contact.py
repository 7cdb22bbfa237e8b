"""What the running listener says when it is asked, again and again, by its control socket.

An answer costs the listener work on the thread that serves devices. So the time between two
answers is thirty times what the last one took, or ten seconds if that is less. In between it
is asked for nothing, which costs nothing, and tells that it is there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ingest.ops.control import ControlError, ask
from ingest.watch.roster import Roster

_TIMEOUT: Final = 5.0  # seconds
_SHORTEST: Final = 1.0
_LONGEST: Final = 10.0
_NOTHING: Final = "nothing"  # no command, to which a listener that is there says so
_UNKNOWN: Final = "unknown command"
_SHARE: Final = 0.03  # of the time


@dataclass(frozen=True)
class Answer:
    """What was learnt at one moment.

    Attributes:
        at: when, in seconds since 1970.
        failure: why the listener does not answer; empty if it does.
        since: since when it is as it is: it does not answer, or says this of its health.
        status: see `ingest.ops.status.Status`; empty while it does not answer.
    """

    at: float = 0.0
    failure: str = "not asked yet"
    since: float = 0.0
    status: Mapping[str, Any] = field(default_factory=dict)


class Contact:
    """Asks one listener; a thread calls `look`.

    Attributes:
        answer: the newest.
    """

    def __init__(
        self, control: Path, roster: Roster, clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is asked yet.

        Args:
            control: the listener's control socket.
            roster: where it is noted who is connected.
            clock: returns seconds since 1970.
        """
        self.answer = Answer()
        self._control = control
        self._roster = roster
        self._clock = clock
        self._due = 0.0

    def look(self) -> float:
        """Ask once; blocks.

        Returns:
            Seconds until the next question.
        """
        begun = time.monotonic()
        if not self.answer.failure and begun < self._due and self._is_there():
            return _SHORTEST
        try:
            status = self._summary()
            connections = ask(self._control, "connections", _TIMEOUT)
            incidents = self._ask_new("incidents") or []
        except ControlError as error:
            if not self.answer.failure:
                self._roster.lose_listener(self._clock())
            self._note(str(error), {})
            return _SHORTEST
        now = self._clock()
        self._roster.note_connections(connections, now)
        self._roster.note_incidents(incidents)
        self._note("", status)
        ended = time.monotonic()
        self._due = ended + min((ended - begun) / _SHARE, _LONGEST)
        return _SHORTEST

    def _summary(self) -> dict[str, Any]:
        """Ask how things are: without the books of each device, which would take the listener long.

        A listener from before an update has them in all that it says.
        """
        summary: dict[str, Any] = self._ask_new("summary") or ask(self._control, "status", _TIMEOUT)
        summary.pop("devices", None)
        return summary

    def _ask_new(self, command: str) -> Any:
        """Ask for something that a listener from before an update does not know; then None."""
        try:
            return ask(self._control, command, _TIMEOUT)
        except ControlError as error:
            if str(error) == _UNKNOWN:
                return None
            raise

    def _is_there(self) -> bool:
        try:
            ask(self._control, _NOTHING, _TIMEOUT)
        except ControlError as error:
            return str(error) == _UNKNOWN
        return True

    def _note(self, failure: str, status: Mapping[str, Any]) -> None:
        now, before = self._clock(), self.answer
        is_same = bool(before.at) and bool(failure) == bool(before.failure)
        is_same = is_same and status.get("health") == before.status.get("health")
        self.answer = Answer(now, failure, before.since if is_same else now, status)
