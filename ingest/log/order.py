"""The order of the log's files, by the numbers that their records carry.

Clocks jump, so neither a name nor a time says for sure which of two files is older. A device's
numbers do: they only rise. Where no device is seen in two files, their times have to do.

    ingest.log.2   12:00   a 1, b 1        a clock that went back by an hour before the file
    ingest.log.1   11:00   a 7, c 1        ingest.log.1 was begun: a's numbers tell
    ingest.log.3   10:00   d 1             nothing in common with others: its time tells
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise

Edge = tuple[int, int]
"""The places of two files in a sequence, the older one first."""


@dataclass(frozen=True)
class Clues:
    """What tells how old a file is.

    Attributes:
        time: when it was closed, or begun: `2026-11-22T11:39:00.123`; empty if that is unknown.
        name: the file's name, for files that nothing else tells apart.
        closed: whether the listener closed it: the times of such files rise.
        numbers: a number of each device that was seen in it.
    """

    time: str
    name: str
    closed: bool
    numbers: Mapping[bytes, int]


def oldest_first(files: Sequence[Clues]) -> list[int]:
    """Return the places in `files` in the order of age.

    If what the names say and what the numbers say can't both be, the numbers count; if not even
    they agree, since some file is not of this log, the times.
    """
    by_numbers, by_names = list(_by_numbers(files)), list(_by_names(files))
    keys = [(file.time, file.name) for file in files]
    return (
        _sorted(keys, by_numbers + by_names)
        or _sorted(keys, by_numbers)
        or sorted(range(len(files)), key=keys.__getitem__)
    )


def _by_numbers(files: Sequence[Clues]) -> Iterable[Edge]:
    seen: dict[bytes, list[Edge]] = {}
    for place, file in enumerate(files):
        for device, number in file.numbers.items():
            seen.setdefault(device, []).append((number, place))
    for found in seen.values():
        for (number, older), (next_number, newer) in pairwise(sorted(found)):
            if number < next_number:
                yield older, newer


def _by_names(files: Sequence[Clues]) -> Iterable[Edge]:
    closed = [place for place, file in enumerate(files) if file.closed]
    return pairwise(sorted(closed, key=lambda place: files[place].time))


def _sorted(keys: Sequence[tuple[str, str]], edges: Iterable[Edge]) -> list[int]:
    """Sort by `keys` as far as `edges` leave a choice; return nothing if they form a circle."""
    newer: list[set[int]] = [set() for _ in keys]
    for first, second in edges:
        newer[first].add(second)
    waiting_for = [0] * len(keys)
    for place in chain.from_iterable(newer):
        waiting_for[place] += 1
    ready = [(key, place) for place, key in enumerate(keys) if not waiting_for[place]]
    heapify(ready)
    found = []
    while ready:
        _, place = heappop(ready)
        found.append(place)
        for other in newer[place]:
            waiting_for[other] -= 1
            if not waiting_for[other]:
                heappush(ready, (keys[other], other))
    return found if len(found) == len(keys) else []
