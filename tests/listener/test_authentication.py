"""Tokens are checked off the reactor's thread, and guessing is kept slow."""

import threading

from twisted.internet.defer import Deferred

from ingest.listener.authentication import FailureLimit
from ingest.wire.sasl import Credentials
from tests.listener.parts import TOKEN, Parts


def ask(parts: Parts, device: str, token: str = TOKEN) -> list[bool]:
    """Ask whether a token is good; the answer is in the list once there is one."""
    answers: list[bool] = []
    deferred: Deferred[bool] = parts.authenticator.check(Credentials(device, token))
    deferred.addCallback(answers.append)
    return answers


def test_a_good_token_is_derived_once(parts: Parts) -> None:
    parts.add("a")
    answers = ask(parts, "a")
    assert answers == []
    parts.turns.run_one()
    assert answers == [True]
    assert ask(parts, "a") == [True]


def test_bad_ones_go_the_long_way_each_time(parts: Parts) -> None:
    parts.add("a", "disabled")
    parts.registry.set_enabled("disabled", False)
    for device, token in (("a", "wrong"), ("nobody", TOKEN), ("disabled", TOKEN)) * 2:
        answers = ask(parts, device, token)
        assert answers == []
        parts.turns.run_one()
        assert answers == [False]


def test_a_wrong_token_after_a_good_one(parts: Parts) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    answers = ask(parts, "a", "wrong")
    parts.turns.run_one()
    assert answers == [False]


def test_what_is_remembered_ends_with_the_keys(parts: Parts) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.registry.set_token("a", "another")
    answers = ask(parts, "a")
    parts.turns.run_one()
    assert answers == [False]


def test_a_disabled_device_is_not_remembered(parts: Parts) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.registry.set_enabled("a", False)
    answers = ask(parts, "a")
    parts.turns.run_one()
    assert answers == [False]


def test_a_token_that_no_device_may_have(parts: Parts) -> None:
    parts.add("a")
    answers = ask(parts, "a", "\x00")
    parts.turns.run_one()
    assert answers == [False]


def test_the_threads_end() -> None:
    parts = Parts()
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.close()
    assert not [thread for thread in threading.enumerate() if "ingest-tokens" in thread.name]


def test_an_unknown_device_keeps_its_salt(parts: Parts) -> None:
    first, second = parts.authenticator.keys("nobody"), parts.authenticator.keys("nobody")
    assert first == second
    assert first.salt != parts.authenticator.keys("somebody").salt


class TestFailureLimit:
    def test_a_burst_is_forgiven(self) -> None:
        limit = FailureLimit()
        for _ in range(FailureLimit.BURST - 1):
            limit.failed("a", 0)
        assert not limit.is_exceeded("a", 0)
        limit.failed("a", 0)
        assert limit.is_exceeded("a", 0)
        assert not limit.is_exceeded("b", 0)

    def test_time_forgives(self) -> None:
        limit = FailureLimit()
        for _ in range(FailureLimit.BURST + 10):
            limit.failed("a", 100)
        enough = 11 / FailureLimit.PER_SECOND
        assert limit.is_exceeded("a", 100 + enough - 0.3)
        assert not limit.is_exceeded("a", 100 + enough + 0.1)
        assert not limit.is_exceeded("a", 1e9)

    def test_forgiven_time_is_not_saved_up(self) -> None:
        limit = FailureLimit()
        limit.failed("a", 0)
        for _ in range(FailureLimit.BURST):
            limit.failed("a", 1e6)
        assert limit.is_exceeded("a", 1e6)

    def test_a_steady_rate_below_the_limit_is_fine(self) -> None:
        limit = FailureLimit()
        for attempt in range(10_000):
            limit.failed("a", attempt / FailureLimit.PER_SECOND)
            assert not limit.is_exceeded("a", attempt / FailureLimit.PER_SECOND)

    def test_memory_is_bounded(self) -> None:
        limit = FailureLimit()
        for _ in range(FailureLimit.BURST):
            limit.failed("first", 0)
        for number in range(20_000):
            limit.failed(f"{number}", 0)
        assert not limit.is_exceeded("first", 0)
        assert len(limit._failures) == 10_000
