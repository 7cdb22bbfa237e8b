"""Couriers and the receivers' time-outs, on a clock of the tests' own."""

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from ingest.watch.rules.actions import PROGRAM_PATIENCE, Program, Webhook
from ingest.watch.rules.courier import TRIES, Courier
from ingest.watch.rules.mailbox import Mailbox
from ingest.watch.rules.model import MailServer
from ingest.watch.rules.phases import Event
from ingest.watch.rules.receiver import PATIENCE, DeliveryError
from ingest.watch.rules.state import Noted


def event(number: int, firing: bool = True) -> Event:
    return Event("hot", "a", firing, 0, number, number, number, "temp > 30", "hot", {})


class Queue:
    """What waits for one receiver."""

    def __init__(self, count: int) -> None:
        self.waiting = [Noted(number, event(number), ("x",)) for number in range(1, count + 1)]
        self.delivered: list[int] = []
        self.failures: list[str] = []

    def next_for(self, target: str) -> Deferred[Noted | None]:
        return succeed(self.waiting[0] if self.waiting else None)

    def done(self, target: str, number: int, failure: str) -> Deferred[None]:
        assert self.waiting.pop(0).number == number
        self.delivered.append(number)
        self.failures.append(failure)
        return succeed(None)


class Fake:
    """A receiver that answers as a test wants it."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.reminded: list[int] = []
        self.answers: list[Deferred[None]] = []
        self.error: Exception | None = None
        self.is_slow = False

    def tell(self, event: Event) -> Deferred[None]:
        self.told.append(event.time)
        return self._answer()

    def remind(self, firing: Sequence[Event]) -> Deferred[None]:
        self.reminded += [each.time for each in firing]
        return self._answer()

    def _answer(self) -> Deferred[None]:
        if self.is_slow:
            self.answers.append(Deferred())
            return self.answers[-1]
        return succeed(None) if self.error is None else fail(self.error)


class Setting:
    def __init__(self, count: int) -> None:
        self.clock, self.receiver, self.queue = Clock(), Fake(), Queue(count)
        self.courier = Courier("x", self.receiver, self.clock, self.queue.next_for, self.queue.done)

    def pauses(self) -> list[float]:
        return [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]

    def pass_pauses(self, count: int) -> list[float]:
        passed = []
        for _ in range(count):
            (pause,) = self.pauses()
            passed.append(pause)
            self.clock.advance(pause)
        return passed


def test_events_are_told_in_order() -> None:
    setting = Setting(3)
    setting.receiver.is_slow = True
    setting.courier.wake()
    setting.courier.wake()
    assert setting.receiver.told == [1]
    setting.receiver.answers[0].callback(None)
    assert setting.receiver.told == [1, 2]
    setting.receiver.answers[1].callback(None)
    setting.receiver.answers[2].callback(None)
    assert setting.queue.delivered == [1, 2, 3]
    assert setting.queue.failures == ["", "", ""]


def test_who_does_not_answer_is_waited_for_with_growing_pauses() -> None:
    setting = Setting(2)
    setting.receiver.error = Refused("nobody listens")
    setting.courier.wake()
    pauses = setting.pass_pauses(TRIES * 2)
    for number, pause in enumerate(pauses):
        longest = min(2.0**number, 300.0)
        assert longest / 2 <= pause <= longest
    assert set(setting.receiver.told) == {1}
    assert "nobody listens" in setting.courier.failure
    setting.courier.wake()  # a new event does not shorten the pause
    assert len(setting.receiver.told) == TRIES * 2 + 1
    setting.receiver.error = None
    setting.pass_pauses(1)
    assert setting.queue.delivered == [1, 2]
    assert setting.courier.failure == ""
    assert setting.pauses() == []


def test_who_answers_with_a_no_is_asked_so_often() -> None:
    setting = Setting(2)
    setting.receiver.error = DeliveryError("it answers 500")
    setting.courier.wake()
    setting.pass_pauses(TRIES - 1)
    assert setting.queue.delivered == [1]
    assert setting.receiver.told == [1] * TRIES + [2]
    assert setting.pauses()[0] <= 1  # the next event begins anew


def test_who_will_never_take_it_is_not_asked_again() -> None:
    setting = Setting(2)
    setting.receiver.error = DeliveryError("it answers 400", final=True)
    setting.courier.wake()
    assert setting.queue.delivered == [1, 2]
    assert setting.queue.failures == ["it answers 400", "it answers 400"]
    assert setting.receiver.told == [1, 2]


def test_who_wants_to_be_left_alone_is() -> None:
    setting = Setting(1)
    setting.receiver.error = DeliveryError("it answers 429", wait=120.0)
    setting.courier.wake()
    setting.receiver.error = DeliveryError("it answers 503")
    assert 120 < setting.pass_pauses(1)[0] <= 121
    assert setting.pauses()[0] <= 2


def test_what_is_secret_in_an_address_is_not_logged() -> None:
    queue, receiver = Queue(1), Fake()
    receiver.error = DeliveryError("it answers 400", final=True)
    url = "webhook:http://me:secret@127.0.0.1/secret"
    with capturedLogs() as logged:
        Courier(url, receiver, Clock(), queue.next_for, queue.done).wake()
    assert [formatEvent(each) for each in logged] == [
        "webhook:http://127.0.0.1/…: it answers 400",
        "webhook:http://127.0.0.1/… is not told event 1: it answers 400",
    ]


def test_a_pause_is_broken_off() -> None:
    setting = Setting(1)
    setting.receiver.error = Refused()
    setting.courier.wake()
    assert setting.courier.stop().called
    assert setting.pauses() == []
    setting.courier.wake()
    assert setting.receiver.told == [1]
    assert setting.queue.delivered == []


def test_a_telling_is_broken_off() -> None:
    setting = Setting(1)
    setting.receiver.is_slow = True
    setting.courier.wake()
    assert setting.courier.stop().called
    assert setting.receiver.answers[0].called
    assert setting.queue.delivered == []


def test_a_reminder_is_not_overtaken_by_a_clearing() -> None:
    setting = Setting(0)
    setting.receiver.is_slow = True
    setting.courier.remind([event(7)])
    assert setting.receiver.reminded == [7]
    setting.queue.waiting = Queue(1).waiting
    setting.courier.wake()
    assert setting.receiver.told == []
    setting.receiver.answers[0].callback(None)
    assert setting.receiver.told == [1]
    setting.courier.remind([event(8)])
    assert setting.receiver.reminded == [7]


def test_a_reminder_that_fails_is_told() -> None:
    setting = Setting(0)
    setting.receiver.error = DeliveryError("it answers 500")
    setting.courier.remind([event(7)])
    assert setting.courier.failure == "it answers 500"
    setting.receiver.error = None
    setting.courier.remind([event(7)])
    assert setting.courier.failure == ""


class Answering:
    """A webhook that answers as a test wants it; what was sent it is kept."""

    def __init__(self, url: str) -> None:
        reactor: Any = MemoryReactorClock()
        self.errors: list[Any] = []
        Webhook(reactor, url).tell(event(1)).addErrback(self.errors.append)
        (_, _, factory, _, _) = reactor.tcpClients[0]
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        reactor.advance(0)

    def ends(self) -> Any:
        self.protocol.connectionLost(Failure(ConnectionDone()))
        (error,) = self.errors
        return error.value


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("120", 120),
        ("99999", 3600),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 3600),
        ("Thu, 01 Jan 2009 00:00:00 GMT", 0),
        ("soon", 0),
        ("²", 0),
    ],
)
def test_a_webhook_may_ask_for_a_pause(asked: str, wait: float) -> None:
    hook = Answering("http://127.0.0.1:1/")
    answer = f"HTTP/1.1 429 Slower\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n"
    hook.protocol.dataReceived(answer.encode())
    error = hook.ends()
    assert (str(error), error.wait, error.answered) == ("it answers 429", wait, True)


def test_a_webhook_that_breaks_off_is_said_in_words() -> None:
    error = Answering("http://127.0.0.1:1/").ends()
    assert str(error) == ("it breaks off without an answer: Connection was closed cleanly.")
    assert not error.answered


def test_a_name_and_a_password_in_an_address_are_proved() -> None:
    sent = Answering("http://me:a%20b@127.0.0.1:1/x?y#z").transport.value()
    assert sent.startswith(b"POST /x?y HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic bWU6YSBi\r\n" in sent
    assert b"\r\nHost: 127.0.0.1:1\r\n" in sent


def test_mail_that_breaks_off_is_sent_again_by_the_courier_alone() -> None:
    """A server that takes a mail and then fails got six at once."""
    reactor: Any = MemoryReactorClock()
    errors: list[Any] = []
    Mailbox(reactor, "ops@example.org", MailServer).tell(event(1)).addErrback(errors.append)
    (_, _, factory, _, _), connector = reactor.tcpClients[0], reactor.connectors[0]
    factory.clientConnectionLost(connector, Failure(ConnectionDone()))
    assert len(reactor.tcpClients) == len(errors) == 1


def test_who_is_silent_on_the_line_is_given_up() -> None:
    reactor: Any = MemoryReactorClock()
    mail = Mailbox(reactor, "ops@example.org", MailServer)
    for receiver in (Webhook(reactor, "http://127.0.0.1:1/"), mail):
        errors: list[Any] = []
        receiver.tell(event(1)).addErrback(errors.append)
        reactor.advance(PATIENCE - 1)
        assert errors == []
        reactor.advance(1)
        assert errors[0].getErrorMessage() == "it has not answered within 30 s"
        assert not errors[0].value.answered


class Processes(Clock):
    """A reactor whose processes never end by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = None
        self.killed: list[str] = []

    def spawnProcess(self, protocol: Any, *_: Any) -> None:
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        self.killed.append(name)


def test_a_program_that_does_not_end_is_killed() -> None:
    reactor: Any = Processes()
    errors: list[Any] = []
    Program(reactor, "/bin/true").tell(event(1)).addErrback(errors.append)
    reactor.advance(PROGRAM_PATIENCE - 1)
    assert reactor.killed == []
    reactor.advance(1)
    assert reactor.killed == ["KILL"]
    assert errors[0].getErrorMessage() == "it has not ended within 60 s, and was killed"


@pytest.mark.parametrize("firing", [True, False])
def test_what_a_receiver_is_told_again_has_the_same_id(firing: bool) -> None:
    assert event(3, firing).id == event(3).id != event(4).id
