"""Limits of failed attempts, and of connections."""

from twisted.logger import capturedLogs, formatEvent

from ingest.listener.admission import Admission, FailureLimit, Limits

BURST, PER_SECOND = 300, 5.0


def limited() -> FailureLimit:
    return FailureLimit(BURST, PER_SECOND)


class TestFailureLimit:
    def test_a_burst_is_forgiven(self) -> None:
        limit = limited()
        for _ in range(BURST - 1):
            limit.failed("a", 0)
        assert not limit.is_exceeded("a", 0)
        limit.failed("a", 0)
        assert limit.is_exceeded("a", 0)
        assert not limit.is_exceeded("b", 0)

    def test_time_forgives(self) -> None:
        limit = limited()
        for _ in range(BURST + 10):
            limit.failed("a", 100)
        enough = 11 / PER_SECOND
        assert limit.is_exceeded("a", 100 + enough - 0.3)
        assert not limit.is_exceeded("a", 100 + enough + 0.1)
        assert not limit.is_exceeded("a", 1e9)

    def test_forgiven_time_is_not_saved_up(self) -> None:
        limit = limited()
        limit.failed("a", 0)
        for _ in range(BURST):
            limit.failed("a", 1e6)
        assert limit.is_exceeded("a", 1e6)

    def test_a_steady_rate_below_the_limit_is_fine(self) -> None:
        limit = limited()
        for attempt in range(10_000):
            limit.failed("a", attempt / PER_SECOND)
            assert not limit.is_exceeded("a", attempt / PER_SECOND)

    def test_memory_is_bounded(self) -> None:
        limit = limited()
        for _ in range(BURST):
            limit.failed("first", 0)
        for number in range(20_000):
            limit.failed(f"{number}", 0)
        assert not limit.is_exceeded("first", 0)
        assert len(limit._failures) == 10_000


class _NoPort:
    def pauseProducing(self) -> None:
        self.accepts = False

    def resumeProducing(self) -> None:
        self.accepts = True


class TestLimitOfConnections:
    def test_it_is_said_once_then_in_summaries(self) -> None:
        admission, port = Admission(Limits(max_connections=2, refusals=1)), _NoPort()
        admission.ports = [port]
        with capturedLogs() as events:
            for _ in range(3):
                admission.count(3)
                assert not port.accepts
                admission.count(1)
                assert port.accepts
            admission.summarise()
            admission.summarise()
            admission.count(3)
        assert [formatEvent(event) for event in events] == [
            "3 connections: no more are accepted for now",
            "1 connection: more are accepted again",
            "the limit of connections was reached 2 more times in the last minute;"
            " more are accepted now",
            "3 connections: no more are accepted for now",
        ]
