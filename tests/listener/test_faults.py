"""A fault of ours in one connection: it ends that connection, and nothing else.

Each row of the table breaks one thing that one connection does. The neighbour's acknowledgements,
the books, the device's next connection, the pressure and the stopping go on.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost

from ingest.devices.registry import RegistryError
from ingest.listener.connection import Connection
from ingest.listener.phases import Phase
from ingest.wire.conversation import Wait
from ingest.wire.errors import ErrorCode, PeerError
from tests.listener.parts import Listener, Transport, lose, plain


class Broken(Exception):  # noqa: N818 - it is no error of anything
    """What is injected."""


PEERS_FAULT = PeerError(ErrorCode.BAD_FRAME, "injected")


def fail(*_: object, **__: object) -> Any:
    raise Broken


@pytest.fixture
def parts() -> Iterator[Listener]:
    parts = Listener(handshake_timeout=10.0, idle_timeout=60.0)
    yield parts
    parts.close()


Step = Callable[[Listener, Connection, Transport], None]


def greet(parts: Listener, device: Connection, _: Transport) -> None:
    parts.hear(device, plain("victim") + b"ahead\n")
    if device.phase is Phase.CHECKING:
        parts.turns.run_one()


def send(parts: Listener, device: Connection, _: Transport) -> None:
    parts.hear(device, b"frame\n")


def commit(parts: Listener, *_: object) -> None:
    parts.journal.commit()


def close_side(_: Listener, device: Connection, __: Transport) -> None:
    device.readConnectionLost()


def reset(_: Listener, device: Connection, __: Transport) -> None:
    lose(device, ConnectionLost)


def close(_: Listener, device: Connection, __: Transport) -> None:
    lose(device)


def revoke(_: Listener, device: Connection, __: Transport) -> None:
    device.fail(PeerError(ErrorCode.REVOKED, "gone"))


def take_over(parts: Listener, *_: object) -> None:
    newer, _transport = parts.connect()
    parts.hear(newer, plain("victim"))


def wait(parts: Listener, *_: object) -> None:
    parts.pass_time(61.0)


def press(parts: Listener, *_: object) -> None:
    parts.fleet.pause()
    parts.fleet.resume()


LIFE: tuple[Step, ...] = (greet, send, commit, send)
ENDS: tuple[Step, ...] = (close_side, reset, close, revoke, take_over, wait, press)
CONVERSATION = ("receive", "checked", "granted", "acknowledge", "fail", "end_of_stream", "farewell")
OUTLET = ("send", "acknowledge", "finish")
FLEET = ("let_in", "ended", "took", "stamp", "queue_up", "identities", "now")
JOURNAL = ("claim", "withdraw", "append")
PLACES = [
    *(("_conversation", name) for name in CONVERSATION),
    *(("_outlet", name) for name in OUTLET),
    *(("_surroundings", name) for name in FLEET),
    *(("_journal", name) for name in JOURNAL),
    *(("_transport", name) for name in ("pauseProducing", "resumeProducing", "loseConnection")),
    ("delivery", "received_bytes"),
]


class Breaking:
    """Stands for a part of a connection; all it is asked works but for one name."""

    def __init__(self, part: object, name: str, error: Exception | None = None) -> None:
        self.__dict__.update(part=part, name=name, error=error or Broken())

    def __getattr__(self, name: str) -> Any:
        return self.fail if name == self.name else getattr(self.part, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name == self.name:
            raise self.error
        setattr(self.part, name, value)

    def fail(self, *_: object, **__: object) -> Any:
        raise self.error


def break_(device: Connection, part: str, name: str, error: Exception | None = None) -> None:
    whole = getattr(device, part)
    if whole is not None:
        setattr(device, part, Breaking(whole, name, error))


@pytest.mark.parametrize("end", ENDS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("begin", range(len(LIFE) + 1))
@pytest.mark.parametrize(("part", "name"), PLACES)
def test_a_fault_is_one_connections_own(
    parts: Listener, part: str, name: str, begin: int, end: Step
) -> None:
    check_one(parts, part, name, begin, end, Broken())


@pytest.mark.parametrize("end", [close_side, revoke])
@pytest.mark.parametrize("begin", [0, 2, 4])
@pytest.mark.parametrize("name", CONVERSATION)
def test_a_conversation_may_blame_the_peer_at_any_time(
    parts: Listener, name: str, begin: int, end: Step
) -> None:
    """Also where it has ended already, or is told to end."""
    check_one(parts, "_conversation", name, begin, end, PEERS_FAULT)


def check_one(
    parts: Listener, part: str, name: str, begin: int, end: Step, error: Exception
) -> None:
    parts.add("victim")
    neighbour, heard = parts.log_in("neighbour")
    victim, transport = parts.connect()
    for step in LIFE[:begin]:
        step(parts, victim, transport)
    break_(victim, part, name, error)
    for step in (*LIFE[begin:], end):
        if victim.phase is not Phase.LOST:
            step(parts, victim, transport)
    if transport.disconnected or transport.disconnecting:
        lose(victim)
    commit(parts)
    check_neighbour(parts, neighbour, heard)
    check_books(parts)
    check_next(parts)
    check_stop(parts, neighbour)


CALLED = (
    *("take_turn", "granted", "durable", "fenced", "refused", "fail", "update_reading", "abort"),
    "acknowledgement",
)
"""What others call of a connection: the fleet, the journal, its outlet."""


@pytest.mark.parametrize("end", [revoke, wait, press])
@pytest.mark.parametrize("name", CALLED)
def test_a_connection_that_raises_at_those_who_call_it_is_cut(
    parts: Listener, name: str, end: Step
) -> None:
    """Its turns are guarded, and so no call of it ever raises; should one, that is the same."""
    parts.add("victim")
    victim, transport = parts.connect()  # first, so that the others are called after it
    neighbour, heard = parts.log_in("neighbour")
    victim.__dict__[name] = fail
    for step in (greet, send, commit, press, end):
        with suppress(Broken):
            step(parts, victim, transport)
    third, answered = parts.log_in("third")
    assert third.phase is Phase.OPEN
    assert not heard.is_paused and not answered.is_paused
    check_neighbour(parts, neighbour, heard)
    parts.fleet.stop()
    assert answered.read().startswith(b"ERR shutting-down ")


IDENTITIES = (
    "last_revocation",
    "context",
    "check_attempt",
    "check_token",
    "check_claim",
    "format_of",
)


@pytest.mark.parametrize("error", [Broken, RegistryError, OSError, AssertionError])
@pytest.mark.parametrize("name", IDENTITIES)
def test_a_fault_of_the_registry_is_that_of_who_asks(
    parts: Listener, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception]
) -> None:
    def fail_once(*_: object, **__: object) -> Any:
        monkeypatch.undo()
        raise error("injected")

    parts.add("victim")
    neighbour, heard = parts.log_in("neighbour")
    monkeypatch.setattr(parts.fleet.identities, name, fail_once)
    victim, transport = parts.connect()
    if victim.phase is not Phase.LOST:
        greet(parts, victim, transport)
    assert transport.disconnected or transport.disconnecting or transport.is_closed
    lose(victim)
    check_neighbour(parts, neighbour, heard)
    check_books(parts)
    check_next(parts)
    check_stop(parts, neighbour)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("_transport", "abortConnection"),
        ("_journal", "withdraw"),
        ("_journal", "release"),
        ("_surroundings", "left"),
    ],
)
@pytest.mark.parametrize("begin", range(len(LIFE)))
def test_a_fault_while_one_is_cut_ends_nobody_elses_turn(
    parts: Listener, part: str, name: str, begin: int
) -> None:
    parts.add("victim", "third")
    neighbour, heard = parts.log_in("neighbour")
    victim, transport = parts.connect()
    for step in LIFE[:begin]:
        step(parts, victim, transport)
    break_(victim, "_conversation", "receive")
    break_(victim, part, name)
    third, answered = parts.connect()
    victim.dataReceived(b"x\n")
    parts.hear(third, plain("third"))  # its turn comes after that of the victim
    parts.turns.run_one()
    assert victim.phase is Phase.LOST
    assert answered.read().startswith(b"OK device=third ")
    lose(victim)
    commit(parts)
    check_neighbour(parts, neighbour, heard)
    check_stop(parts, neighbour)


def test_a_handshake_that_is_gone_keeps_no_lease(parts: Listener) -> None:
    parts.add("victim")
    neighbour, heard = parts.log_in("neighbour")
    victim, transport = parts.connect()
    parts.hear(victim, plain("victim"))
    victim.handshake = None
    parts.turns.run_one()
    assert victim.phase is Phase.LOST
    assert transport.disconnected
    lose(victim)
    check_neighbour(parts, neighbour, heard)
    check_next(parts)
    check_stop(parts, neighbour)


def test_a_countdown_that_ends_after_the_conversation_does_nothing(parts: Listener) -> None:
    victim, transport = parts.log_in("victim")
    send(parts, victim, transport)  # not durable yet: it will be draining first
    revoke(parts, victim, transport)
    for phase in (Phase.DRAINING, Phase.LINGERING, Phase.LOST):
        assert victim.phase is phase
        victim._overdue(Wait(1.0))
        assert not parts.clock.getDelayedCalls()
        if phase is Phase.DRAINING:
            parts.journal.commit()
        elif phase is Phase.LINGERING:
            lose(victim)


def test_a_look_up_for_the_books_of_refusals_is_not_the_next_ones(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour, heard = parts.log_in("neighbour")
    monkeypatch.setattr(parts.fleet.refusals, "_registered", fail)
    told = 0
    for number in range(1001):
        stranger, transport = parts.connect()
        parts.hear(stranger, plain(f"stranger-{number}"))
        stranger.fail(PeerError(ErrorCode.AUTH_TIMEOUT, "too late"))
        told += transport.read().startswith(b"ERR ")
        lose(stranger)
    assert told == 1000
    check_neighbour(parts, neighbour, heard)
    check_stop(parts, neighbour)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_fault_at_a_look_at_the_deadlines_is_one_connections_own(
    parts: Listener, is_open: bool
) -> None:
    """Those that it comes to later have been idle, or slow to say who they are, for too long."""
    victim, transport = parts.log_in("victim")
    if not is_open:
        send(parts, victim, transport)
        revoke(parts, victim, transport)  # it waits for the disk, and the clock runs
    others = [parts.log_in(f"n{number}") if is_open else parts.connect() for number in range(20)]
    transport.getPeer = fail  # type: ignore[method-assign]
    parts.pass_time(61.0)
    parts.pass_time(0.0)
    assert victim.phase is Phase.LOST
    assert transport.disconnected
    told = b"ERR idle-timeout " if is_open else b"ERR auth-timeout "
    assert all(heard.read().startswith(told) for _, heard in others)


def check_neighbour(parts: Listener, neighbour: Connection, heard: Transport) -> None:
    if neighbour.phase is not Phase.OPEN:  # it was idle for too long, as any device
        return
    before = len(parts.journal.lines)
    parts.hear(neighbour, b"x\n")
    parts.journal.commit()
    assert heard.read().startswith(b"ACK ")
    assert len(parts.journal.lines) == before + 1


def check_books(parts: Listener) -> None:
    parts.fleet.check_deadlines(0)
    accounts = parts.fleet.accounts().values()
    assert sum(account.waiting_frames for account in accounts) == 0
    assert sum(account.written_frames for account in accounts) == len(parts.journal.lines)


def check_next(parts: Listener) -> None:
    """The device gets in again, and its numbers go on."""
    stored = [json.loads(line)["seq"] for line in parts.journal.lines if b"victim" in line]
    assert stored == list(range(1, len(stored) + 1))
    again, transport = parts.connect()
    parts.hear(again, plain("victim"))
    if again.phase is Phase.CHECKING:
        parts.turns.run_one()
    parts.journal.commit()
    assert transport.read().startswith(b"OK device=victim next=%d " % (len(stored) + 1))


def check_stop(parts: Listener, neighbour: Connection) -> None:
    stopped: list[None] = []
    parts.fleet.stop().addCallback(stopped.append)
    parts.journal.commit()
    for member in list(parts.fleet.members()):
        assert isinstance(member, Connection)
        lose(member)
    assert stopped == [None]
