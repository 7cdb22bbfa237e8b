import errno
import itertools
import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.devices.registry import Registry
from ingest.layout import Layout
from ingest.log.reading import lines
from ingest.record import parse
from ingest.watch.rules.alertlog import AlertLog
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event
from ingest.watch.rules.replay import replay
from ingest.watch.rules.runner import Runner
from ingest.watch.rules.state import Noted, State
from ingest.watch.rules.surroundings import DiskTrend, Listener
from tests.log.logs import write
from tests.watch.rules.making import START, Sender, rules, told
from tests.watch.rules.test_engine import HOT, MANY, history

HOOK = 'then = ["webhook:http://127.0.0.1:1/"]\n'


@pytest.fixture
def send() -> Sender:
    return Sender()


@contextmanager
def running(
    layout: Layout, text: str, at: float = 0, listener: Listener | None = None
) -> Iterator[Runner]:
    """A runner whose clock stands, in seconds after the log's begin."""
    runner = Runner(
        layout, rules(layout.data, text), lambda: START + round(at * SECOND), lambda _: listener
    )
    try:
        yield runner
    finally:
        runner.close()


def steps(runner: Runner) -> list[Noted]:
    """Go to the end of the log."""
    noted: list[Noted] = []
    while True:
        step = runner.step()
        noted += step.noted
        if step.caught_up:
            return noted


def add(layout: Layout, *lines: bytes) -> None:
    with (layout.log_folder / "ingest.log").open("ab") as stream:
        stream.write(b"".join(lines))


def alert_lines(layout: Layout) -> list[tuple[int, str, str]]:
    found = [parse(line) for line in lines(layout.alerts_folder)]
    assert all(isinstance(each.value, dict) for each in found)
    return [(each.seq, each.device, each.value["state"]) for each in found]  # type: ignore[index]


def test_the_first_start_begins_at_the_end(layout: Layout, send: Sender) -> None:
    add(layout, send(1, "temp=31"))
    with running(layout, HOT + HOOK) as runner:
        assert steps(runner) == []
        add(layout, send(2, "temp=20"), send(3, "temp=32"))
        assert told([each.event for each in steps(runner)]) == [("hot", "a", "fires", 3)]


def test_a_restart_goes_on_and_tells_nothing_twice(layout: Layout, send: Sender) -> None:
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"))
        (fired,) = steps(runner)
        assert steps(runner) == []
    add(layout, send(2, "temp=33"), send(3, "temp=20"))
    with running(layout, HOT + HOOK) as runner:
        assert [each.number for each in runner.state.firing()] == [fired.number]
        (cleared,) = steps(runner)
        assert cleared.event.id == fired.event.id
        assert runner.state.firing() == []
        target = "webhook:http://127.0.0.1:1/"
        assert runner.state.waiting() == {target: 2}
        assert runner.state.next_for(target) == fired
        runner.state.delivered(target, fired.number)
        assert runner.state.next_for(target) == cleared
    assert alert_lines(layout) == [(1, "a", "firing"), (2, "a", "cleared")]


def test_a_night_off_is_caught_up_with_the_times_of_the_log(layout: Layout, send: Sender) -> None:
    quiet = '[[rule]]\nname = "quiet"\nsilent = "10m"\n'
    with running(layout, quiet) as runner:
        add(layout, send(0, "x"), send(0, "x", "b"))
        assert steps(runner) == []
    # At night `a` went on, and `b` was away until shortly before the watcher's start.
    for second in range(300, 36000, 300):
        add(layout, send(second, "x"), *([send(second, "x", "b")] if second >= 35700 else []))
    with running(layout, quiet, at=36010) as runner:
        events = [each.event for each in steps(runner)]
    assert told(events) == [("quiet", "b", "fires", 600), ("quiet", "b", "clears", 35700)]


def test_what_fires_by_time_alone_fires_while_the_log_stands(layout: Layout, send: Sender) -> None:
    quiet = '[[rule]]\nname = "quiet"\nsilent = "10m"\n'
    with running(layout, quiet) as runner:
        add(layout, send(0, "x"))
        assert steps(runner) == []
    with running(layout, quiet, at=601) as runner:  # a record may be two seconds late
        assert steps(runner) == []
    with running(layout, quiet, at=602) as runner:
        assert told([each.event for each in steps(runner)]) == [("quiet", "a", "fires", 600)]


@pytest.mark.parametrize("seed", range(3))
def test_live_and_replayed_are_the_same(layout: Layout, seed: int) -> None:
    """With restarts, rotations and blocks of any size in between."""
    chance = random.Random(seed)
    live, closed = [], 0
    runner = Runner(layout, rules(layout.data, MANY), lambda: START)
    for line in history(seed):
        add(layout, line)
        if chance.random() < 0.1:
            live += steps(runner)
        if chance.random() < 0.02:
            runner.close()
            runner = Runner(layout, rules(layout.data, MANY), lambda: START)
        if chance.random() < 0.02:
            closed += 1
            name = f"ingest-20261122T{12 + closed // 60:02}{closed % 60:02}00.000Z.log"
            content = (layout.log_folder / "ingest.log").read_bytes().splitlines()
            write(layout.log_folder / (name + chance.choice(["", ".gz", ".zst"])), *content)
            (layout.log_folder / "ingest.log").unlink()
    live += steps(runner)
    runner.close()
    end = max(each.event.time for each in live) // SECOND + 1
    again = replay(
        layout.log_folder, rules(layout.data, MANY).rules, None,
        datetime.fromtimestamp(end, UTC), lambda error: pytest.fail(str(error)),
    )  # fmt: skip
    assert [each.event for each in live] == again
    assert len(live) > 50
    assert [each[0] for each in alert_lines(layout)] == list(range(1, len(live) + 1))


def test_a_step_that_is_not_saved_is_taken_again(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"))
        with monkeypatch.context() as patch:
            patch.setattr(runner.state, "save", _full)
            with pytest.raises(sqlite3.OperationalError):
                runner.step()
        (fired,) = steps(runner)
    assert alert_lines(layout) == [(1, "a", "firing")]
    assert fired.number == 1


def test_a_state_that_can_not_be_read_either(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"))
        with monkeypatch.context() as patch:
            patch.setattr(runner.state, "save", _full)
            patch.setattr(runner.state, "load", _full)
            for _ in range(3):
                with pytest.raises(sqlite3.OperationalError):
                    runner.step()
        assert len(steps(runner)) == 1
    assert alert_lines(layout) == [(1, "a", "firing")]


def test_a_log_of_alerts_that_can_not_be_written_stops_nothing(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(layout, HOT + HOOK) as runner:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", _no_space)
            add(layout, send(1, "temp=31"))
            step = runner.step()
            assert len(step.noted) == 1
            assert step.problems == ["the log of alerts can't be written: No space left on device"]
            add(layout, send(2, "temp=1"))
            step = runner.step()
            assert (len(step.noted), step.problems) == (1, [])
            assert alert_lines(layout) == []
        assert steps(runner) == []
    assert alert_lines(layout) == [(1, "a", "firing"), (2, "a", "cleared")]


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_the_log_of_alerts_is_mended(layout: Layout, send: Sender) -> None:
    """Its last lines were lost or torn when the watcher was killed; the state has them."""
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"), send(2, "temp=1"), send(3, "temp=31"))
        steps(runner)
    path = layout.alerts_folder / "ingest.log"
    whole = path.read_bytes()
    for end in (0, 10, whole.find(b"\n") + 1, whole.find(b"\n") + 20, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:end])
        with running(layout, HOT + HOOK):
            assert path.read_bytes() == whole


def test_numbers_go_on_when_the_state_is_lost(layout: Layout, send: Sender) -> None:
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"), send(2, "temp=1"))
        assert len(steps(runner)) == 2
    for path in layout.state_folder.glob("rules.db*"):
        path.unlink()
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(3, "temp=31"))
        assert [each.number for each in steps(runner)] == [3]
    assert [seq for seq, *_ in alert_lines(layout)] == [1, 2, 3]


def test_a_full_log_of_alerts_is_rotated(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.watch.rules.alertlog._FULL", 1000)
    monkeypatch.setattr("ingest.watch.rules.alertlog._KEPT", 2)
    with running(layout, HOT) as runner:
        for number in range(20):
            add(layout, send(number, f"temp={31 * (number % 2)}"))
            steps(runner)
        last = AlertLog(layout.alerts_folder).last
    files = sorted(path.name for path in layout.alerts_folder.iterdir())
    assert len([name for name in files if name != "ingest.log"]) == 2
    kept = [seq for seq, *_ in alert_lines(layout)]
    assert kept == list(range(kept[0], last + 1))
    assert last == 19


def test_other_rules_go_on_as_they_stood(layout: Layout, send: Sender) -> None:
    with running(layout, HOT + HOOK + WARM) as runner:
        add(layout, send(1, "temp=31"))
        assert len(steps(runner)) == 2
        runner.set_rules(rules(layout.data, HOT.replace("30", "20") + HOOK))
        (gone,) = steps(runner)
        assert told([gone.event]) == [("warm", "a", "clears", 1)]
        assert gone.event.message == "a: the rule was removed"
        assert gone.targets == ("mail:ops@example.org",)
        assert steps(runner) == []
        add(layout, send(2, "temp=25"), send(3, "temp=20"))
        assert told([each.event for each in steps(runner)]) == [("hot", "a", "clears", 3)]


WARM = '[[rule]]\nname = "warm"\nwhen = "temp > 25"\nthen = ["mail:ops@example.org"]\n'


def test_who_heard_that_it_fired_hears_that_it_cleared(layout: Layout, send: Sender) -> None:
    with running(layout, HOT + HOOK) as runner:
        add(layout, send(1, "temp=31"))
        steps(runner)
        runner.set_rules(rules(layout.data, HOT + 'then = ["mail:ops@example.org"]'))
        add(layout, send(2, "temp=1"))
        (cleared,) = steps(runner)
        assert cleared.targets == ("webhook:http://127.0.0.1:1/", "mail:ops@example.org")


def test_lines_that_are_gone_are_told_and_passed_by(layout: Layout, send: Sender) -> None:
    with running(layout, HOT) as runner:
        add(layout, send(1, "temp=1"))
        assert steps(runner) == []
    add(layout, send(2, "temp=31"))
    (layout.log_folder / "ingest.log").unlink()
    write(layout.log_folder / "ingest-20261122T120000.000Z.log", send(9, "temp=1", skip=6)[:-1])
    add(layout, send(10, "temp=31"))
    with running(layout, HOT) as runner:
        step = runner.step()
        assert len(step.problems) == 1
        assert "lines are gone" in step.problems[0]
        assert told([each.event for each in step.noted]) == [("hot", "a", "fires", 10)]


def test_the_listener_is_asked(layout: Layout) -> None:
    text = '[[rule]]\nname = "no"\nrefused = 3\n[[rule]]\nname = "disk"\ndisk_full_within = "1d"\n'
    with running(layout, text, at=7, listener=Listener({"a": 4}, 60.0, 3600.0)) as runner:
        assert told([each.event for each in steps(runner)]) == [
            ("disk", "", "fires", 7), ("no", "a", "fires", 7),
        ]  # fmt: skip
        assert steps(runner) == []
    assert alert_lines(layout) == [(1, "", "firing"), (2, "a", "firing")]


def test_without_a_listener_the_disk_is_looked_at(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiskTrend, "full_in", lambda *_: 3600.0)
    text = '[[rule]]\nname = "disk"\ndisk_full_within = "1d"\n'
    with running(layout, text, at=7) as runner:
        assert told([each.event for each in steps(runner)]) == [("disk", "", "fires", 7)]


def test_the_silence_of_a_removed_device_is_no_news(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.watch.rules.runner._LOOK_AROUND", 0)
    with Registry(layout.devices) as registry:
        for name in ("a", "b", "c"):
            registry.add(name, "a token")
        with running(layout, '[[rule]]\nname = "quiet"\nsilent = "10s"\n', at=60) as runner:
            add(layout, *(send(1, "x", name) for name in ("a", "b")))
            assert len(steps(runner)) == 2
            registry.remove("a")
            registry.remove("c")
            registry.set_enabled("b", False)
            (cleared,) = steps(runner)
            assert told([cleared.event]) == [("quiet", "a", "clears", 60)]
            assert cleared.event.message == "a: the device was removed"
            assert steps(runner) == []


def test_a_device_that_was_removed_in_a_night_off(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fires on it clears, whatever it is. One that never was registered goes on."""
    monkeypatch.setattr("ingest.watch.rules.runner._LOOK_AROUND", 0)
    with Registry(layout.devices) as registry:
        registry.add("a", "a token")
        with running(layout, HOT, at=5) as runner:
            add(layout, *(send(1, "temp=31", name) for name in ("a", "b")))
            assert len(steps(runner)) == 2
        registry.remove("a")
        with running(layout, HOT, at=60) as runner:
            (cleared,) = steps(runner)
            assert told([cleared.event]) == [("hot", "a", "clears", 60)]
            assert cleared.event.message == "a: the device was removed"
            assert steps(runner) == []


def test_when_a_disk_will_be_full(tmp_path: Path) -> None:
    trend = DiskTrend(tmp_path)
    assert trend.note(0, 1000) is None
    assert trend.note(100, 900) is None
    assert trend.note(400, 600) == 600
    assert trend.note(500, 1000) is None
    assert trend.note(600, 1000) is None
    assert trend.note(4200, 800) == pytest.approx(800 * 3600 / 200)
    assert trend.note(9000, 0) == 0
    assert trend.full_in(9001) is None


def test_history_and_queues_stay_bounded(
    layout: Layout, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.watch.rules.state._KEPT_EVENTS", 500)
    monkeypatch.setattr("ingest.watch.rules.state._MOST_WAITING", 300)
    with running(layout, HOT + HOOK) as runner:
        add(layout, *(send(second, f"temp={31 * (second % 2)}") for second in range(3002)))
        noted = steps(runner)
        assert len(noted) == 3001
        target = "webhook:http://127.0.0.1:1/"
        assert runner.state.waiting()[target] <= 301
        assert len(runner.state.newest(5000)) <= 501
        outcomes = runner.state.outcomes(range(2600, 3002))
        assert {number for number, _ in outcomes} == set(range(2600, 2701))
        assert outcomes[2700, target].failure == "dropped, as 300 newer ones waited"


def test_to_drop_the_oldest_of_a_full_queue_is_cheap(tmp_path: Path) -> None:
    """For each that waits a few instructions of SQLite; it was some for each pair of them."""
    (hot,) = rules(tmp_path, HOT + HOOK).rules
    state, engine, ticks = State(tmp_path / "rules.db"), Engine([hot]), itertools.count()
    events = [Event("hot", "a", True, at, 0, at, at, "", "", {}) for at in range(11_000)]
    state.save(engine, "{}", events[:-1])
    state._database.set_progress_handler(lambda: next(ticks) < 0, 1000)
    state.save(engine, "{}", events[-1:])
    assert next(ticks) < 1_000
    assert state.waiting() == {str(hot.then[0]): 10_000}
    state.close()


def test_a_state_of_a_newer_program_is_let_alone(layout: Layout) -> None:
    with running(layout, HOT):
        pass
    with sqlite3.connect(layout.rules_state) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(sqlite3.DatabaseError, match="newer program"), running(layout, HOT):
        pass


def test_what_an_alert_says(layout: Layout, send: Sender) -> None:
    with running(layout, HOT + 'message = "{device}: {temp}"') as runner:
        add(layout, send(1, "temp=31"))
        steps(runner)
    (line,) = lines(layout.alerts_folder)
    assert json.loads(line) == {
        "time": "2026-11-22T11:00:01.000000Z",
        "device": "a",
        "seq": 1,
        "data": {
            "id": json.loads(line)["data"]["id"],
            "rule": "hot",
            "device": "a",
            "state": "firing",
            "message": "a: 31",
            "reason": "temp > 30",
            "since": "2026-11-22T11:00:01.000000Z",
            "fired": "2026-11-22T11:00:01.000000Z",
            "time": "2026-11-22T11:00:01.000000Z",
            "seq": 1,
            "fields": {"temp": 31.0},
        },
    }
