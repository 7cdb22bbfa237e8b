"""What every reader of the log keeps, whoever it is: nothing is skipped, and nothing hides that.

A follower reads for ever, and each line once, whatever happens to the files between two reads. A
reader to the end stops there; behind lines that are missing both go on.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingest
from ingest.layout import Layout
from ingest.log.following import follow
from ingest.log.log import Log
from ingest.log.places import START
from ingest.watch.follower import Follower, Traffic
from ingest.watch.roster import Roster
from ingest.watch.rules.replay import _blocks
from ingest.watch.rules.runner import Runner
from ingest.watch.series import Curves
from ingest.watch.tailing import Tail, lines_around
from tests.log.logs import BEGIN, WrittenLog
from tests.log.test_following import _RENAMES, Step, _DoneError, played, put
from tests.watch.rules.making import rules
from tests.watch.rules.test_engine import HOT

Missing = Callable[[str], object]
Following = Callable[[Layout, Callable[[], None], Missing], Iterator[bytes]]
"""Yields the lines that it acts on. It is given what to call when there is nothing new, and what to
call where lines are missing."""


def by_follow(layout: Layout, wait: Callable[[], None], missing: Missing) -> Iterator[bytes]:
    yield from follow(
        layout.log_folder, first=None, wait=wait, missing=lambda error: missing(str(error))
    )


def by_tail(layout: Layout, wait: Callable[[], None], missing: Missing) -> Iterator[bytes]:
    tail = Tail(layout, "", "", place=START, count=0)
    try:
        while True:
            found = tail.look()
            if found.missing:
                missing(found.missing)
            yield from found.lines
            if not found.more:
                wait()
    finally:
        tail.close()


class Noting:
    """Stands for an engine of rules, and notes what it is fed."""

    def __init__(self, engine: Any) -> None:
        self.lines: list[bytes] = []
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def feed(self, block: bytes) -> Any:
        self.lines += block.splitlines()
        return self._engine.feed(block)


def by_rules(layout: Layout, wait: Callable[[], None], missing: Missing) -> Iterator[bytes]:
    start = int(BEGIN.timestamp()) * 1_000_000
    runner = Runner(layout, rules(layout.data, HOT), lambda: start, lambda _: None)
    noting: Any = Noting(runner._engine)
    runner._engine = noting
    try:
        while True:
            step = runner.step()
            for problem in step.problems:
                missing(problem)
            yield from noting.lines
            noting.lines.clear()
            if step.caught_up:
                wait()
    finally:
        runner.close()


class NotingTraffic(Traffic):
    """Counts no more than how many lines came."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    def add(self, seconds: Any, size: int, now: float) -> None:
        self.lines += seconds.total()
        super().add(seconds, size, now)


def by_page(layout: Layout, wait: Callable[[], None], missing: Missing) -> Iterator[bytes]:
    traffic, blocks = NotingTraffic(), list[bytes]()
    follower = Follower(layout, Roster(), Curves(), traffic, clock=BEGIN.timestamp)
    act = follower._act

    def note(block: bytes, now: float) -> None:
        blocks.append(block)
        act(block, now)

    follower._act = note  # type: ignore[method-assign]
    told = 0
    try:
        while True:
            more = follower.step()
            for _, problem in list(follower.problems)[told:]:
                missing(problem)
            told = len(follower.problems)
            yield from (line for block in blocks for line in block.splitlines())
            blocks.clear()
            if not more:
                wait()
    finally:
        follower.close()


def around(layout: Layout) -> list[bytes]:
    return lines_around(layout, "a", BEGIN.timestamp(), 1000)


def replayed(layout: Layout) -> list[bytes]:
    with Log(layout.log_folder) as log:
        blocks = list(_blocks(log, START, lambda _: None))
    return b"".join(blocks).splitlines()


FOLLOWERS: dict[str, Following] = {
    "log.following.follow": by_follow,
    "watch.tailing.Tail.look": by_tail,
    "watch.rules.runner.Runner._read": by_rules,
    "watch.follower.Follower.step": by_page,
}
READERS: dict[str, Callable[[Layout], list[bytes]]] = {
    "watch.tailing.lines_around": around,
    "watch.rules.replay._blocks": replayed,
}
in_every_follower = pytest.mark.parametrize("following", FOLLOWERS.values(), ids=FOLLOWERS)


def callers(tree: ast.AST, name: str, within: str) -> Iterator[str]:
    """Return the functions that call a method of this name."""
    for node in ast.iter_child_nodes(tree):
        inner = within
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{within}.{node.name}"
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == name:
            yield within
        yield from callers(node, name, inner)


def test_no_reader_is_left_out() -> None:
    """Whoever calls `Log.read_from` is in one of the two tables above."""
    root = Path(ingest.__file__).parent
    found = {
        caller
        for path in root.rglob("*.py")
        for caller in callers(
            ast.parse(path.read_text()),
            "read_from",
            ".".join(path.relative_to(root).with_suffix("").parts),
        )
    }
    assert found == {*FOLLOWERS, *READERS}


def made(folder: Path) -> Layout:
    layout = Layout(folder)
    layout.create()
    return layout


def followed(
    following: Following, layout: Layout, log: WrittenLog, *turns: list[Step]
) -> tuple[list[bytes], list[str]]:
    """Return what a follower acts on while the turns are played, and what it says is missing."""
    found: list[bytes] = []
    said: list[str] = []
    with pytest.raises(_DoneError):
        for line in following(layout, played(log, turns), said.append):
            found.append(line)  # noqa: PERF402 - kept when the loop ends in an exception
    return found, said


_writes = st.integers(1, 150).map(lambda size: lambda log: log.write(size))
_turns = st.lists(st.lists(_writes | st.sampled_from(_RENAMES), max_size=6), max_size=10)
_copies = st.lists(
    st.lists(_writes | st.just(WrittenLog.copy_and_truncate), max_size=6), max_size=10
)


@in_every_follower
@settings(max_examples=30)
@given(turns=_turns | _copies)
def test_each_line_comes_once(following: Following, turns: list[list[Step]]) -> None:
    with TemporaryDirectory() as name:
        layout = made(Path(name))
        log = WrittenLog(layout.log_folder)
        found, said = followed(following, layout, log, *turns)
        assert (found, said) == (log.lines, [])


def _remove_closed(log: WrittenLog) -> None:
    for path in log.active.parent.glob("ingest-*"):
        path.unlink()


@in_every_follower
def test_what_is_missing_is_said_and_reading_goes_on(following: Following, tmp_path: Path) -> None:
    layout = made(tmp_path)
    log = WrittenLog(layout.log_folder)
    gone = [WrittenLog.rotate, put(2), WrittenLog.rotate, _remove_closed, put(2)]
    found, said = followed(following, layout, log, [put(2)], gone, [put(1)])
    assert found == log.lines[:2] + log.lines[4:]
    assert said == ["lines are gone: a has number 5 after 2"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_reader_goes_on_behind_what_is_missing(
    read: Callable[[Layout], list[bytes]], tmp_path: Path
) -> None:
    layout = made(tmp_path)
    log = WrittenLog(layout.log_folder)
    for step in (put(2), WrittenLog.rotate, put(2), WrittenLog.rotate, put(2)):
        step(log)
    _, second = sorted(layout.log_folder.glob("ingest-*"))
    second.unlink()
    assert read(layout) == log.lines[:2] + log.lines[4:]
