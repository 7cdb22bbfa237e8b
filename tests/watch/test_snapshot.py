"""Which files a query reads that asks about some time."""

import os
from collections import Counter
from itertools import count
from pathlib import Path

import orjson
import pytest

from ingest.layout import Layout
from ingest.log.files import ACTIVE, rotated_name
from ingest.log.listing import log_files
from ingest.watch.snapshot import Snapshot
from tests.log.logs import at, line, write
from tests.watch.logs import close

_DAY = 86400.0
_YEARS = 10 * 365 * _DAY


def _between(layout: Layout, since: float | None, until: float | None) -> list[str]:
    moments = [None if each is None else at(each) for each in (since, until)]
    with Snapshot(layout) as snapshot:
        return [piece.file.path.name for piece in snapshot.between(*moments)]


def _changed(path: Path, seconds: float) -> str:
    """Let a file be one that was last written so many seconds after the log's begin."""
    moment = at(seconds).timestamp()
    os.utime(path, (moment, moment))
    return path.name


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_clock_that_was_ahead_hides_no_file(layout: Layout, suffix: str) -> None:
    """The file in whose midst it was set back, and all later ones, have names of the future."""
    before = close(layout, _YEARS, line(1, time=1), line(2, time=_YEARS), suffix=suffix)
    amid = close(layout, _YEARS + 1, line(3, time=_YEARS), line(4, time=5), suffix=suffix)
    after = close(layout, _YEARS + 2, line(5, time=6), suffix=suffix)
    write(layout.log_folder / ACTIVE, line(6, time=3 * _DAY))
    names = [_changed(file.path, 6) for file in (before, amid, after)]
    assert _between(layout, None, 10.0) == names


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_clock_that_was_behind_hides_no_file(layout: Layout, suffix: str) -> None:
    before = close(layout, 5, line(1, time=1), suffix=suffix)
    amid = close(layout, 9, line(2, time=-_YEARS), line(3, time=8), suffix=suffix)
    write(layout.log_folder / ACTIVE, line(4, time=3 * _DAY))
    names = [_changed(before.path, 1), _changed(amid.path, 8)]
    assert names[1] in _between(layout, None, 10.0 - _YEARS)
    assert names[1] in _between(layout, 7.0, None)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_with_a_clock_that_is_right_only_what_may_hold_records_is_read(
    layout: Layout, suffix: str
) -> None:
    days = [
        close(layout, day * _DAY, line(day, time=day * _DAY - 5), suffix=suffix)
        for day in range(1, 8)
    ]
    write(layout.log_folder / ACTIVE, line(8, time=8 * _DAY))
    names = [_changed(file.path, day * _DAY) for day, file in enumerate(days, 1)]
    assert _between(layout, 1.5 * _DAY, 2.5 * _DAY) == names[1:4], "a record may be late by a day"


def test_no_rotated_file_is_opened_twice_however_many_come_meanwhile(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a snapshot of hundreds of files takes too long ever to see the folder stand still."""
    for day in range(30):
        close(layout, day, line(day + 1))
    write(layout.log_folder / ACTIVE, line(100))
    opened: Counter[Path] = Counter()
    open_file = os.open

    def open_while_another_is_closed(path: Path, flags: int) -> int:
        fd = open_file(path, flags)
        opened[path] += 1
        if len(opened) <= 40:
            close(layout, 30 + len(opened), line(100 + len(opened)))
        return fd

    monkeypatch.setattr("os.open", open_while_another_is_closed)
    with Snapshot(layout) as snapshot:
        names = [piece.file.path.name for piece in snapshot.pieces]
    assert names == [file.path.name for file in log_files(layout.log_folder)]
    del opened[layout.log_folder / ACTIVE]
    assert len(opened) == 70
    assert set(opened.values()) == {1}


def test_the_file_in_use_may_change_as_often_as_it_likes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each file that is opened another one is begun; of the closed ones some are removed."""
    closed = [close(layout, number, line(number)).path for number in range(1, 31)]
    active = layout.log_folder / ACTIVE
    write(active, line(31))
    numbers, open_file = count(32), os.open

    def open_while_another_is_begun(path: Path, flags: int) -> int:
        fd = open_file(path, flags)
        number = next(numbers)
        active.rename(layout.log_folder / rotated_name(at(number), None))
        write(active, line(number))
        if path == closed[4]:
            for each in closed[:10]:
                each.unlink()
        return fd

    monkeypatch.setattr("os.open", open_while_another_is_begun)
    with Snapshot(layout) as snapshot:
        held = [orjson.loads(os.pread(piece.fd, 1000, 0)) for piece in snapshot.pieces]
    assert [record["seq"] for record in held] == list(range(11, 32))
