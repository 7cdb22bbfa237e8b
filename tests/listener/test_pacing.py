"""Rests between reads: when, and for how long."""

import pytest

from ingest.listener.pacing import RestBetweenReads


class Thread:
    """A thread whose time passes as told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.worked = 5.0
        self.rests: list[float] = []
        self._coalescer = RestBetweenReads(lambda: self.now, lambda: self.worked, self._rest)

    def _rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds

    def read(self, count: int, size: int, *, seconds: float, work: float) -> None:
        """Read `count` times; each takes so many seconds, in `work` of which it has a core."""
        for _ in range(count):
            self.now += seconds
            self.worked += work
            self._coalescer.after_read(size)


@pytest.fixture
def thread() -> Thread:
    return Thread()


def test_a_busy_thread_rests_half_as_long_as_it_read(thread: Thread) -> None:
    thread.read(255, 50, seconds=20e-6, work=20e-6)
    assert thread.rests == []
    thread.read(1, 50, seconds=20e-6, work=20e-6)
    assert thread.rests == [pytest.approx(256 * 10e-6)]
    thread.read(512, 50, seconds=20e-6, work=15e-6)
    assert thread.rests == [pytest.approx(256 * 10e-6)] * 3, "its rest counts for no work"


def test_a_rest_is_short_however_slow_the_machine(thread: Thread) -> None:
    thread.read(256, 50, seconds=1e-3, work=1e-3)
    assert thread.rests == [0.02]


def test_a_thread_that_waits_for_frames_does_not_rest(thread: Thread) -> None:
    thread.read(2560, 50, seconds=100e-6, work=30e-6)
    assert thread.rests == []


def test_full_reads_are_not_waited_for(thread: Thread) -> None:
    thread.read(2560, 65536, seconds=1e-3, work=1e-3)
    assert thread.rests == []


def test_small_reads_beside_a_few_full_ones_are_not_waited_for(thread: Thread) -> None:
    for _ in range(64):
        thread.read(36, 50, seconds=30e-6, work=30e-6)
        thread.read(4, 65536, seconds=1e-3, work=1e-3)
    assert thread.rests == []
