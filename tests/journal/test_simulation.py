"""Histories by chance: the journal's promises hold in each."""

import pytest

from ingest.journal.active import ActiveFile
from ingest.journal.events import DiskFailing, FileMoved, RotationFailing, WriteCompleted
from tests.journal.simulation import run


def test_promises_hold() -> None:
    histories = [run(seed) for seed in range(100)]
    assert sum(history.kills for history in histories) > 100
    assert sum(sum(history.acknowledged.values()) for history in histories) > 1000
    seen = {type(event) for history in histories for event in history.events}
    assert seen >= {DiskFailing, FileMoved, RotationFailing, WriteCompleted}


def test_a_history_is_the_same_each_time() -> None:
    first, second = run(7), run(7)
    assert list(map(type, first.events)) == list(map(type, second.events))
    assert (first.kills, first.acknowledged) == (second.kills, second.acknowledged)


def test_a_journal_that_writes_lines_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def resume(self: ActiveFile, *, sync: bool) -> None:
        self.append(self._unsynced, sync=sync)

    monkeypatch.setattr(ActiveFile, "resume", resume)
    with pytest.raises(AssertionError) as raised:
        for seed in range(100):
            run(seed)
    assert raised.value.__notes__[0].startswith("seed ")
