"""The contract of `Conversation`, which every protocol keeps: those that are plugins, and `Poll`.

A strict shell drives them: it calls a method only when the contract says that this can happen, and
fails on any event that may not come then.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient

from ingest.listener.protocols import find, protocols
from ingest.record import record_block
from ingest.wire.chunks import RecentChunks
from ingest.wire.conversation import (
    CheckToken,
    Claim,
    Context,
    Conversation,
    Converse,
    Ended,
    Event,
    Grant,
    Peer,
    Send,
    Wait,
)
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError
from ingest.wire.framing import Frames
from ingest.wire.options import Options
from ingest.wire.poll import Ending, Poll, Question
from tests.support.implementations import implementations
from tests.wire.forward.test_session import KEY, SALT, digest
from tests.wire.ingest1.peer import CREDENTIALS, DEVICES, Device, find_keys
from tests.wire.streams import TIME, bytewise, cut, cuts

PEER = Peer("127.0.0.1", 50123, encrypted=False, local=True)
STOPPING = PeerError(ErrorCode.SHUTTING_DOWN, "the listener is stopping")

Login = Callable[[], Generator[bytes, bytes, None]]
"""What a client says until it is let in: it yields bytes, and is sent what it was answered."""


Slice = Callable[[bytes], list[bytes]]
"""What the reads are in which bytes arrive."""


def whole(data: bytes) -> list[bytes]:
    return [data]


class Case(NamedTuple):
    """A protocol in one way of using it.

    Attributes:
        plugin: the name of its plugin; empty where we connect to the device.
        make: makes its conversations.
        login: what the client says first.
        frames: three whole frames.
        stored: how many of them are stored.
    """

    plugin: str
    make: Converse
    login: Login
    frames: bytes
    stored: int = 3


def plugin(name: str, **options: object) -> Converse:
    return find(name).make_converse(Options({k.replace("_", "-"): v for k, v in options.items()}))


def nothing() -> Generator[bytes, bytes, None]:
    yield b""


def in_plain(device: Device) -> Generator[bytes, bytes, None]:
    yield device.auth("PLAIN", CREDENTIALS)


def in_scram(device: Device) -> Generator[bytes, bytes, None]:
    client = ScramClient(["SCRAM-SHA-256"], "sensor-1", "s3cr3t")
    said = yield device.auth("SCRAM-SHA-256", client.get_client_first().encode())
    ((_, challenge),) = device.replies(said)
    client.set_server_first(challenge.decode())
    yield device.response(client.get_client_final().encode())


def with_key() -> Generator[bytes, bytes, None]:
    helo = msgpack.unpackb((yield b""))[1]
    proof = digest(SALT, "web-1", helo["nonce"], KEY)
    yield msgpack.packb(["PING", "web-1", SALT, proof, "", ""])


def opened() -> Generator[bytes, bytes, None]:
    yield b"1 open 14 relp_version=0\n"


def dialled(*, stays: bool) -> Converse:
    return partial(Poll, question=Question("d", b"?", Ending(until=b"\n"), 5.0, stays=stays))


def ingest_1(device: Device, login: Callable[[Device], Generator[bytes, bytes, None]]) -> Case:
    frames = b"".join(map(device.frame, "abc"))
    return Case("ingest/1", plugin("ingest/1"), partial(login, device), frames)


_TEXT, _PACKED = DEVICES
_MESSAGES = b"".join(msgpack.packb(["t", [[5, {"n": n}]], {"chunk": str(n)}]) for n in range(3))
_SYSLOG = b"<13>1 - - a - - - x\n"
CASES = {
    "ingest/1 text, PLAIN": ingest_1(_TEXT, in_plain),
    "ingest/1 text, SCRAM": ingest_1(_TEXT, in_scram),
    "ingest/1 msgpack, PLAIN": ingest_1(_PACKED, in_plain),
    "ingest/1 msgpack, SCRAM": ingest_1(_PACKED, in_scram),
    "forward, open": Case("forward", plugin("forward", device="d"), nothing, _MESSAGES),
    "forward, shared key": Case("forward", plugin("forward", shared_key=KEY), with_key, _MESSAGES),
    "syslog": Case("syslog", plugin("syslog", device="d"), nothing, _SYSLOG * 3),
    "relp": Case(
        "relp", plugin("relp", device="d"), opened,
        b"".join(b"%d syslog 20 %b\n" % (n, _SYSLOG) for n in (2, 3, 4)),
    ),
    "poll": Case("", dialled(stays=False), nothing, b"a\nb\nc\n", stored=1),
    "poll that stays": Case("", dialled(stays=True), nothing, b"a\nb\nc\n"),
}  # fmt: skip
in_every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_no_protocol_is_left_out() -> None:
    """Add a `Case` for a new one: a plugin, or a class that is a conversation."""
    assert {case.plugin for case in CASES.values()} - {""} == set(protocols())
    used = {each for case in CASES.values() for each in type(begun(case).conversation).__mro__}
    assert implementations(Conversation, "ingest.wire") <= used


class Shell:
    """Carries out the events of one conversation, and lets none pass that may not come.

    Attributes:
        conversation: it.
        asked: what it wants to know, and was not told yet.
        sent: what the peer got since the last `take`.
        unsaid: what the peer says next.
        messages: how many it has said, one by one.
        block: the log.
        ended: its end.
    """

    def __init__(
        self, case: Case, *, holds: bool = False, refusal: PeerError | None = None
    ) -> None:
        """Begin.

        Args:
            case: the protocol.
            holds: whether questions are answered by `answer` only, instead of at once.
            refusal: why the peer is not let in.
        """
        context = Context(PEER, 65536, False, find_keys, refusal)
        self.conversation = case.make(context)
        self.asked: deque[CheckToken | Claim] = deque()
        self.sent = self.unsaid = b""
        self.block = b""
        self.records = self.durable = self.messages = 0
        self.ended: Ended | None = None
        self.is_granted = self.is_claimed = self.is_checked = False
        self._chunks = RecentChunks()
        self._holds = holds
        self._early = b""
        self._is_closed = False
        self.carry_out(self.conversation.begin())

    def receive(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if self.asked:
                self._early += piece
            elif piece and self.ended is None:
                self.carry_out(self.conversation.receive(piece))

    def close_side(self) -> None:
        self._is_closed = True
        if self.ended is None and not self.asked:
            self.carry_out(self.conversation.end_of_stream())

    def say(self, message: bytes) -> None:
        """Say something of a login, and wait for the token to be checked if it has one."""
        self.messages += 1
        self.receive([message])
        while self.asked and not self.is_claimed:
            self.answer()

    def log_in(self, case: Case, slice_: Callable[[bytes], list[bytes]] = whole) -> None:
        """Say what the client says until it is let in."""
        login = case.login()
        said = next(login)
        while True:
            self.receive(slice_(said))
            try:
                said = login.send(self.take())
            except StopIteration:
                return

    def take(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent

    def answer(self) -> None:
        """Answer the oldest question."""
        question = self.asked.popleft()
        if isinstance(question, CheckToken):
            self.is_checked = True
            self.carry_out(self.conversation.checked(good=question.credentials.token == "s3cr3t"))
        else:
            self.is_granted = True
            chunks = self._chunks.of(question.device) if question.shared else None
            self.carry_out(self.conversation.granted(Grant(1, TIME, "", self._is_durable, chunks)))
            self.receive([self._early])
            if self._is_closed:
                self.close_side()

    def _is_durable(self, seq: int) -> bool:
        return seq <= self.durable

    def sync(self) -> None:
        """Make all records durable, and tell so."""
        if self.records > self.durable:
            self.durable = self.records
            self.sent += self.conversation.acknowledge(self.durable)

    def carry_out(self, events: Sequence[Event]) -> None:
        for event in events:
            assert self.ended is None, f"{event} after the end"
            self._carry_out(event)
        self.sync()
        while self.asked and not self._holds and self.ended is None:
            self.answer()

    def _carry_out(self, event: Event) -> None:
        match event:
            case Send():
                assert event.data
                self.sent += event.data
            case Frames():
                assert self.is_granted, "frames of somebody who is not let in"
                self._append(event)
            case CheckToken():
                assert not self.is_checked and not self.is_claimed
                self.asked.append(event)
            case Claim():
                assert not self.is_claimed, "a second claim"
                assert self.conversation.mechanism
                self.is_claimed = True
                self.asked.append(event)
            case Wait():
                assert hasattr(self.conversation, "overdue")
            case Ended():
                self.ended = event
                if event.error is not None:
                    assert event.error.__traceback__ is None, "it keeps what made it"
                    assert isinstance(self.conversation.farewell(event.error), bytes)

    def _append(self, frames: Frames) -> None:
        items = frames.values.items
        if items:
            self.block += record_block(TIME, b"d", self.records + 1, frames.values)
            self.records += len(items)


def begun(case: Case) -> Shell:
    shell = Shell(case)
    shell.unsaid = next(case.login()) if shell.is_granted else b""
    return shell


def claiming(case: Case) -> Shell:
    """Wait for the lease; what the client has not said by then is what it says next."""
    shell = Shell(case, holds=True)
    login = case.login()
    shell.unsaid = next(login)
    while not shell.is_claimed:
        shell.say(shell.unsaid)
        shell.unsaid = b"" if shell.is_claimed else login.send(shell.take())
    return shell


def open_(case: Case) -> Shell:
    shell = Shell(case)
    shell.log_in(case)
    assert shell.is_granted and shell.ended is None
    return shell


def over(case: Case) -> Shell:
    shell = open_(case)
    shell.carry_out(shell.conversation.fail(STOPPING))
    return shell


STATES = {"begun": begun, "claiming": claiming, "open": open_}
in_every_state = pytest.mark.parametrize("make", STATES.values(), ids=STATES)


def logged(case: Case, slice_: Slice) -> Shell:
    shell = Shell(case)
    shell.log_in(case, slice_)
    shell.receive(slice_(case.frames))
    shell.close_side()
    return shell


@in_every_case
def test_a_whole_conversation(case: Case) -> None:
    shell = logged(case, whole)
    assert shell.records == case.stored
    assert shell.ended is not None and shell.ended.error is None
    assert shell.conversation.mechanism


@in_every_case
def test_byte_by_byte_it_is_the_same(case: Case) -> None:
    assert logged(case, bytewise).block == logged(case, whole).block


@in_every_case
@given(where=cuts)
def test_in_any_pieces_it_is_the_same(case: Case, where: list[int]) -> None:
    shell = logged(case, lambda data: cut(data, where))
    assert shell.records == case.stored
    assert shell.ended is not None and shell.ended.error is None


@in_every_case
def test_what_stands_behind_a_login_is_kept(case: Case) -> None:
    """It comes in the read of what leads to the claim; without a login there is no such read."""
    shell, messages = Shell(case, holds=True), claiming(case).messages
    login = case.login()
    for left in reversed(range(messages)):
        said = login.send(shell.take()) if shell.messages else next(login)
        shell.say(said if left else said + case.frames)
    assert shell.is_claimed and shell.records == 0
    shell.answer()
    assert shell.records == (case.stored if messages else 0)


@in_every_case
@in_every_state
def test_our_side_may_end_it(case: Case, make: Callable[[Case], Shell]) -> None:
    shell = make(case)
    shell.carry_out(shell.conversation.fail(STOPPING))
    assert shell.ended is not None and shell.ended.error is STOPPING


@in_every_case
@in_every_state
def test_the_peer_may_close_its_side(case: Case, make: Callable[[Case], Shell]) -> None:
    shell = make(case)
    shell.close_side()
    while shell.asked and shell.ended is None:
        shell.answer()
    assert shell.ended is not None and shell.ended.error is None


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.plugin])
def test_nobody_who_connects_and_is_refused_is_let_in(case: Case) -> None:
    busy = PeerError(ErrorCode.BUSY, "too many connections")
    shell = Shell(case, refusal=busy)
    shell.receive([next(case.login())])
    assert not shell.is_claimed
    assert shell.ended is not None and shell.ended.error is not None
    assert shell.ended.error.code is ErrorCode.BUSY


def receive(shell: Shell) -> object:
    return shell.conversation.receive(b"a\n")


def end_of_stream(shell: Shell) -> object:
    return shell.conversation.end_of_stream()


def checked(shell: Shell) -> object:
    return shell.conversation.checked(good=True)


def granted(shell: Shell) -> object:
    return shell.conversation.granted(Grant(1, TIME))


def fail(shell: Shell) -> object:
    return shell.conversation.fail(STOPPING)


@in_every_case
@pytest.mark.parametrize("step", [receive, end_of_stream])
def test_before_an_answer_nothing_else_comes(case: Case, step: Callable[[Shell], object]) -> None:
    shell = claiming(case)
    with pytest.raises(IllegalStep):
        step(shell)
    shell.answer()
    shell.receive([shell.unsaid + case.frames])
    assert shell.records == case.stored


@in_every_case
@pytest.mark.parametrize("step", [receive, end_of_stream, checked, granted, fail])
def test_after_the_end_any_step_is_illegal(case: Case, step: Callable[[Shell], object]) -> None:
    shell = over(case)
    with pytest.raises(IllegalStep):
        step(shell)


@in_every_case
def test_after_the_end_frames_are_still_acknowledged(case: Case) -> None:
    shell = open_(case)
    shell.receive([case.frames])
    if shell.ended is None:
        shell.carry_out(shell.conversation.fail(STOPPING))
    assert isinstance(shell.conversation.acknowledge(case.stored), bytes)
    assert isinstance(shell.conversation.farewell(STOPPING), bytes)


@in_every_case
@in_every_state
@pytest.mark.parametrize("step", [checked, granted])
def test_an_answer_that_nobody_asked_for_is_illegal_and_changes_nothing(
    case: Case, make: Callable[[Case], Shell], step: Callable[[Shell], object]
) -> None:
    shell = make(case)
    if step is granted and shell.asked:
        shell.answer()
    with pytest.raises(IllegalStep):
        step(shell)
    if shell.is_granted and shell.ended is None:
        shell.receive([shell.unsaid + case.frames])
        assert shell.records == case.stored


@in_every_case
@in_every_state
@given(data=st.binary(min_size=1, max_size=200))
def test_no_bytes_of_the_peer_are_our_fault(
    case: Case, make: Callable[[Case], Shell], data: bytes
) -> None:
    shell = make(case)
    shell.receive([data])
    while shell.asked and shell.ended is None:
        shell.answer()
    shell.close_side()
    while shell.asked and shell.ended is None:
        shell.answer()
    assert shell.ended is not None
