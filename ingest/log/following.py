"""Following the log as it grows: across rotation, compression and copytruncate."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ingest.log.log import LinesMissingError, Log
from ingest.log.places import START, Files, Place
from ingest.log.reading import EVERYTHING, Damaged, Filter, last_of


def _wait() -> None:
    time.sleep(0.2)


def _ignore(_error: LinesMissingError) -> None:
    """Lines that are missing and that nobody misses."""


def follow(
    folder: Path,
    wanted: Filter = EVERYTHING,
    *,
    first: int | None = 0,
    wait: Callable[[], object] = _wait,
    missing: Callable[[LinesMissingError], object] = _ignore,
) -> Iterator[bytes]:
    """Yield wanted lines for ever, each once and whole, without its LF, as they are written.

    Args:
        first: how many of the lines that are there already come first; None for all of them.
        wait: is called when there is nothing new.
        missing: is called where lines are gone that were not read, or can't be read.

    Raises:
        OSError: the folder is missing, or a file can't be read. One of `DAMAGED` if the
            last file's content is damaged.
    """

    def tell(path: Path, error: Exception) -> None:
        missing(LinesMissingError(f"{path} is damaged: {error}", START))

    with Log(folder) as log:
        place, history = _begin(log, folder, wanted, first, tell)
        yield from history
        while True:
            try:
                place, block = log.read_from(place)
            except LinesMissingError as error:
                missing(error)
                place = error.place
                continue
            if block:
                yield from wanted.matching(block)
            else:
                wanted = _of_what_comes(wanted)
                wait()


def _of_what_comes(wanted: Filter) -> Filter:
    """Return the filter of lines that are not written yet.

    They come after any time that has passed, also when their stamps say something else, since the
    clock was set back.
    """
    has_passed = wanted.since is not None and wanted.since <= datetime.now(UTC)
    return replace(wanted, since=None) if has_passed else wanted


def _begin(
    log: Log, folder: Path, wanted: Filter, first: int | None, damaged: Damaged
) -> tuple[Place, Iterable[bytes]]:
    """Return the place to follow from, and the lines that come first."""
    if first is None:
        return START if wanted.since is None else log.place_at(wanted.since), ()
    with Files(folder) as files:
        place = files.end()
        is_in_active = files.active is not None and files.index_of(place) == len(files.older)
        end = place.offset if is_in_active else 0
        return place, last_of(files.older, files.active, end, first, wanted, damaged)
