"""Whoever the journal calls may fail: that hurts nobody else."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from ingest.journal import file as file_module
from ingest.journal import keeper as keeper_module
from ingest.journal.archive import Archivist
from ingest.journal.events import (
    ArchiveFailing,
    Event,
    FlowControlFailed,
    HolderFailed,
    MeasureFailed,
    PositionsFailing,
    PositionsRecovered,
)
from ingest.journal.measures import Measures
from ingest.journal.numbers import Numbers
from ingest.journal.positions import Positions, read_positions
from tests.support import journals
from tests.support.journals import (
    Driven,
    DrivenFile,
    FailingHolder,
    FaultError,
    Flow,
    Holder,
    Report,
    YieldingHolder,
    append,
)
from tests.support.waiting import wait_for


class Neighbours:
    """Two devices beside the one that fails, the one told before it and the other after it."""

    def __init__(self, driven: Driven, holder: Holder) -> None:
        self._driven = driven
        self._holders = [Holder(), holder, Holder()]
        for name, each in zip(("before", "bad", "after"), self._holders, strict=True):
            driven.journal.claim(name, each)
        driven.settle(lambda: all(each.told for each in self._holders))

    def push(self) -> None:
        """Bring a record of each device that is still there, in one commit, and wait for it."""
        holders = [each for each in self._holders if each.lease.holder is each]
        for each in holders:
            append(self._driven.journal, each.lease)
        self._driven.settle(lambda: all(each.lease.durable == each.lease.last for each in holders))

    def check(self, records: int) -> None:
        """Check that the neighbours were told of all their records, and that the books balance."""
        for each in (self._holders[0], self._holders[2]):
            assert each.told[-1] == ("durable", records)
            assert each.lease.durable == each.lease.last == records
            assert ("abort", 0) not in each.told
        lines = self._driven.lines()
        written = {each.lease.device: each.lease.written for each in self._holders}
        for device, size in written.items():
            mine = [line for line in lines if b'"device":"%b"' % device.encode() in line]
            assert sum(map(len, mine)) == size
        assert self._driven.journal.backlog == 0
        assert self._driven.journal.health is None


def _failures(driven: Driven) -> list[tuple[str, str]]:
    return [(each.device, each.call) for each in driven.events() if isinstance(each, HolderFailed)]


@pytest.mark.parametrize(
    ("failing", "told", "failures"),
    [
        (("durable",), ["granted", "durable", "abort"], ["durable"]),
        (("granted",), ["granted", "abort"], ["granted"]),
        (("durable", "abort"), ["granted", "durable", "abort"], ["durable", "abort"]),
        (("granted", "abort"), ["granted", "abort"], ["granted", "abort"]),
    ],
)
def test_a_holder_that_fails_is_cut_and_reported_once(
    failing: tuple[str, ...], told: list[str], failures: list[str], driven: Driven
) -> None:
    bad = FailingHolder(*failing)
    neighbours = Neighbours(driven, bad)
    for _ in range(3):
        neighbours.push()
    neighbours.check(3)
    assert [call for call, _ in bad.told] == told
    assert _failures(driven) == [("bad", call) for call in failures]
    newer = Holder()
    driven.journal.claim("bad", newer)
    driven.settle(lambda: bool(newer.told))
    assert newer.told == [("granted", bad.lease.last)]


@pytest.mark.parametrize("failing", [("fenced",), ("fenced", "abort")])
def test_a_claim_does_not_wait_for_a_holder_that_fails(
    failing: tuple[str, ...], driven: Driven
) -> None:
    bad, newer = FailingHolder(*failing), Holder()
    neighbours = Neighbours(driven, bad)
    append(driven.journal, bad.lease, 5)
    driven.journal.claim("bad", newer)
    driven.settle(lambda: bool(newer.told))
    neighbours.push()
    neighbours.check(1)
    assert newer.told == [("granted", 5)]
    assert _failures(driven) == [("bad", call) for call in failing]
    assert ("abort", 0) in bad.told


def test_a_waiting_claim_that_fails_leaves_the_newest_its_turn(driven: Driven) -> None:
    older, bad, newest = Holder(), FailingHolder("fenced"), Holder()
    for holder in (older, bad, newest):
        driven.journal.claim("a", holder)
    driven.settle(lambda: len(bad.told) == 2)
    assert bad.told == [("fenced", 0), ("abort", 0)]
    driven.journal.release(older.lease)
    assert newest.told == [("granted", 0)]
    assert _failures(driven) == [("a", "fenced")]


def test_a_claim_that_fails_when_its_turn_comes(driven: Driven) -> None:
    """The one that gave its lease back hears nothing of it."""
    older, bad, newer = YieldingHolder(driven.journal), FailingHolder("granted"), Holder()
    driven.journal.claim("a", older)
    driven.journal.claim("a", bad)
    driven.journal.claim("a", newer)
    driven.settle(lambda: bool(newer.told))
    assert bad.told == [("granted", 0), ("abort", 0)]
    assert newer.told == [("granted", 0)]
    assert older.told == [("granted", 0), ("fenced", 0)]


def test_a_failed_holder_is_told_where_it_failed(driven: Driven) -> None:
    neighbours = Neighbours(driven, FailingHolder("durable"))
    neighbours.push()
    (line,) = map(str, driven.events())
    assert line.startswith("bad: its connection is cut, durable() failed: FaultError('durable') at")
    assert "\n" not in line
    assert Path(journals.__file__).name in line


class FailingFlow(Flow):
    """Raises an exception when it is told something."""

    def __init__(self, *failing: str) -> None:
        super().__init__()
        self._failing = failing

    def pause(self) -> None:
        super().pause()
        self._fail("pause")

    def resume(self) -> None:
        super().resume()
        self._fail("resume")

    def _fail(self, call: str) -> None:
        if call in self._failing:
            raise FaultError(call)


@pytest.mark.parametrize("failing", ["pause", "resume"])
def test_flow_control_that_fails(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "BACKLOG", 1000)
    driven = DrivenFile(tmp_path, flow=FailingFlow(failing))
    neighbours = Neighbours(driven, Holder())
    for _ in range(2):
        for each in neighbours._holders:
            append(driven.journal, each.lease, 20)
        driven.settle(lambda: driven.journal.backlog == 0)
    neighbours.check(40)
    assert (driven.flow.paused, driven.flow.resumed) == (2, 2)
    driven.close()
    events = [each for each in driven.events() if isinstance(each, FlowControlFailed)]
    assert [each.call for each in events] == [failing, failing]


def _moved(driven: DrivenFile) -> None:
    log = driven.layout.log_folder / "ingest.log"
    log.rename(log.with_name("ingest.log.1"))


def _rotated(driven: DrivenFile) -> None:
    done: list[Path | None] = []
    driven.journal.rotate(done.append)
    driven.settle(lambda: bool(done))


def _failed(driven: DrivenFile) -> None:
    log = driven.layout.log_folder / "ingest.log"
    log.rename(log.with_name("ingest.log.1"))
    log.mkdir()
    holder = Holder()
    driven.journal.claim("other", holder)
    append(driven.journal, holder.lease)
    driven.settle(lambda: driven.journal.health is not None)
    log.rmdir()
    driven.settle(lambda: driven.journal.health is None)


@pytest.mark.parametrize("happens", [_moved, _rotated, _failed])
def test_a_reporter_that_fails(
    happens: Callable[[DrivenFile], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class FailingReport(Report):
        def __call__(self, event: object) -> None:
            raise FaultError(str(event))

    driven = DrivenFile(tmp_path, report=FailingReport())
    neighbours = Neighbours(driven, FailingHolder("durable"))
    neighbours.push()
    happens(driven)
    neighbours.push()
    driven.settle(lambda: driven.journal.backlog == 0)
    for each in (neighbours._holders[0], neighbours._holders[2]):
        assert each.told[-1] == ("durable", 2)
    assert driven.flow.paused == driven.flow.resumed
    driven.close()
    assert "FaultError" in capsys.readouterr().err


@pytest.mark.parametrize("measure", [field.name for field in fields(Measures)])
def test_a_measure_that_can_not_be_noted(measure: str, tmp_path: Path) -> None:
    def fail(value: float) -> None:
        raise FaultError(value)

    driven = DrivenFile(tmp_path, measures=Measures(**{measure: fail}))
    neighbours = Neighbours(driven, Holder())
    for _ in range(3):
        neighbours.push()
    neighbours.check(3)
    driven.close()
    assert [type(each) for each in driven.events()] == [MeasureFailed]


@pytest.mark.parametrize(
    ("part", "name", "told"),
    [
        (Positions, "is_as_left", [PositionsFailing, PositionsRecovered]),
        (Positions, "save", [PositionsFailing, PositionsRecovered]),
        (Numbers, "take", [PositionsFailing, PositionsRecovered]),
        (Numbers, "settle", [PositionsFailing, PositionsRecovered]),
        (Archivist, "tidy", [ArchiveFailing]),
    ],
)
def test_a_thread_goes_on_after_a_fault_of_ours(
    part: type,
    name: str,
    told: list[type[Event]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper_module, "_PERIOD", 0.01)
    monkeypatch.setattr(keeper_module, "_LONGEST_PERIOD", 0.01)
    driven = DrivenFile(tmp_path)
    neighbours = Neighbours(driven, Holder())
    works, calls = getattr(part, name), list[object]()

    def fail_twice(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) <= 2:
            raise FaultError("once more")
        return works(*arguments)

    monkeypatch.setattr(part, name, fail_twice)
    neighbours.push()

    def is_well() -> bool:
        driven.journal.archivist.wake()
        return len(calls) > 2

    wait_for(is_well)
    driven.settle(lambda: len(driven.events()) == len(told))
    neighbours.push()
    neighbours.check(2)
    driven.close()
    assert [type(each) for each in driven.events()] == told
    assert read_positions(driven.layout.positions) == {"before": 2, "bad": 2, "after": 2}


def test_a_journal_closes_whoever_fails(tmp_path: Path) -> None:
    driven = DrivenFile(tmp_path, flow=FailingFlow("pause", "resume"))
    bad = FailingHolder("durable", "abort")
    driven.journal.claim("a", bad)
    append(driven.journal, bad.lease, 100)
    driven.close()
    assert len(driven.lines()) == 100
