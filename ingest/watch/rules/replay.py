"""Rules over the old log: what would have fired, when, and for how long."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ingest.log.log import LinesMissingError, Log
from ingest.log.places import START, Place
from ingest.log.reading import Filter
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.model import DiskFull, Refused, Rule
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event
from ingest.watch.rules.surroundings import jumps


@dataclass(frozen=True)
class Firing:
    """A rule fired on a device.

    Attributes:
        event: that it fired.
        cleared: when it cleared, in microseconds since 1970; None if it still fires.
    """

    event: Event
    cleared: int | None

    def lasted(self, end: int) -> float:
        """How many seconds it fired, or has fired at `end`."""
        return ((end if self.cleared is None else self.cleared) - self.event.fired) / SECOND


def replay(
    folder: Path,
    rules: Sequence[Rule],
    since: datetime | None,
    until: datetime,
    missing: Callable[[LinesMissingError], object],
) -> list[Event]:
    """Take rules through the log, as they would have gone through it live.

    Args:
        folder: of the log.
        rules: those about refusals and the disk are not in the log, and never fire here.
        since: where to begin (aware); None for the oldest record.
        until: where to end (aware): now, or earlier.
        missing: is called where lines of the log are gone.

    Raises:
        OSError: the folder is missing, or a file can't be read. One of `DAMAGED` if a file's
            content is damaged.
    """
    engine = Engine(rules, is_jump=jumps(folder))
    events: list[Event] = []
    wanted = Filter(until=until)

    def skip(error: LinesMissingError) -> None:
        engine.skip()
        missing(error)

    with Log(folder) as log:
        place = START if since is None else log.place_at(since)
        for block in _blocks(log, place, skip):
            lines = wanted.matching(block)
            events += engine.feed(b"".join(line + b"\n" for line in lines))
            if not lines and engine.clock:
                break
    return events + engine.advance(round(until.timestamp() * SECOND))


def from_the_log(rules: Iterable[Rule]) -> tuple[list[Rule], list[Rule]]:
    """Split rules into those that the log alone decides, and the others."""
    others = [rule for rule in rules if isinstance(rule.test, Refused | DiskFull)]
    return [rule for rule in rules if rule not in others], others


def firings(events: Iterable[Event]) -> list[Firing]:
    """Join what fired with what cleared, in the order of firing."""
    found: dict[str, Firing] = {}
    for event in events:
        if event.firing:
            found[event.id] = Firing(event, None)
        elif event.id in found:
            found[event.id] = Firing(found[event.id].event, event.time)
    return list(found.values())


def _blocks(
    log: Log, place: Place, missing: Callable[[LinesMissingError], object]
) -> Iterator[bytes]:
    while True:
        try:
            place, block = log.read_from(place)
        except LinesMissingError as error:
            missing(error)
            place = error.place
            continue
        if not block:
            return
        yield block
