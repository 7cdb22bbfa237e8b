"""A conversation with a device that only answers, without sockets and time."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Claim, Context, Ended, Event, Grant, Peer, Send, Standing, Wait
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError, bad_frame
from ingest.wire.framing import Frames
from ingest.wire.poll import REPLY, SILENCE, Ending, Poll, Question, Replies
from tests.wire.formats.test_formats import fields_of
from tests.wire.streams import bytewise, cut, cuts

LINE = Ending(until=b"\n")
PEER = Peer("192.0.2.1", 12345, encrypted=False, local=False)


def ask(ending: Ending = LINE, **more: Any) -> Poll:
    """Begin a conversation; the device is asked `Hello, IoT!`, and may take 5 s."""

    def no_keys(_: str) -> Any:
        raise AssertionError

    question = Question("boiler", b"Hello, IoT!", ending, 5.0, **more)
    return Poll(Context(PEER, 64, False, no_keys), question)


def granted(ending: Ending = LINE, line_format: str = "", **more: Any) -> Poll:
    """Begin a conversation that has its lease."""
    poll = ask(ending, **more)
    assert poll.begin() == (Claim("boiler", Standing.REGISTERED),)
    poll.granted(Grant(1, b"now", line_format))
    return poll


def feed(poll: Poll, pieces: Sequence[bytes], *, closed: bool = False) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        if not any(isinstance(event, Ended) for event in events):
            events += poll.receive(piece)
    if closed and not any(isinstance(event, Ended) for event in events):
        events += poll.end_of_stream()
    return events


def stored(events: Sequence[Event]) -> list[bytes]:
    """Return what the records of events have behind their numbers."""
    frames = [event for event in events if isinstance(event, Frames)]
    return [field for each in frames for field in fields_of(each.values)]


def test_it_asks_when_it_has_its_lease() -> None:
    poll = ask()
    assert poll.begin() == (Claim("boiler", Standing.REGISTERED),)
    assert list(poll.granted(Grant(1, b"now"))) == [Send(b"Hello, IoT!"), Wait(5.0, REPLY)]
    events = poll.receive(b"20.5\r\n")
    assert stored(events) == [b'"text":"20.5"']
    assert events[-1] == Ended(None, lingers=False)
    assert (poll.acknowledge(1), poll.farewell(bad_frame("")), poll.replies) == (b"", b"", 1)


CASES = [
    (LINE, b"20.5\r\n", b'"text":"20.5"'),
    (Ending(until=b"END"), b"a\nb END", b'"text":"a\\nb "'),
    (Ending(length=4), b"20.5", b'"text":"20.5"'),
    (Ending(length=4), b"\xff\n\r\n", b'"raw":"/woNCg=="'),
    (Ending(length=3), b"ab\r", b'"text":"ab\\r"'),
    (Ending(), b"20.5\r\n", b'"text":"20.5"'),
    (Ending(), b"a\r\nb\r\n", b'"text":"a\\r\\nb"'),
    (Ending(silence=0.2), b"20.5\n", b'"text":"20.5"'),
]


@pytest.mark.parametrize(("ending", "reply", "field"), CASES)
@given(places=cuts)
def test_how_replies_end(ending: Ending, reply: bytes, field: bytes, places: list[int]) -> None:
    closes = ending == Ending()
    for pieces in ([reply], bytewise(reply), cut(reply, places)):
        poll = granted(ending)
        events = feed(poll, pieces, closed=closes)
        if ending.silence:
            assert events == [Wait(0.2, SILENCE)] * len(pieces)
            events = list(poll.overdue(SILENCE))
        assert stored(events) == [field]
        assert events[-1] == Ended(None, lingers=False)


@pytest.mark.parametrize("ending", [LINE, Ending(length=3), Ending(silence=0.2), Ending()])
def test_no_reply_in_time(ending: Ending) -> None:
    poll = granted(ending)
    (event,) = poll.overdue(REPLY)
    assert isinstance(event, Ended) and event.error is not None
    assert (event.error.code, event.lingers) == (ErrorCode.IDLE_TIMEOUT, False)
    assert "within 5 s" in event.error.text
    assert poll.replies == 0


def test_a_reply_that_is_not_whole_in_time_is_none() -> None:
    poll = granted(Ending(length=3))
    assert poll.receive(b"ab") == ()
    assert stored(poll.overdue(REPLY)) == []
    assert poll.replies == 0


def test_bytes_that_never_stop_for_long_are_no_reply() -> None:
    """The silence that ends a reply comes on top of the time in which it must be whole."""
    poll = ask(Ending(silence=0.2))
    poll.begin()
    assert list(poll.granted(Grant(1, b"now")))[-1] == Wait(5.2, REPLY)
    assert feed(poll, [b"2"] * 26) == [Wait(0.2, SILENCE)] * 26
    assert stored(poll.overdue(REPLY)) == []
    assert poll.replies == 0


@pytest.mark.parametrize(
    ("ending", "sent", "fields"),
    [
        (LINE, b"20.5", [b'"text":"20.5"']),
        (Ending(silence=0.2), b"20.5", [b'"text":"20.5"']),
        (Ending(length=5), b"20.5", []),
        (LINE, b"", []),
        (Ending(), b"", []),
    ],
)
def test_the_device_closes(ending: Ending, sent: bytes, fields: list[bytes]) -> None:
    poll = granted(ending)
    events = feed(poll, [sent] if sent else [], closed=True)
    assert stored(events) == fields
    assert (events[-1], poll.replies) == (Ended(None, lingers=False), len(fields))


@pytest.mark.parametrize("ending", [LINE, Ending(silence=0.2), Ending()])
def test_a_reply_that_is_too_long(ending: Ending) -> None:
    poll = granted(ending)
    events = feed(poll, [b"x" * 40] * 2)
    error = events[-1].error if isinstance(events[-1], Ended) else None
    assert error is not None and error.code is ErrorCode.FRAME_TOO_LONG
    assert stored(events) == []


def test_a_connection_that_stays() -> None:
    poll = granted(LINE, stays=True, line_format="json")
    events = [*poll.receive(b'{"a":1}\n\n{"a":'), *poll.receive(b"2}\nx\n")]
    assert stored(events) == [b'"data":{"a":1}', b'"data":{"a":2}', b'"text":"x"']
    assert [event for event in events if not isinstance(event, Frames)] == [Wait(None, REPLY)] * 2
    assert poll.replies == 4
    silent = granted(Ending(silence=0.2), stays=True)
    for _ in range(2):  # each reply has a time of its own, from its first byte on
        assert silent.receive(b"20.") == (Wait(0.2, SILENCE), Wait(5.2, REPLY))
        assert silent.receive(b"5") == (Wait(0.2, SILENCE),)
        frames, waits = silent.overdue(SILENCE)
        assert (stored([frames]), waits) == ([b'"text":"20.5"'], Wait(None, REPLY))
    fixed = granted(Ending(length=2), stays=True)
    assert stored(fixed.receive(b"aabbc")) == [b'"text":"aa"', b'"text":"bb"']
    assert stored(fixed.receive(b"c")) == [b'"text":"cc"']


def test_what_comes_behind_the_reply_is_none() -> None:
    assert stored(granted().receive(b"a\nb\n")) == [b'"text":"a"']


@pytest.mark.parametrize(
    ("reply", "field", "unparsed"),
    [
        (b'{\r\n  "a": 1\r\n}\r\n', b'"data":{"a":1}', 0),
        (b'{"a":\n', b'"text":"{\\"a\\":"', 1),
        (b'"a\nb"', b'"text":"\\"a\\nb\\""', 1),
    ],
)
def test_a_reply_of_several_lines_is_one_frame(reply: bytes, field: bytes, unparsed: int) -> None:
    for ending in (Ending(), Ending(length=len(reply))):
        poll = granted(ending, "json")
        events = feed(poll, [reply], closed=not ending.length)
        (frames,) = (event for event in events if isinstance(event, Frames))
        assert frames.unparsed == unparsed
        if not (unparsed and ending.length):
            assert fields_of(frames.values) == [field]


def test_the_format_of_the_registry_wins() -> None:
    assert stored(granted(LINE, "csv").receive(b"1,2\n")) == [b'"data":[1,2]']
    poll = granted(
        LINE,
        "opaque",
    )
    assert stored(poll.receive(b"1,2\n")) == [b'"text":"1,2"']


def test_it_can_be_ended_from_our_side() -> None:
    error = PeerError(ErrorCode.REVOKED, "gone")
    poll = granted()
    assert poll.fail(error) == (Ended(error, lingers=False),)
    with pytest.raises(IllegalStep):
        poll.fail(error)
    with pytest.raises(IllegalStep):
        poll.checked(good=True)


@given(
    ending=st.sampled_from([LINE, Ending(until=b"ab"), Ending(until=b"aa"), Ending(length=3)]),
    stream=st.lists(st.sampled_from([b"a", b"b", b"\n"])).map(b"".join),
    places=cuts,
)
def test_any_split_gives_the_same_replies(ending: Ending, stream: bytes, places: list[int]) -> None:
    whole = Replies(ending, 1000)
    expected = [*whole.take(stream), *whole.end()]
    for pieces in (bytewise(stream), cut(stream, places)):
        replies = Replies(ending, 1000)
        found = [reply for piece in pieces for reply in replies.take(piece)]
        assert [*found, *replies.end()] == expected
