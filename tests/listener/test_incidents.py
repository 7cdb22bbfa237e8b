"""What goes wrong with connections, as the operator reads it."""

from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from ingest.listener.incidents import Incidents


@pytest.fixture
def said() -> Any:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_the_first_is_said_at_once_and_the_others_in_a_summary(said: list[str]) -> None:
    incidents = Incidents()
    for _ in range(5):
        incidents.note("auth-failed", "sensor-9", "192.0.2.7", "wrong token")
    incidents.note("auth-failed", "sensor-8", "192.0.2.8", "wrong token")
    assert said == ["auth-failed: 'sensor-9' at 192.0.2.7: wrong token"]
    incidents.summarise()
    assert said[1:] == [
        "auth-failed: 5 more in the last minute, of 2 devices and addresses,"
        " most of them: 'sensor-9' at 192.0.2.7 (4), 'sensor-8' at 192.0.2.8 (1)"
    ]
    assert incidents.counts == {"auth-failed": 6}


def test_after_a_quiet_minute_the_next_is_the_first_again(said: list[str]) -> None:
    incidents = Incidents()
    incidents.note("busy", "", "192.0.2.7", "too many")
    incidents.summarise()
    incidents.note("busy", "", "192.0.2.7", "too many")
    assert said == ["busy: no name yet at 192.0.2.7: too many"] * 2


def test_each_kind_is_said_apart(said: list[str]) -> None:
    incidents = Incidents()
    incidents.note("busy", "a", "192.0.2.7", "x")
    incidents.note("revoked", "a", "192.0.2.7", "y")
    assert len(said) == 2


def test_what_a_peer_claims_steers_no_terminal(said: list[str]) -> None:
    Incidents().note("auth-failed", "\x1b[2J\u202e\n{host}" + "x" * 1000, "192.0.2.7", "no")
    (line,) = said
    assert line.isprintable() and len(line) < 250 and "{host}" in line


def test_a_claimed_name_is_kept_in_part() -> None:
    incidents = Incidents()
    for _ in range(2):
        incidents.note("auth-failed", "x" * 4000, "192.0.2.7", "no")
    assert list(incidents._unsaid["auth-failed"]) == [("x" * 128, "192.0.2.7")]


def test_memory_is_bounded() -> None:
    incidents = Incidents()
    for number in range(5000):
        incidents.note("auth-failed", f"guess-{number}", "192.0.2.7", "no")
    assert len(incidents._unsaid["auth-failed"]) <= 1001
    assert incidents.counts["auth-failed"] == 5000


def test_the_newest_of_each_device_is_remembered_and_not_too_many() -> None:
    moments = iter(range(10_000))
    incidents = Incidents(clock=lambda: next(moments))
    incidents.note("auth-failed", "a", "192.0.2.1", "no")
    incidents.note("auth-failed", "", "192.0.2.1", "no")
    incidents.note("bad-frame", "b" * 500, "192.0.2.2", "no")
    incidents.note("revoked", "a", "192.0.2.1", "it was disabled")
    newest = incidents.newest()
    assert [(each.device, each.kind, each.at) for each in newest] == [
        ("b" * 128, "bad-frame", 2),
        ("a", "revoked", 3),
    ]
    for number in range(2000):
        incidents.note("auth-failed", f"x{number}", "192.0.2.9", "no")
    assert len(incidents.newest()) == 1000
