import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ingest.log.jumps import note_jump
from ingest.record import record_time
from ingest.watch.rules.engine import Engine
from ingest.watch.rules.memory import dump_watch, load_watch
from ingest.watch.rules.model import Rule
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.phases import Event
from ingest.watch.rules.surroundings import jumps
from tests.log.logs import BEGIN
from tests.watch.rules.making import START, Sender, engine, rules, told


@pytest.fixture
def send() -> Sender:
    return Sender()


HOT = '[[rule]]\nname = "hot"\nwhen = "temp > 30"\n'


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def test_a_condition_fires_and_clears(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'message = "{device} has {temp:.1f} since {since}"')
    events = hot.feed(
        send(1, "temp=20") + send(2, "temp=31") + send(3, "hum=1") + send(4, "temp=33")
        + send(5, "temp=30") + send(6, "temp=29") + send(7, "temp=40", "b")
    )  # fmt: skip
    assert told(events) == [
        ("hot", "a", "fires", 2), ("hot", "a", "clears", 5), ("hot", "b", "fires", 7),
    ]  # fmt: skip
    assert events[0].message == "a has 31.0 since 2026-11-22T11:00:02Z"
    assert events[0].fields == {"temp": 31.0}
    assert events[1].message == "a has 30.0 since 2026-11-22T11:00:02Z"
    assert events[0].id == events[1].id != events[2].id


def test_devices_are_picked_by_a_glob(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'devices = "cold-?"')
    events = hot.feed(send(1, "temp=31", "cold-1") + send(2, "temp=31", "cold-10"))
    assert told(events) == [("hot", "cold-1", "fires", 1)]


def test_for_waits(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'for = "10s"')
    assert hot.feed(send(1, "temp=31") + send(5, "temp=20") + send(6, "temp=31")) == []
    assert hot.feed(send(9, "temp=32") + send(15.9, "hum=1")) == []
    events = hot.feed(send(17, "temp=20"))
    assert told(events) == [("hot", "a", "fires", 16), ("hot", "a", "clears", 17)]
    assert events[0].since == at(6)
    assert events[0].fields == {"temp": 32.0}


def test_for_fires_without_a_new_record(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'for = "10s"')
    assert hot.feed(send(1, "temp=31")) == []
    assert hot.advance(at(10.9)) == []
    assert told(hot.advance(at(3600))) == [("hot", "a", "fires", 11)]


def test_a_device_that_flaps_takes_no_memory(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'for = "10m"')
    block = b"".join(send(number / 10, f"temp={31 * (number % 2)}") for number in range(2000))
    assert hot.feed(block) == []
    assert len(hot._standing._timers) == 1
    assert told(hot.advance(at(10000))) == [("hot", "a", "fires", 799.9)]


def test_clear_is_a_condition_of_its_own(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'clear = "temp < 25"')
    events = hot.feed(b"".join(send(time, f"temp={temp}") for time, temp in enumerate(
        (31, 29, 26, 31, 25, 24, 29), 1
    )))  # fmt: skip
    assert told(events) == [("hot", "a", "fires", 1), ("hot", "a", "clears", 6)]


def test_it_keeps_firing_for_a_while(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'keep_firing_for = "10s"')
    events = hot.feed(b"".join(
        send(time, f"temp={temp}") for time, temp in ((1, 31), (2, 20), (11, 31), (13, 20))
    ))  # fmt: skip
    assert told(events) == [("hot", "a", "fires", 1)]
    assert told(hot.advance(at(60))) == [("hot", "a", "clears", 23)]


def test_previous_and_rate(tmp_path: Path, send: Sender) -> None:
    both = engine(
        tmp_path,
        '[[rule]]\nname = "fast"\nwhen = "rate(temp) > 2"\n'
        '[[rule]]\nname = "flip"\nwhen = "door != previous.door"\n',
    )
    events = both.feed(
        send(0, "temp=1 door=shut") + send(10, "temp=20") + send(20, "temp=50 door=shut")
        + send(30, "temp=50 door=open") + send(40, "temp=50 door=open")
    )  # fmt: skip
    assert told(events) == [
        ("fast", "a", "fires", 20), ("fast", "a", "clears", 30),
        ("flip", "a", "fires", 30), ("flip", "a", "clears", 40),
    ]  # fmt: skip


def test_an_age_passes_between_records(tmp_path: Path, send: Sender) -> None:
    old = engine(tmp_path, '[[rule]]\nname = "old"\nwhen = "age(temp) > 60"\n')
    events = old.feed(send(0, "temp=1") + send(30, "temp=1") + send(89, "hum=1"))
    assert events == []
    events = old.feed(send(100, "hum=1") + send(120, "temp=1") + send(130, "hum=1"))
    assert told(events) == [("old", "a", "fires", 90.000001), ("old", "a", "clears", 120)]
    assert told(old.advance(at(500))) == [("old", "a", "fires", 180.000001)]


def test_silence(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "10s"\n')
    events = quiet.feed(send(0, "x") + send(9, "x") + send(5, "x", "b") + send(19.5, "x"))
    assert told(events) == [
        ("quiet", "b", "fires", 15), ("quiet", "a", "fires", 19), ("quiet", "a", "clears", 19.5),
    ]  # fmt: skip
    assert events[0].since == at(5)
    assert events[0].message == "b: silent for 10 s"
    assert told(quiet.advance(at(100))) == [("quiet", "a", "fires", 29.5)]


def test_a_restart_is_no_silence(tmp_path: Path, send: Sender) -> None:
    """The watcher was away for a night; the device was not."""
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "10m"\n')
    assert quiet.feed(send(0, "x")) == []
    night = b"".join(send(time, "x") for time in range(300, 30000, 300))
    assert quiet.feed(night) == []
    assert quiet.advance(at(30000)) == []


def test_the_silence_of_a_field(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "no temp"\nsilent = "10s"\nfield = "temp"\n')
    events = quiet.feed(send(0, "hum=1") + send(1, "temp=1") + send(8, "hum=1") + send(30, "hum=1"))
    assert told(events) == [("no temp", "a", "fires", 11)]
    assert events[0].message == "a: no temp for 10 s"
    assert told(quiet.feed(send(31, "temp=1"))) == [("no temp", "a", "clears", 31)]


def test_a_usual_interval_is_learned(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "learned"\n')
    assert quiet.feed(b"".join(send(time, "x") for time in range(0, 300, 60))) == []
    assert quiet.advance(at(290)) == []
    assert quiet.feed(b"".join(send(time, "x") for time in range(300, 1200, 60))) == []
    assert quiet.advance(at(1140 + 179.9)) == []
    assert told(quiet.advance(at(1140 + 180))) == [("quiet", "a", "fires", 1320)]
    assert told(quiet.feed(send(9000, "x"))) == [("quiet", "a", "clears", 9000)]
    assert told(quiet.advance(at(9181))) == [("quiet", "a", "fires", 9180)]


def test_a_burst_is_not_an_interval(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "learned"\n')
    for minute in range(0, 1200, 60):
        assert quiet.feed(b"".join(send(minute + part / 100, "x") for part in range(50))) == []
    assert quiet.advance(at(1140 + 170)) == []
    assert len(quiet.advance(at(1140 + 190))) == 1


def test_a_field_has_an_interval_of_its_own(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "no bat"\nsilent = "learned"\nfield = "bat"\n')
    events = []
    for second in range(0, 7201, 10):
        events += quiet.feed(send(second, "bat=3" if second % 600 == 0 else "temp=1"))
    assert events == []
    assert told(quiet.advance(at(9001))) == [("no bat", "a", "fires", 9000)]


def test_missing_numbers(tmp_path: Path, send: Sender) -> None:
    gaps = engine(tmp_path, '[[rule]]\nname = "gap"\nmissing_numbers = true\n')
    events = gaps.feed(
        send(0, "x", skip=6) + send(1, "x") + send(2, "x", skip=3) + send(3, "x")
        + send(4, "x", skip=1) + send(5, "x", skip=-1)
    )  # fmt: skip
    assert [each.message for each in events if each.firing] == [
        "a: missing: number 9 to 11",
        "a: missing: number 14",
    ]
    assert told(events)[:2] == [("gap", "a", "fires", 2), ("gap", "a", "clears", 3)]
    assert told(events)[2:] == [("gap", "a", "fires", 4)]


def influx(time: float, temp: float, send: Sender) -> bytes:
    """A line of Influx, as the listener has parsed it."""
    frame = {"measurement": "weather", "tags": {"place": "roof"}, "fields": {"temp": temp}}
    return send(time, "").replace(b'"text":""', b'"data":' + json.dumps(frame).encode())


@pytest.mark.parametrize("prefix", ["", "fields.", "fields.fields."])
def test_a_field_of_influx_goes_by_its_name(tmp_path: Path, send: Sender, prefix: str) -> None:
    field = f"{prefix}temp".removeprefix("fields.fields.")
    file = f"""
[[rule]]
name = "hot"
when = "{prefix}temp > 30 && tags.place == 'roof' && !has(fields.hum)"
message = "{{temp:.1f}} {{{prefix.removeprefix("fields.")}temp}}"
[[rule]]
name = "fast"
when = "rate({prefix}temp) > 1 && {prefix}temp - previous.temp == 20"
[[rule]]
name = "old"
when = "age({prefix}temp) > 30"
[[rule]]
name = "quiet"
silent = "60s"
field = "{field}"
"""
    rules_ = engine(tmp_path, file)
    events = rules_.feed(influx(0, 20, send) + influx(10, 40, send) + send(20, "x=1"))
    assert told(events) == [("hot", "a", "fires", 10), ("fast", "a", "fires", 10)]
    assert events[0].message.startswith("40.0 40")
    assert told(rules_.advance(at(100))) == [
        ("old", "a", "fires", 40.000001), ("quiet", "a", "fires", 70),
    ]  # fmt: skip


def test_a_field_of_the_frame_itself_comes_first(tmp_path: Path, send: Sender) -> None:
    rules_ = engine(tmp_path, HOT)
    assert rules_.feed(send(0, r"{\"temp\":20,\"fields\":{\"temp\":31}}")) == []
    assert len(rules_.feed(send(0, r"{\"temp\":32,\"fields\":{\"temp\":20}}"))) == 1


def test_refusals(tmp_path: Path) -> None:
    doors = engine(tmp_path, '[[rule]]\nname = "no"\nrefused = 3\nwithin = "60s"\ndevices = "a*"\n')
    started = at(-5)
    assert doors.refusals({"a": 2, "b": 9}, started, at(0)) == []
    events = doors.refusals({"a": 3, "b": 19}, started, at(10))
    assert told(events) == [("no", "a", "fires", 10)]
    assert events[0].message == "a: refused 3 times"
    assert doors.refusals({"a": 3}, started, at(50)) == []
    assert told(doors.refusals({}, started, at(61))) == [("no", "a", "clears", 61)]
    # The listener has started again: it counts from zero.
    assert doors.refusals({"a": 1}, at(190), at(200)) == []
    assert told(doors.refusals({"a": 3}, at(190), at(210))) == [("no", "a", "fires", 210)]


def test_refusals_before_a_rule_looked_at_the_device_do_not_count(
    tmp_path: Path, send: Sender
) -> None:
    text = '[[rule]]\nname = "no"\nrefused = 3\n'
    first = engine(tmp_path, text + 'devices = "a"\n')
    for second in (0, 15):
        first.refusals({"a": 0, "b": 100 + second}, at(-86400), at(second))
    then = restarted(first, rules(tmp_path, text).rules)
    assert then.refusals({"a": 0, "b": 117}, at(-86400), at(30)) == []
    assert told(then.refusals({"a": 0, "b": 118}, at(-86400), at(45))) == [("no", "b", "fires", 45)]


def test_refusals_that_may_be_old_do_not_count(tmp_path: Path) -> None:
    doors = engine(tmp_path, '[[rule]]\nname = "no"\nrefused = 3\nwithin = "60s"\n')
    started = at(-86400)
    assert doors.refusals({"a": 1000}, started, at(0)) == []
    assert doors.refusals({"a": 1002}, started, at(15)) == []
    assert doors.refusals({"a": 1900}, started, at(30000)) == []
    assert doors.refusals({"a": 1902}, started, at(30015)) == []
    events = doors.refusals({"a": 1903}, started, at(30030))
    assert told(events) == [("no", "a", "fires", 30030)]


def test_a_full_disk(tmp_path: Path) -> None:
    disk = engine(tmp_path, '[[rule]]\nname = "disk"\ndisk_full_within = "1d"\n')
    assert disk.disk(None, at(0)) == []
    assert disk.disk(90000.0, at(1)) == []
    events = disk.disk(7200.0, at(2))
    assert told(events) == [("disk", "", "fires", 2)]
    assert events[0].message == "the disk will be full in 2.0 h at the present rate"
    assert disk.disk(3600.0, at(3)) == []
    assert told(disk.disk(None, at(4))) == [("disk", "", "clears", 4)]


def test_a_removed_device_is_let_go(tmp_path: Path, send: Sender) -> None:
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "10s"\n')
    quiet.feed(send(0, "x"))
    quiet.advance(at(20))
    events = quiet.forget(quiet.device("a"), at(21))
    assert told(events) == [("quiet", "a", "clears", 21)]
    assert events[0].message == "a: the device was removed"
    assert quiet.advance(at(1000)) == []
    assert told(quiet.feed(send(1001, "x")) + quiet.advance(at(1020))) == [
        ("quiet", "a", "fires", 1011)
    ]


def test_what_is_no_record_changes_nothing(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT)
    torn = send(1, "temp=31")[:-4] + b"\n"
    assert hot.feed(b"\n{}\nnoise temp=31\n" + torn + b'{"time":"x"}\n') == []
    assert len(hot.feed(send(2, "temp=31"))) == 1


def test_a_clock_that_went_back(tmp_path: Path, send: Sender) -> None:
    """An hour, once for a moment and once for good: silence and age go by the new time."""
    text = '[[rule]]\nname = "quiet"\nsilent = "10s"\n' + HOT
    text += '[[rule]]\nname = "old"\nwhen = "age(temp) > 30"\n'
    went = engine(tmp_path, text)
    assert told(went.feed(send(3600, "x") + send(0, "temp=31"))) == [("hot", "a", "fires", 0)]
    assert told(went.feed(send(9, "temp=1") + send(17, "x") + send(26, "x"))) == [
        ("hot", "a", "clears", 9),
    ]  # fmt: skip
    assert told(went.advance(at(60))) == [
        ("quiet", "a", "fires", 36), ("old", "a", "fires", 39.000001),
    ]  # fmt: skip


def test_a_clock_that_was_set_back_is_not_waited_for(tmp_path: Path, send: Sender) -> None:
    text = HOT + 'for = "60s"\nkeep_firing_for = "30s"\n[[rule]]\nname = "quiet"\nsilent = "90s"\n'
    went = engine(tmp_path, text)
    went.feed(send(3600, "temp=31") + send(3600, "temp=31", "b"))
    assert told(went.feed(send(0, "x", "b")) + went.advance(at(100))) == [
        ("hot", "a", "fires", 60), ("hot", "b", "fires", 60),
        ("quiet", "a", "fires", 90), ("quiet", "b", "fires", 90),
    ]  # fmt: skip
    went.feed(send(3600, "temp=1", "b"))
    assert ("hot", "b", "clears", 230) in told(went.feed(send(200, "x")) + went.advance(at(231)))


def test_a_clock_that_was_ahead_for_a_moment(tmp_path: Path, send: Sender) -> None:
    """What came before it is as old as it was."""
    quiet = engine(tmp_path, '[[rule]]\nname = "quiet"\nsilent = "60s"\n')
    events = quiet.feed(send(0, "x") + send(3600, "x", "b") + send(10, "x", "b"))
    assert told(events + quiet.feed(send(20, "x"))) == [
        ("quiet", "a", "fires", 60), ("quiet", "a", "clears", 20),
    ]  # fmt: skip
    assert told(quiet.advance(at(79))) == [("quiet", "b", "fires", 70)]
    assert told(quiet.advance(at(80))) == [("quiet", "a", "fires", 80)]


def test_lines_that_are_gone_are_no_silence(tmp_path: Path, send: Sender) -> None:
    """Nor missing numbers, nor a rate; a silence counts from where the log goes on."""
    text = HOT + 'for = "60s"\n[[rule]]\nname = "quiet"\nsilent = "90s"\n'
    text += '[[rule]]\nname = "gap"\nmissing_numbers = true\n'
    text += '[[rule]]\nname = "fast"\nwhen = "rate(temp) > 0.001"\n'
    rules_ = engine(tmp_path, text)
    rules_.feed(send(0, "temp=31") + send(0, "temp=31", "b"))
    rules_.skip()
    assert rules_.feed(b"") == rules_.feed(send(3600, "temp=90", skip=50)) == []
    assert told(rules_.feed(send(3680, "x")) + rules_.advance(at(3700))) == [
        ("hot", "a", "fires", 3660), ("quiet", "b", "fires", 3690),
    ]  # fmt: skip


def test_numbers_that_the_listener_left_out_are_not_missing(tmp_path: Path, send: Sender) -> None:
    note_jump(tmp_path, BEGIN, {"a": 12})
    found = rules(tmp_path, '[[rule]]\nname = "gap"\nmissing_numbers = true\n').rules
    gaps = Engine(found, is_jump=jumps(tmp_path))
    events = gaps.feed(send(1, "x") + send(2, "x", skip=10) + send(3, "x", skip=1))
    assert [each.reason for each in events] == ["missing: number 13"]


MANY = """
[[rule]]
name = "hot"
when = "temp > 30"
for = "20s"
clear = "temp < 25"
keep_firing_for = "30s"
[[rule]]
name = "fast"
when = "rate(temp) > 3 || temp - previous.temp > 8"
[[rule]]
name = "old"
when = "age(hum) > 45"
[[rule]]
name = "quiet"
silent = "40s"
keep_firing_for = "15s"
[[rule]]
name = "unusual"
silent = "learned"
[[rule]]
name = "no hum"
silent = "learned"
field = "hum"
[[rule]]
name = "gap"
missing_numbers = true
devices = "a*"
"""


def history(seed: int) -> list[bytes]:
    """A few devices for half an hour, with pauses, losses and heat."""
    chance, send, now, lines = random.Random(seed), Sender(), 0.0, []
    for _ in range(600):
        now += chance.choice([0, 0.4, 2, 5]) if chance.random() > 0.02 else 60
        device = chance.choice(["a1", "a2", "b"])
        text = f"temp={chance.uniform(10, 40):.1f}" + (" hum=1" if chance.random() < 0.3 else "")
        lines.append(send(now, text, device, skip=chance.random() < 0.01))
    return lines


@pytest.mark.parametrize("seed", range(5))
def test_how_the_log_is_cut_into_blocks_does_not_matter(tmp_path: Path, seed: int) -> None:
    lines = history(seed)
    whole = engine(tmp_path, MANY).feed(b"".join(lines))
    single, events = engine(tmp_path, MANY), []
    for each in lines:
        events += single.feed(each)
    assert told(events) == told(whole)
    assert {rule for rule, *_ in told(whole)} == {
        "hot", "fast", "old", "quiet", "unusual", "no hum", "gap",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_restart_at_any_record_changes_nothing(tmp_path: Path, seed: int) -> None:
    lines = history(seed)
    whole = engine(tmp_path, MANY).feed(b"".join(lines))
    events: list[Event] = []
    running = engine(tmp_path, MANY)
    for each in lines:
        events += running.feed(each)
        running = restarted(running)
    assert told(events) == told(whole)
    assert [each.message for each in events] == [each.message for each in whole]


WRITINGS = [
    ',"text":"temp={t} hum={h}"',
    ',"text":"{{\\"temp\\":{t},\\"hum\\":{h}}}"',
    ',"text":"{{\\"te\\\\u006dp\\":{t}}}"',
    ',"text":"house,te\\\\,x=1 temp={t},hum={h}i 1465839830100400200"',
    ',"data":{{"temp":{t},"hum":{h}}}',
    ',"data":{{"$map":[["temp",{t}],[1,2]]}}',
    ',"data":{{"door":{{"temp":{t}}}}}',
    ',"tag":"temp","text":"{t},{h}"',
    ',"text":"nothing of it"',
    ',"raw":"dGVtcD0z"',
]
ALL_KINDS = """
[[rule]]
name = "hot"
when = "temp > 30"
clear = "temp < 25 || hum > 45"
[[rule]]
name = "door"
when = "door.temp > 30 || rate(temp) > 5"
[[rule]]
name = "no hum"
silent = "5s"
field = "hum"
"""


@pytest.mark.parametrize("seed", range(5))
def test_no_line_is_passed_by_that_a_rule_needs(tmp_path: Path, seed: int) -> None:
    """What is passed by unparsed would have changed nothing."""
    chance, lines = random.Random(seed), []
    for number in range(1, 500):
        value = chance.choice(WRITINGS).format(t=chance.randint(10, 40), h=chance.randint(40, 50))
        stamp = record_time(BEGIN + timedelta(seconds=number)).decode()
        lines.append(f'{{"time":"{stamp}","device":"a","seq":{number}{value}}}\n'.encode())
    quick, thorough = engine(tmp_path, ALL_KINDS), engine(tmp_path, ALL_KINDS)
    plan = thorough.device("a").plan
    assert plan.touched is not None
    assert not all(map(plan.touched.search, lines))
    thorough.device("a").plan = replace(plan, touched=re.compile(b""))
    events = quick.feed(b"".join(lines))
    assert events == thorough.feed(b"".join(lines))
    assert {each.rule for each in events} == {"hot", "door", "no hum"}


def restarted(before: Engine, rules: Sequence[Rule] | None = None) -> Engine:
    """An engine that took over what another one wrote down, perhaps with other rules."""
    after = Engine(before.rules if rules is None else rules, before.clock)
    after.asked = before.asked
    watches = [
        (before.rules[place].name, device.name, load_watch(dump_watch(watch)))
        for device in before.devices.values()
        for place, watch in device.watches.items()
    ]
    lost = after.restore(
        [(device.name, device.dump()) for device in before.devices.values()], watches
    )
    assert lost == []
    return after


ASKS_BACK = """
[[rule]]
name = "gap"
missing_numbers = true
[[rule]]
name = "quiet"
silent = "10m"
[[rule]]
name = "no temp"
silent = "10m"
field = "temp"
[[rule]]
name = "fast"
when = "rate(temp) > 0.001"
"""


def test_a_rule_that_comes_back_knows_nothing_old(tmp_path: Path, send: Sender) -> None:
    """What came while it was away, nobody noted."""
    with_them, without = (rules(tmp_path, text).rules for text in (ASKS_BACK, HOT))
    before = Engine(with_them)
    before.feed(send(0, "temp=1"))
    away = restarted(before, without)
    away.feed(b"".join(send(60 * minute, "temp=20") for minute in range(1, 60)))
    back = restarted(away, with_them)
    assert back.feed(send(3600, "temp=20") + send(3660, "temp=20")) == []
    assert {rule for rule, *_ in told(back.feed(send(3661, "temp=30", skip=1)))} == {"gap", "fast"}
    assert len(back.advance(at(4300))) == 2


@pytest.mark.parametrize(
    ("changed", "fires"),
    [
        ('for = "60s"', 60),
        ('for = "2m"', 120),
        ("", 0),
        ('for = "10m"', 600),
        ('clear = "temp < 3"\nfor = "5m"', 300),
    ],
)
def test_another_for_counts_from_the_same_beginning(
    tmp_path: Path, send: Sender, changed: str, fires: float
) -> None:
    hot = engine(tmp_path, HOT + 'for = "10m"\n')
    hot.feed(send(0, "temp=31") + send(90, "x"))
    then = restarted(hot, rules(tmp_path, HOT + changed).rules)
    assert told(then.advance(at(1000))) == [("hot", "a", "fires", fires)]


def test_another_condition_has_yet_to_hold(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'for = "60s"\n')
    hot.feed(send(0, "temp=31"))
    then = restarted(hot, rules(tmp_path, HOT.replace("30", "40") + 'for = "60s"\n').rules)
    assert then.advance(at(100)) == []
    assert told(then.feed(send(100, "temp=41")) + then.advance(at(200))) == [
        ("hot", "a", "fires", 160)
    ]


def test_a_shorter_time_of_going_on(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT + 'keep_firing_for = "1d"\n')
    hot.feed(send(0, "temp=31") + send(10, "temp=1"))
    then = restarted(hot, rules(tmp_path, HOT + 'keep_firing_for = "60s"\n').rules)
    assert told(then.advance(at(100))) == [("hot", "a", "clears", 70)]


def test_a_rule_that_is_gone_leaves_its_watches(tmp_path: Path, send: Sender) -> None:
    hot = engine(tmp_path, HOT)
    hot.feed(send(1, "temp=31"))
    ((_, device, watch),) = hot.firing()
    other = Engine(rules(tmp_path, HOT.replace("hot", "warm")).rules)
    assert other.restore([(device.name, device.dump())], [("hot", "a", watch)]) == [
        ("hot", "a", watch)
    ]
