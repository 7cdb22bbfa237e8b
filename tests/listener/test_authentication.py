"""Tokens are checked off the reactor's thread, and guessing is kept slow."""

import threading

from twisted.internet.defer import Deferred

from ingest.wire.sasl import Credentials
from tests.listener.parts import TOKEN, Listener


def ask(parts: Listener, device: str, token: str = TOKEN) -> list[bool]:
    """Ask whether a token is good; the answer is in the list once there is one."""
    answers: list[bool] = []
    deferred: Deferred[bool] = parts.authenticator.check(Credentials(device, token))
    deferred.addCallback(answers.append)
    return answers


def test_a_good_token_is_derived_once(parts: Listener) -> None:
    parts.add("a")
    answers = ask(parts, "a")
    assert answers == []
    parts.turns.run_one()
    assert answers == [True]
    assert ask(parts, "a") == [True]


def test_bad_ones_go_the_long_way_each_time(parts: Listener) -> None:
    parts.add("a", "disabled")
    parts.registry.set_enabled("disabled", False)
    for device, token in (("a", "wrong"), ("nobody", TOKEN), ("disabled", TOKEN)) * 2:
        answers = ask(parts, device, token)
        assert answers == []
        parts.turns.run_one()
        assert answers == [False]


def test_a_wrong_token_after_a_good_one(parts: Listener) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    answers = ask(parts, "a", "wrong")
    parts.turns.run_one()
    assert answers == [False]


def test_what_is_remembered_ends_with_the_keys(parts: Listener) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.registry.set_token("a", "another")
    answers = ask(parts, "a")
    parts.turns.run_one()
    assert answers == [False]


def test_a_disabled_device_is_not_remembered(parts: Listener) -> None:
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.registry.set_enabled("a", False)
    answers = ask(parts, "a")
    parts.turns.run_one()
    assert answers == [False]


def test_a_token_that_no_device_may_have(parts: Listener) -> None:
    parts.add("a")
    answers = ask(parts, "a", "\x00")
    parts.turns.run_one()
    assert answers == [False]


def test_the_threads_end() -> None:
    parts = Listener()
    parts.add("a")
    ask(parts, "a")
    parts.turns.run_one()
    parts.close()
    assert not [thread for thread in threading.enumerate() if "ingest-tokens" in thread.name]


def test_an_unknown_device_keeps_its_salt(parts: Listener) -> None:
    first, second = parts.authenticator.keys("nobody"), parts.authenticator.keys("nobody")
    assert first == second
    assert first.salt != parts.authenticator.keys("somebody").salt
