"""The core alone: bytes in, bytes and events out; the clock is an argument."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.client import (
    AuthenticationError,
    ClientError,
    Connected,
    Core,
    Disconnected,
    Dropped,
    Event,
    MemoryQueue,
    Options,
    OutOfStep,
    OutOfStepError,
    Phase,
    ProtocolError,
    Rejected,
)
from tests.support.scripted_server import pack


def make_core(limit: int = 9, **options: Any) -> Core:
    known: dict[str, Any] = {"host": "localhost", "port": 7650, "device": "a", "token": "t"}
    return Core(MemoryQueue(limit), Options(**known | options))


class Wire:
    """A core, and what it would send on one connection after the other."""

    def __init__(self, limit: int = 100, **options: Any) -> None:
        self.core = make_core(limit, device="sensor-1", token="secret", **options)
        self.now = 0.0
        self.events: list[Event] = []

    def send(self, *frames: str) -> list[bool]:
        return [self.core.offer(self.core.encode(frame)) for frame in frames]

    def open(self, following: int, max_frame: int = 100) -> bytes:
        """Make a connection, say OK; return what is sent then."""
        self.core.opened()
        assert self.drain().startswith(b"AUTH PLAIN AHNlbnNvci0xAHNlY3JldA==")
        return self.say(f"OK next={following} max_frame={max_frame}")

    def say(self, line: str) -> bytes:
        self.core.receive(line.encode() + b"\n", self.now)
        return self.drain()

    def drain(self, most: int = 1 << 20) -> bytes:
        sent = b""
        while most and (data := bytes(self.core.data_to_send()[:most])):
            self.core.took(len(data))
            sent += data
            most -= len(data)
        return sent

    def lose(self, error: Exception | None = None) -> None:
        self.core.lost(error or ConnectionResetError("reset"), self.now)

    def fail(self, line: str) -> ClientError:
        """Say what ends the connection, and let the core know, as a shell does."""
        with pytest.raises(ClientError) as caught:
            self.say(line)
        self.lose(caught.value)
        return caught.value

    def take_events(self) -> list[Event]:
        taken = list(self.core.events)
        self.core.events.clear()
        return taken


def test_frames_wait_for_ok_and_go_out_in_order() -> None:
    wire = Wire()
    wire.send("a", "b")
    assert wire.open(43) == b"a\nb\n"
    wire.send("c")
    assert wire.drain() == b"c\n"
    wire.say("ACK 44")
    assert (wire.core.queue.acknowledged, len(wire.core.queue), wire.core.queue.number) == (
        44, 1, 45,
    )  # fmt: skip
    assert not wire.core.is_settled
    wire.say("ACK 45")
    assert wire.core.is_settled


def test_the_example_of_the_specification() -> None:
    """PROTOCOL.md, "How to resume": four frames, one is stored without an ACK, one is not."""
    wire = Wire()
    wire.send("temp=20.5", "temp=20.6")
    wire.open(43)
    wire.say("ACK 44")
    wire.send("temp=20.7", "temp=20.8")
    wire.drain()
    wire.lose()
    assert wire.open(46) == b"temp=20.8\n"
    wire.say("ACK 46")
    assert wire.core.is_settled


def test_half_a_frame_is_sent_again_whole() -> None:
    wire = Wire()
    wire.open(1)
    wire.send("abcdef")
    assert wire.drain(3) == b"abc"
    wire.lose()
    assert wire.open(1) == b"abcdef\n"


def test_a_keep_alive_stands_between_frames() -> None:
    wire = Wire()
    assert not wire.core.ping()
    wire.open(1)
    wire.send("abcdef")
    assert wire.drain(3) == b"abc"
    assert wire.core.ping()
    wire.send("x")
    assert wire.drain() == b"def\n\nx\n"


@pytest.mark.parametrize("following", [1, 42])
def test_a_next_below_what_was_acknowledged_is_reported(following: int) -> None:
    wire = Wire()
    wire.send("a", "b", "c")
    wire.open(43)
    wire.say("ACK 43")
    wire.lose()
    wire.take_events()
    assert wire.open(following) == b"b\nc\n"
    assert wire.take_events() == [OutOfStep(following, 44, 46), Connected(following)]
    wire.say(f"ACK {following + 1}")
    assert wire.core.is_settled


def test_it_is_reported_also_when_nothing_waits() -> None:
    wire = Wire()
    wire.open(43)
    wire.lose()
    wire.open(7)
    assert OutOfStep(7, 43, 43) in wire.take_events()


def test_a_next_above_what_was_sent_is_reported_and_the_frames_sent_again() -> None:
    wire = Wire()
    wire.send("a", "b")
    wire.open(1)
    wire.lose()
    wire.take_events()
    assert wire.open(4) == b"a\nb\n"
    assert wire.take_events() == [OutOfStep(4, 1, 3), Connected(4)]


def test_other_frames_stored_while_nothing_waits_are_no_fault() -> None:
    wire = Wire()
    wire.send("a")
    wire.open(1)
    wire.say("ACK 1")
    wire.lose()
    wire.take_events()
    assert wire.open(9) == b""
    assert wire.take_events() == [Connected(9)]


def test_out_of_step_may_stop_the_client() -> None:
    wire = Wire(out_of_step="stop")
    wire.send("a", "b")
    wire.open(1)
    wire.lose()
    wire.core.opened()
    wire.drain()
    error = wire.fail("OK next=9 max_frame=100")
    assert isinstance(error, OutOfStepError)
    assert "next frame is 9, this client expected 1 to 3" in str(error)
    assert wire.core.phase is Phase.STOPPED
    assert len(wire.core.queue) == 2


# A full queue


def test_a_full_queue_makes_the_sender_wait() -> None:
    wire = Wire(2)
    assert wire.send("a", "b", "c") == [True, True, False]
    wire.open(1)
    wire.say("ACK 1")
    assert wire.send("c") == [True]
    assert wire.core.queue.dropped == 0


def test_the_newest_are_dropped() -> None:
    wire = Wire(2, full="drop-newest")
    assert wire.send("a", "b", "c", "d") == [True] * 4
    assert wire.take_events() == [Dropped(1)], "it is said once"
    assert wire.core.queue.dropped == 2
    assert wire.open(1) == b"a\nb\n"
    wire.say("ACK 2")
    wire.send("e", "f", "g")
    assert Dropped(3) in wire.take_events()


def test_the_oldest_are_dropped() -> None:
    wire = Wire(2, full="drop-oldest")
    assert wire.send("a", "b", "c", "d") == [True] * 4
    assert wire.core.queue.dropped == 2
    assert wire.open(1) == b"c\nd\n"
    wire.say("ACK 2")
    assert wire.core.is_settled


@pytest.mark.parametrize(
    ("following", "sent"), [(1, b"c\nd\n"), (2, b"c\nd\n"), (3, b"c\nd\n"), (4, b"d\n")]
)
def test_dropped_while_in_doubt(following: int, sent: bytes) -> None:
    """a, b and c were sent as 1, 2, 3; then a and b are dropped. `next` tells about c."""
    wire = Wire(3, full="drop-oldest")
    wire.send("a", "b", "c")
    wire.open(1)
    wire.lose()
    wire.send("d")
    wire.send("e")
    wire.take_events()
    assert wire.open(following) == sent + b"e\n"
    assert not any(isinstance(event, OutOfStep) for event in wire.take_events())


def test_an_acknowledgement_of_a_dropped_frame() -> None:
    wire = Wire(2, full="drop-oldest")
    wire.open(1)
    wire.send("a", "b")
    wire.drain()
    wire.send("c")
    assert wire.drain() == b"c\n"
    wire.say("ACK 1")
    assert (len(wire.core.queue), wire.core.queue.number) == (2, 2)
    wire.say("ACK 3")
    assert wire.core.is_settled


# Frames that the server does not take


def test_a_frame_longer_than_the_server_takes_is_set_aside() -> None:
    wire = Wire()
    wire.send("a", "x" * 11, "b", "y" * 12)
    assert wire.open(1, max_frame=10) == b"a\n", "its number must be certain first"
    assert wire.say("ACK 1") == b"b\n"
    assert wire.say("ACK 2") == b""
    assert wire.core.is_settled
    assert wire.core.rejected == 2
    rejected = [event for event in wire.take_events() if isinstance(event, Rejected)]
    assert rejected == [
        Rejected(b"x" * 11 + b"\n", "it has 11 bytes, the server takes 10"),
        Rejected(b"y" * 12 + b"\n", "it has 12 bytes, the server takes 10"),
    ]


def test_a_frame_that_is_too_long_is_not_taken() -> None:
    wire = Wire()
    wire.open(1, max_frame=10)
    with pytest.raises(ValueError, match="has 11 bytes, the server takes 10"):
        wire.core.encode("x" * 11)


@pytest.mark.parametrize(("ack", "stored"), [("durable", 1), ("durable", 2), ("none", 2)])
def test_a_bad_frame_is_set_aside_and_the_rest_sent_at_once(ack: str, stored: int) -> None:
    wire = Wire(ack=ack)
    wire.send("a", "b", "c", "d")
    wire.open(1)
    wire.fail("ERR bad-frame no frame")
    assert wire.core.pause(0) == 0
    wire.take_events()
    rest = [b"a\n", b"b\n", b"c\n", b"d\n"][stored:]
    assert wire.open(stored + 1) == b"".join(rest[1:])
    assert wire.take_events()[1:] == [Rejected(rest[0], "bad-frame: no frame")]


def test_a_bad_frame_in_the_handshake_is_set_aside_by_nobody() -> None:
    wire = Wire()
    wire.send("a")
    wire.core.opened()
    wire.drain()
    wire.fail("ERR bad-frame what?")
    assert wire.core.phase is Phase.STOPPED
    wire.core.restart()
    assert wire.open(1) == b"a\n"


# What ends a connection, and what follows


@pytest.mark.parametrize(
    "code",
    ["auth-failed", "auth-required", "mechanism-unsupported", "plaintext-refused", "replaced",
     "revoked"],
)  # fmt: skip
def test_what_somebody_must_look_at_stops_the_client(code: str) -> None:
    wire = Wire()
    wire.core.opened()
    wire.drain()
    error = wire.fail(f"ERR {code} text")
    assert (wire.core.phase, wire.core.failure) == (Phase.STOPPED, error)
    assert isinstance(error, AuthenticationError) == (code == "auth-failed")
    wire.core.restart()
    assert (wire.core.phase, wire.core.failure) == (Phase.AWAY, None)
    assert wire.core.pause(0) == 0


@pytest.mark.parametrize("code", ["busy", "shutting-down", "auth-timeout", "moon-in-wrong-phase"])
def test_other_codes_and_unknown_ones_are_tried_again_later(code: str) -> None:
    wire = Wire()
    wire.core.opened()
    wire.drain()
    wire.fail(f"ERR {code} text")
    assert wire.core.phase is Phase.AWAY
    assert 0.5 <= wire.core.pause(0) <= 1


@pytest.mark.parametrize(("later", "phase"), [(59, Phase.AWAY), (61, Phase.STOPPED)])
def test_a_client_is_not_stopped_by_its_own_straggler(later: float, phase: Phase) -> None:
    """The login of a connection that broke may arrive behind the next one's."""
    wire = Wire()
    wire.open(1)
    wire.lose()
    wire.open(1)
    wire.now = later
    wire.fail("ERR replaced by a newer connection")
    assert wire.core.phase is phase
    wire.core.restart()
    wire.open(1)
    wire.fail("ERR replaced by a newer connection")
    assert wire.core.phase is Phase.STOPPED, "once is enough"


def test_pauses_grow_until_there_is_progress() -> None:
    wire = Wire(pause=(1.0, 8.0))
    wire.send("a")
    for ceiling in (1, 2, 4, 8, 8):
        wire.open(1)  # an OK alone is no progress: the server may break each connection
        wire.lose()
        assert ceiling / 2 <= wire.core.pause(0) <= ceiling
    wire.open(1)
    wire.say("ACK 1")
    wire.lose()
    assert wire.core.pause(0) <= 1


def test_at_once_turns_into_later() -> None:
    wire = Wire()
    wire.send("a")
    wire.open(1)
    wire.fail("ERR idle-timeout")
    assert wire.core.pause(0) == 0
    wire.open(1)
    wire.fail("ERR idle-timeout")
    assert wire.core.pause(0) >= 0.5


def test_a_server_is_given_up_when_told_so() -> None:
    wire = Wire(retry=10.0)
    for now in (0, 4, 9.5):
        wire.now = now
        wire.lose()
        assert wire.core.phase is Phase.AWAY
        assert wire.core.pause(now) <= 10 - now
    wire.now = 10
    wire.lose()
    assert wire.core.phase is Phase.STOPPED
    assert [event for event in wire.take_events() if isinstance(event, Disconnected)] != []


def test_nobody_is_given_up_otherwise() -> None:
    wire = Wire()
    for day in range(100):
        wire.now = day * 86_400
        wire.lose()
    assert wire.core.phase is Phase.AWAY
    assert len(wire.take_events()) == 1, "one event for an outage"


@pytest.mark.parametrize(
    "line", ["ACK 3", "OK next=1 max_frame=1", "+ eA==", "HTTP/1.1 400 Bad Request"]
)
def test_what_is_out_of_place_is_a_protocol_error(line: str) -> None:
    wire = Wire()
    wire.send("a", "b")
    wire.open(1)
    assert isinstance(wire.fail(line), ProtocolError)
    assert wire.core.phase is Phase.AWAY


def test_without_acknowledgements_the_queue_forgets_what_was_sent() -> None:
    wire = Wire(3, ack="none")
    wire.open(1)
    for i in range(10):
        assert wire.send(str(i)) == [True]
        wire.drain()
    assert wire.core.is_settled
    wire.lose()
    assert not wire.core.is_settled
    assert wire.open(10) == b"9\n"
    assert wire.core.queue.dropped == 0


def test_the_time_of_the_server() -> None:
    wire = Wire()
    wire.now = 5.0
    wire.core.opened()
    wire.say("OK next=1 max_frame=9 time=2026-11-25T22:00:00.123456Z")
    assert (wire.core.time, wire.core.entered) == ("2026-11-25T22:00:00.123456Z", 5.0)


def test_msgpack() -> None:
    core = make_core(dialect="msgpack")
    core.offer(core.encode({"t": 1}))
    core.opened()
    auth = pack({"auth": "PLAIN", "data": b"\0a\0t", "ack": "durable"})
    assert core.data_to_send() == auth
    core.took(len(auth))
    core.receive(pack({"ok": {"next": 5, "max_frame": 9}}), 0)
    assert core.data_to_send() == pack({"t": 1})
    core.receive(pack({"ack": 5}), 0)
    assert core.is_settled


def test_scram_before_any_frame() -> None:
    core = make_core(mechanism="SCRAM-SHA-256")
    core.offer(core.encode("frame"))
    core.opened()
    assert core.data_to_send().startswith(b"AUTH SCRAM-SHA-256 ")
    core.took(len(core.data_to_send()))
    assert core._scram is not None
    challenge = f"r={core._scram._nonce}x,s=AAAA,i=4096".encode()
    core.receive(b"+ %b\n" % b64encode(challenge), 0)
    core.took(len(core.data_to_send()))
    with pytest.raises(AuthenticationError, match="signature"):
        core.receive(b"OK data=%b next=1 max_frame=9\n" % b64encode(b"v=AAAA"), 0)
    assert core.data_to_send() == b"", "nothing is sent to an impostor"


# Any order of things


class Listener:
    """A model of the server: it stores what it is sent, and forgets half a line when cut."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.rest = b""

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.stored += lines


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 9)),
        st.tuples(st.just("move"), st.integers(1, 30)),
        st.tuples(st.just("ack"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.integers(0, 30)),
        st.tuples(st.just("refuse"), st.just(0)),
    ),
    max_size=80,
)


@given(STEPS, st.sampled_from(["wait", "drop-oldest", "drop-newest"]), st.integers(1, 8))
def test_frames_are_stored_once_and_in_order_whatever_happens(
    steps: list[tuple[str, int]], full: str, limit: int
) -> None:
    wire, listener, count = Wire(limit, full=full), Listener(), 0
    taken: list[bytes] = []

    def connect() -> None:
        listener.rest = b""
        wire.core.opened()
        wire.core.took(len(wire.core.data_to_send()))
        following = len(listener.stored) + 1
        wire.core.receive(b"OK next=%d max_frame=100\n" % following, 0)

    for step, argument in steps:
        if step == "send":
            for _ in range(argument):
                frame = f"frame {count}"
                count += 1
                if wire.send(frame) == [True]:
                    taken.append(frame.encode())
        elif wire.core.phase is not Phase.OPEN:
            connect()
        elif step == "move":
            data = bytes(wire.core.data_to_send()[:argument])
            wire.core.took(len(data))
            listener.take(data)
        elif step == "ack":
            seq = min(wire.core.queue.acknowledged + argument, len(listener.stored))
            wire.core.receive(b"ACK %d\n" % seq, 0)
        elif step == "cut":
            data = bytes(wire.core.data_to_send()[:argument])
            wire.core.took(len(data))  # the system had taken it, and some of it has arrived
            listener.take(data[: argument // 2])
            wire.lose()
    for _ in range(3):
        if wire.core.phase is not Phase.OPEN:
            connect()
        listener.take(wire.drain())
        wire.core.receive(b"ACK %d\n" % len(listener.stored), 0)
    assert wire.core.is_settled
    assert not any(isinstance(event, OutOfStep) for event in wire.take_events())
    dropped = wire.core.queue.dropped
    # A frame that was dropped while it was on its way may be stored all the same.
    assert len(taken) - dropped <= len(listener.stored) <= len(taken)
    order = {frame: place for place, frame in enumerate(taken)}
    places = [order[frame] for frame in listener.stored]
    assert places == sorted(set(places))
    if full == "wait":
        assert listener.stored == taken
