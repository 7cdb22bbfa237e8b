"""Syslog over TCP: messages and their two framings."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.record import parse
from ingest.wire.conversation import Claim, Ended, Standing
from ingest.wire.errors import ErrorCode
from ingest.wire.options import OptionError, Options
from ingest.wire.syslog.framing import make_converse
from tests.wire.forward.peer import ELSEWHERE, LOCAL, Client
from tests.wire.streams import bytewise, cut, cuts

BY_HOST = make_converse(Options({"networks": ["192.0.2.0/24"], "unregistered": "accept"}))
NAMED = make_converse(Options({"device": "syslog"}))


def read(*pieces: bytes, close: bool = True, max_frame: int = 65536) -> Client:
    client = Client(NAMED, max_frame=max_frame)
    client.receive(*pieces)
    if close:
        client.close_side()
    return client


def records(client: Client) -> list[dict[str, Any]]:
    for line in client.log.lines:
        parse(line)
    return [orjson.loads(line) for line in client.log.lines]


def raws(client: Client) -> list[str]:
    return [record["data"]["raw"] for record in records(client)]


MESSAGES: dict[str, tuple[bytes, str | None, dict[str, Any]]] = {
    "RFC 5424, example 1": (
        b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - "
        b"\xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8",
        "2003-10-11T22:14:15.003000Z",
        {"facility": 4, "severity": 2, "host": "mymachine.example.com", "app": "su",
         "msgid": "ID47", "message": "'su root' failed for lonvick on /dev/pts/8"},
    ),
    "RFC 5424, example 2": (
        b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
        "2003-08-24T12:14:15.000003Z",
        {"facility": 20, "severity": 5, "host": "192.0.2.1", "app": "myproc", "procid": "8710",
         "message": "%% It's time"},
    ),
    "RFC 5424, example 4": (
        b'<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" '
        b'eventSource="Application"][examplePriority@32473 class="high"]',
        "2003-10-11T22:14:15.003000Z",
        {"facility": 20, "severity": 5, "host": "h", "app": "evntslog", "msgid": "ID47",
         "structured": {"exampleSDID@32473": {"iut": "3", "eventSource": "Application"},
                        "examplePriority@32473": {"class": "high"}}},
    ),
    "escapes, and one name several times": (
        b'<0>1 - - - - - [a b="\\"\\\\\\]\\n" c="1" c="2" c="3"][d] x',
        None,
        {"facility": 0, "severity": 0,
         "structured": {"a": {"b": '"\\]\\n', "c": ["1", "2", "3"]}, "d": {}}, "message": "x"},
    ),
    "nothing but a version": (b"<191>1 - - - - - -", None, {"facility": 23, "severity": 7}),
    "an element twice": (
        b"<13>1 - - - - - [a][a] x", None,
        {"facility": 1, "severity": 5, "raw": "<13>1 - - - - - [a][a] x"},
    ),
    "half an element": (
        b'<13>1 - - - - - [a b="] x', None,
        {"facility": 1, "severity": 5, "raw": '<13>1 - - - - - [a b="] x'},
    ),
    "a month 19": (
        b"<13>1 2003-19-11T22:14:15Z - - - - - x", None,
        {"facility": 1, "severity": 5, "message": "x", "timestamp": "2003-19-11T22:14:15Z"},
    ),
    "names that look like our own": (
        b'<13>1 - - - - - [$binary $date="c"] x', None,
        {"facility": 1, "severity": 5,
         "structured": {"$map": [["$binary", {"$map": [["$date", "c"]]}]]}, "message": "x"},
    ),
    "RFC 3164": (
        b"<34>Oct 11 22:14:15 mymachine su[12]: 'su root' failed", None,
        {"facility": 4, "severity": 2, "timestamp": "Oct 11 22:14:15", "host": "mymachine",
         "app": "su", "procid": "12", "message": "'su root' failed"},
    ),
    "RFC 3164 without a host, and a word with a colon behind the tag": (
        b"<34>Oct 11 22:14:15 sshd[12]: error: no route", None,
        {"facility": 4, "severity": 2, "raw": "<34>Oct 11 22:14:15 sshd[12]: error: no route"},
    ),
    "RFC 3164 with a year": (
        b"<34>Oct 11 22:14:15 2003 su: failed", None,
        {"facility": 4, "severity": 2, "raw": "<34>Oct 11 22:14:15 2003 su: failed"},
    ),
    "RFC 3164 with a year, without a host": (
        b"<187>Oct 11 22:14:15 2003: %LINK-3-UPDOWN: down", None,
        {"facility": 23, "severity": 3, "raw": "<187>Oct 11 22:14:15 2003: %LINK-3-UPDOWN: down"},
    ),
    "RFC 3164 with an address for a host": (
        b"<34>Oct 11 22:14:15 2001:db8::1 su: failed", None,
        {"facility": 4, "severity": 2, "timestamp": "Oct 11 22:14:15", "host": "2001:db8::1",
         "app": "su", "message": "failed"},
    ),
    "RFC 3164 with a time of RFC 3339": (
        b"<30>2026-11-22T12:39:00.5+01:00 web systemd: Started x:y", "2026-11-22T11:39:00.500000Z",
        {"facility": 3, "severity": 6, "host": "web", "app": "systemd", "message": "Started x:y"},
    ),
    "a host or a tag that is not certain": (
        b"<34>Oct 11 22:14:15 something happened", None,
        {"facility": 4, "severity": 2, "raw": "<34>Oct 11 22:14:15 something happened"},
    ),
    "a priority and a text": (
        b"<13>hello", None, {"facility": 1, "severity": 5, "raw": "<13>hello"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("message", "time", "data"), MESSAGES.values(), ids=MESSAGES)
def test_messages(message: bytes, time: str | None, data: dict[str, Any]) -> None:
    for stream in (message + b"\n", b"%d %b" % (len(message), message), message):
        (record,) = records(read(stream))
        assert record["data"] == data
        assert list(record["data"]) == list(data)
        assert record.get("event_time") == time


@pytest.mark.parametrize("message", ["hello", "<192>x", "<01>x", "<>x", "<1x", "é"])
def test_a_message_without_a_priority_is_text(message: str) -> None:
    (record,) = records(read(message.encode() + b"\n"))
    assert record["text"] == message


def test_a_message_that_is_not_utf_8_is_raw() -> None:
    (record,) = records(read(b"<13>\xff\n"))
    assert record["raw"] == "PDEzPv8="


def test_a_backslash_before_a_line_end_in_structured_data() -> None:
    message = b'<13>1 - - - - - [a b="one\\\ntwo" c="3"] x'
    (record,) = records(read(b"%d %b" % (len(message), message)))
    assert record["data"]["structured"] == {"a": {"b": "one\\\ntwo", "c": "3"}}


STREAM = (
    b"<1>a\n"
    b"5 <1>\nb"  # a LF within a counted message
    b"<1>c\r\n\n"
    b"4 <1>d4 <1>e\n0 "
    b"<1>f\0\n"
    b"<1>as Python's handler ends it\0<1>and again\0"
    b"5 <1>\0b"  # a NUL within a counted message
    b"12x no count\n"
    b"5 <1>g\n6 <1>g\r\n5 <1>g\0"  # a LF, CRLF or NUL that is counted
    b"<1>h"
)
FRAMES = [
    *("<1>a", "<1>\nb", "<1>c", "<1>d", "<1>e", "<1>f"),
    *("<1>as Python's handler ends it", "<1>and again", "<1>\0b", "12x no count"),
    *(3 * ("<1>g",)),
    "<1>h",
]


def found(client: Client) -> list[str]:
    return [record["data"]["raw"] if "data" in record else record["text"]
            for record in records(client)]  # fmt: skip


def test_both_framings_whole_and_byte_by_byte() -> None:
    assert found(read(STREAM)) == FRAMES
    assert found(read(*bytewise(STREAM))) == FRAMES
    assert found(read(STREAM, close=False)) == FRAMES[:-1]


@given(cuts)
def test_both_framings_in_any_pieces(where: list[int]) -> None:
    assert found(read(*cut(STREAM, where))) == FRAMES


ends = st.sampled_from([b"\n", b"\0", b"\r\n", b"\0\n", b""])


@given(st.lists(st.tuples(st.binary(max_size=20), ends)), cuts)
def test_any_frames_in_any_pieces(frames: list[tuple[bytes, bytes]], where: list[int]) -> None:
    stream = b""
    expected = 0
    for body, end in frames:
        line = b"<1>" + body.translate(None, b"\n\r\0")
        stream += line + end if end else b"%d %b" % (len(line), line)
        expected += 1
    assert read(*cut(stream, where)).log.last == expected


@pytest.mark.parametrize("framing", ["line", "counted"])
@pytest.mark.parametrize("extra", [0, 1])
def test_the_largest_frame(framing: str, extra: int) -> None:
    message = b"<1>" + b"x" * (97 + extra)
    stream = message + b"\n" if framing == "line" else b"%d %b" % (len(message), message)
    for pieces in ([b"<1>a\n" + stream], bytewise(b"<1>a\n" + stream)):
        client = read(*pieces, close=False, max_frame=100)
        assert client.log.last == 2 - extra
        if extra:
            error = client.ended[0].error
            assert error is not None and error.code is ErrorCode.FRAME_TOO_LONG


@pytest.mark.parametrize(
    "stream", [b"1000000000 x", b"99999999999", b"9" * 5000, b"9" * 5000 + b" ", b"x" * 102]
)
def test_what_is_too_long(stream: bytes) -> None:
    for pieces in ([stream], bytewise(stream)):
        client = read(*pieces, close=False, max_frame=100)
        error = client.ended[0].error
        assert error is not None and error.code is ErrorCode.FRAME_TOO_LONG


@pytest.mark.parametrize("stream", [b"5 <1>a", b"5 ", b"5"])
def test_a_stream_that_ends_within_a_counted_message(stream: bytes) -> None:
    client = read(stream)
    assert client.log.last == 0
    error = client.ended[0].error
    assert error is not None and error.code is ErrorCode.BAD_FRAME


def test_a_stream_that_ends() -> None:
    assert read(b"<1>a\n").ended == [Ended(None)]
    assert read().ended == [Ended(None)]


def test_who_it_is() -> None:
    assert Client(NAMED, peer=LOCAL).claims == [Claim("syslog", Standing.REGISTERED, shared=True)]
    assert Client(BY_HOST, peer=ELSEWHERE).claims == [
        Claim("host-192.0.2.1", Standing.UNREGISTERED, shared=True)
    ]
    refused = Client(NAMED, peer=ELSEWHERE)
    assert refused.claims == [] and refused.ended[0].error is not None


def test_options_that_are_refused() -> None:
    with pytest.raises(OptionError, match="did you mean networks"):
        make_converse(Options({"network": "::/0"}))
