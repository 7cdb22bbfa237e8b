"""Calls of a session in every state and out of order, and what an idle session costs."""

import sys
from collections.abc import Callable

import pytest

from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.ingest1.msgpack_dialect import PackedDialect
from ingest.wire.ingest1.session import Ended, Session, State
from ingest.wire.ingest1.text_dialect import TextDialect
from tests.wire.ingest1.peer import (
    CREDENTIALS,
    Device,
    Listener,
    TextDevice,
    both,
    in_scram,
    logged_in,
)
from tests.wire.streams import TIME, bytewise

SHUTTING_DOWN = PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping")


def _slowly(*pieces: bytes, answers: int = 0) -> Session:
    listener = Listener(slow=True)
    listener.receive(*pieces)
    for _ in range(answers):
        listener.answer()
    return listener.session


_AUTH = TextDevice().auth("PLAIN", CREDENTIALS)
IN_STATE: dict[str, Callable[[], Session]] = {
    "OPENING": _slowly,
    "AUTH": lambda: _slowly(b"AUTH"),
    "CHECKING": lambda: _slowly(_AUTH),
    "RESPONSE": lambda: in_scram(TextDevice())[0].session,
    "CLAIMING": lambda: _slowly(_AUTH, answers=1),
    "READY": lambda: _slowly(_AUTH, answers=2),
    "ENDED": lambda: _slowly(b"\0"),
}

in_every_state = pytest.mark.parametrize("state", IN_STATE)


@in_every_state
def test_the_listener_may_end_it_in_every_state(state: str) -> None:
    session = IN_STATE[state]()
    assert session.state is State[state]
    events = session.fail(SHUTTING_DOWN)
    assert events == (() if state == "ENDED" else (Ended(SHUTTING_DOWN),))
    assert session.state is State.ENDED


@in_every_state
@pytest.mark.parametrize("end", [lambda session: session.fail(SHUTTING_DOWN), Session.abandon])
def test_nothing_happens_after_the_end(state: str, end: Callable[[Session], object]) -> None:
    session = IN_STATE[state]()
    end(session)
    assert session.receive(b"AUTH PLAIN\n", TIME) == ()
    assert session.end_of_stream(TIME) == ()
    assert session.token_checked(good=True) == ()
    assert session.fail(SHUTTING_DOWN) == ()
    assert session.state is State.ENDED


@in_every_state
def test_an_answer_that_nobody_asked_for(state: str) -> None:
    session = IN_STATE[state]()
    if state != "CHECKING":
        assert session.token_checked(good=True) == ()
        assert session.token_checked(good=False) == ()
    if state != "CLAIMING":
        with pytest.raises(AssertionError):
            session.granted(1, TIME)
    assert session.state is State[state]


@both
def test_a_session_is_let_in_once(device: Device) -> None:
    session = logged_in(device).session
    with pytest.raises(AssertionError):
        session.granted(100, TIME)
    assert session.next == 1


# What a listener of many devices pays for each.


def bytes_of(session: Session) -> int:
    """Add up what a session holds alone."""
    total = sys.getsizeof(session)
    shared = {"_rules", "state"}
    held = [getattr(session, name) for name in Session.__slots__ if name not in shared]
    dialect = session._dialect
    assert isinstance(dialect, TextDialect | PackedDialect)
    own = [getattr(dialect, name) for name in type(dialect).__slots__ if name != "_quick"]
    return total + sum(map(sys.getsizeof, held + own))


@both
def test_an_idle_device_costs_under_a_kilobyte(device: Device) -> None:
    listener = logged_in(device)
    listener.receive(*bytewise(device.frame("a") + device.frame("b" * 5000)))
    assert bytes_of(listener.session) < 1000
    listener, client = in_scram(device)
    listener.receive(device.response(client.get_client_final().encode()))
    assert bytes_of(listener.session) < 1000
