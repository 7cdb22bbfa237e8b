"""Calls of a session in every state and out of order, and what an idle session costs."""

import sys
from collections.abc import Callable

import pytest

from ingest.wire.conversation import Ended, Grant
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.ingest1.session import Session, State
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
    "OPEN": lambda: _slowly(_AUTH, answers=2),
    "ENDED": lambda: _slowly(b"\0"),
}

in_every_state = pytest.mark.parametrize("state", IN_STATE)


@in_every_state
def test_the_listener_may_end_it_in_every_state(state: str) -> None:
    session = IN_STATE[state]()
    assert session.state is State[state]
    if state == "ENDED":
        with pytest.raises(IllegalStep):
            session.fail(SHUTTING_DOWN)
    else:
        assert session.fail(SHUTTING_DOWN) == (Ended(SHUTTING_DOWN),)
    assert session.state is State.ENDED


_DEAF = {"CHECKING", "CLAIMING", "ENDED"}
ILLEGAL: dict[str, tuple[Callable[[Session], object], set[str]]] = {
    "receive": (lambda session: session.receive(b"AUTH PLAIN\n"), _DEAF),
    "end_of_stream": (Session.end_of_stream, _DEAF),
    "checked": (lambda session: session.checked(good=True), set(IN_STATE) - {"CHECKING"}),
    "not checked": (lambda session: session.checked(good=False), set(IN_STATE) - {"CHECKING"}),
    "granted": (lambda session: session.granted(Grant(1, TIME)), set(IN_STATE) - {"CLAIMING"}),
}
"""Steps, and the states in which they can't happen."""


@in_every_state
@pytest.mark.parametrize("step", ILLEGAL)
def test_an_illegal_step_is_an_error_and_changes_nothing(state: str, step: str) -> None:
    take, illegal = ILLEGAL[step]
    session = IN_STATE[state]()
    if state not in illegal:
        take(session)
        return
    with pytest.raises(IllegalStep):
        take(session)
    assert session.state is State[state]


# What a listener of many devices pays for each.


def bytes_of(session: Session) -> int:
    """Add up what a session holds alone."""
    total = sys.getsizeof(session)
    shared = {"_context", "state"}  # an open session has no context
    held = [getattr(session, name) for name in Session.__slots__ if name not in shared]
    dialect = session._dialect
    assert isinstance(dialect, TextDialect | MsgpackDialect)
    own = [getattr(dialect, name) for name in type(dialect).__slots__]
    return total + sum(map(sys.getsizeof, held + own))


@both
def test_an_idle_device_costs_under_a_kilobyte(device: Device) -> None:
    listener = logged_in(device)
    listener.receive(*bytewise(device.frame("a") + device.frame("b" * 5000)))
    assert bytes_of(listener.session) < 1000
    listener, client = in_scram(device)
    listener.receive(device.response(client.get_client_final().encode()))
    assert bytes_of(listener.session) < 1000
