"""A fault of ours in one follower of the log: it is that one's own, and nothing is skipped.

Each row of the table breaks one thing that the page's follower asks of others, once, at each of its
steps, while the log is written, closed, compressed or cut. The exception ends that step and no
more; the next goes on where the acting had come to. The neighbours, a tail and the rules, and what
the page knows after a restart, are as if nothing had been.
"""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ingest.layout import Layout
from ingest.log.places import START
from ingest.watch import follower as follower_module
from ingest.watch.follower import Follower, Traffic
from ingest.watch.roster import Roster
from ingest.watch.rules.runner import Runner
from ingest.watch.series import Curves
from ingest.watch.tailing import Tail
from tests.log.logs import BEGIN, WrittenLog
from tests.log.test_following import Step, put
from tests.watch.rules.making import rules
from tests.watch.rules.test_engine import HOT


class Broken(Exception):  # noqa: N818 - it is no error of anything
    """What is injected."""


class Breaking:
    """Stands for a part of a follower; the call that is named fails once it is armed."""

    def __init__(self, part: Any, name: str, error: Exception) -> None:
        self._part = part
        self._name = name
        self._error = error
        self.is_armed = False
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        whole = getattr(self._part, name)
        return self._maybe(whole) if name == self._name else whole

    def __call__(self, *arguments: Any) -> Any:
        return self._maybe(self._part)(*arguments)

    def _maybe(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            if self.is_armed:
                self.is_armed = False
                self.failed += 1
                raise self._error
            return call(*arguments)

        return act


def _closed(suffix: str = "") -> Step:
    return lambda log: log.rotate(suffix)


HAPPENINGS: dict[str, list[list[Step]]] = {
    "writing": [[put(3)], [put(3)], [put(3)]],
    "rotation": [[put(3), _closed()], [put(3), _closed()], [put(3)]],
    "compression": [[put(3), _closed(".zst")], [put(3), _closed(".gz")], [put(3)]],
    "logrotate": [[put(3), WrittenLog.rotate_outside]] * 2 + [[put(3)]],
    "copytruncate": [[put(3), WrittenLog.copy_and_truncate]] * 2 + [[put(3)]],
}
PLACES = [
    ("_log", "read_from"),
    ("_log", "place_at"),
    ("_keeper", "load"),
    ("_keeper", "save"),
    ("_roster", "note_records"),
    ("_roster", "entry"),
    ("_curves", "add"),
    ("_traffic", "add"),
    ("_clock", ""),
]
MODULE = ["dated_numbers_in", "parse", "fields_of", "record_time"]
"""What it calls that is no part of it."""


class Page:
    """The page's follower, and what it has noted; its clock is ten seconds on at each step."""

    def __init__(self, layout: Layout) -> None:
        self.now = BEGIN.timestamp() + 30
        self.roster, self.curves, self.traffic = Roster(), Curves(), Traffic()
        self.follower = Follower(
            layout, self.roster, self.curves, self.traffic, clock=lambda: self.now
        )

    def step(self) -> bool:
        self.now += 10  # long enough that each step saves the place
        return self.follower.step()


class Neighbours:
    """A tail and the rules, on the same log."""

    def __init__(self, layout: Layout) -> None:
        start = int(BEGIN.timestamp()) * 1_000_000
        self._tail = Tail(layout, "", "", place=START, count=0)
        self._rules = Runner(layout, rules(layout.data, HOT), lambda: start, lambda _: None)
        self.lines: list[bytes] = []

    def read(self) -> None:
        while (found := self._tail.look()).more:
            assert not found.missing
            self.lines += found.lines
        while not (step := self._rules.step()).caught_up:
            assert step.problems == []

    def check(self, log: WrittenLog) -> None:
        self.read()
        assert self.lines == log.lines
        assert self._rules.state.place is not None

    def close(self) -> None:
        self._tail.close()
        self._rules.close()


def check(page: Page, log: WrittenLog, layout: Layout) -> None:
    """Check that the page knows of every line, also after a restart."""
    while page.step():
        pass
    entry = page.roster.entries["a"]
    assert entry.seq == len(log.lines)
    assert page.follower.progress.behind == 0
    assert list(page.follower.problems) == []
    page.follower.close()
    again = Page(layout)
    while again.step():
        pass
    assert again.roster.entries["a"].seq == len(log.lines)
    again.follower.close()


def play(
    page: Page, breaking: Breaking, at: int, layout: Layout, happening: list[list[Step]]
) -> WrittenLog:
    """Let the log grow between steps; the step that is the `at`-th finds the part broken."""
    log, neighbours = WrittenLog(layout.log_folder), Neighbours(layout)
    count = 0
    for turn in happening:
        for step in turn:
            step(log)
            for _ in range(2):
                breaking.is_armed = breaking.is_armed or count == at
                count += 1
                with suppress(Broken, sqlite3.OperationalError):
                    page.step()
        neighbours.read()
    breaking.is_armed = False
    neighbours.check(log)
    neighbours.close()
    return log


@pytest.mark.parametrize("happening", HAPPENINGS.values(), ids=HAPPENINGS)
@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize(("part", "name"), PLACES)
def test_a_fault_is_one_followers_own(
    part: str, name: str, at: int, happening: list[list[Step]], tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    page = Page(layout)
    is_database = part == "_keeper"
    error = sqlite3.OperationalError("disk I/O error") if is_database else Broken()
    breaking = Breaking(getattr(page.follower, part), name, error)
    setattr(page.follower, part, breaking)
    log = play(page, breaking, at, layout, happening)
    check(page, log, layout)


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("name", MODULE)
def test_a_fault_in_what_it_calls(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    page = Page(layout)
    breaking = Breaking(getattr(follower_module, name), "", Broken())
    monkeypatch.setattr(follower_module, name, breaking)
    log = play(page, breaking, at, layout, HAPPENINGS["rotation"])
    check(page, log, layout)


@pytest.mark.parametrize(("part", "name"), PLACES)
def test_each_row_of_the_table_breaks_something(part: str, name: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    page = Page(layout)
    breaking = Breaking(getattr(page.follower, part), name, Broken())
    setattr(page.follower, part, breaking)
    play(page, breaking, 0, layout, HAPPENINGS["writing"])
    page.follower._keeper.close()
    page.follower._log.close()
    assert breaking.failed == 1


def test_a_place_is_kept_only_after_it_acted(tmp_path: Path) -> None:
    """A fault while acting leaves the place where it was: the block comes again."""
    layout = Layout(tmp_path)
    layout.create()
    page = Page(layout)
    log = WrittenLog(layout.log_folder)
    put(3)(log)
    page.step()
    breaking = Breaking(page.roster, "note_records", Broken())
    page.follower._roster = breaking  # type: ignore[assignment]
    put(3)(log)
    before = page.follower._place
    breaking.is_armed = True
    with pytest.raises(Broken):
        page.step()
    assert page.follower._place == before
    check(page, log, layout)
