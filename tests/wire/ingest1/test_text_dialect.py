"""The text dialect: lines in, records out."""

from base64 import b64encode
from itertools import takewhile

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.ingest1.messages import MAX_HANDSHAKE, Auth, Response
from ingest.wire.ingest1.text_dialect import TextDialect
from tests.wire.streams import (
    FIRST,
    Read,
    block_of,
    bytewise,
    check,
    check_refused,
    cut,
    cuts,
    read,
    text,
)
from tests.wire.values import as_json

TRAILING = (b"la", b"st\n", b'"text":"last"')
LIMIT = 16


def field(line: bytes) -> bytes:
    """Write what the record of `line` has behind its number, in the plainest way."""
    try:
        return b'"text":' + as_json(line.decode())
    except UnicodeDecodeError:
        return b'"raw":"%b"' % b64encode(line)


def lines_of(stream: bytes) -> list[bytes]:
    """Split a stream into its frames, in the plainest way."""
    lines = stream.split(b"\n")
    return [bare for line in lines if (bare := line.removesuffix(b"\r"))]


def limited() -> TextDialect:
    return text(LIMIT)


@pytest.mark.parametrize(
    ("stream", "fields"),
    [
        (b"", []),
        (b"temp=20.5\n", [b'"text":"temp=20.5"']),
        (b"a\nb\nc\n", [b'"text":"a"', b'"text":"b"', b'"text":"c"']),
        (b"a\r\nb\r\n", [b'"text":"a"', b'"text":"b"']),
        (b"a\r\r\n", [b'"text":"a\\r"']),  # one CR is dropped, not all
        (b"a\rb\n", [b'"text":"a\\rb"']),
        (b"\n", []),
        (b"\r\n", []),
        (b"\n\n\r\n\n", []),
        (b"\n\na\n\n\nb\n\r\n", [b'"text":"a"', b'"text":"b"']),
        (b"\r\r\n", [b'"text":"\\r"']),
        (b" \n", [b'"text":" "']),
        (b'say "hi"\n', [b'"text":"say \\"hi\\""']),
        (b"C:\\new\n", [b'"text":"C:\\\\new"']),
        (b"\\\n\\n\n", [b'"text":"\\\\"', b'"text":"\\\\n"']),
        (b'"n\n"\\n\n', [b'"text":"\\"n"', b'"text":"\\"\\\\n"']),
        (b"\x00\x01\x1f\t\x7f\n", [b'"text":"\\u0000\\u0001\\u001f\\t\\u007f"']),
        ("\u2028\u2029\x85\u202e\n".encode(), [b'"text":"\\u2028\\u2029\\u0085\\u202e"']),
        (
            "é\x9b\x7f2J\né\n".encode(),
            ['"text":"é\\u009b\\u007f2J"'.encode(), '"text":"é"'.encode()],
        ),
        ("20 °C 🌡\n".encode(), ['"text":"20 °C 🌡"'.encode()]),
        (b"\xff\x00\xfe\n", [b'"raw":"/wD+"']),
        (b"a\n\xff\r\n\nb\n", [b'"text":"a"', b'"raw":"/w=="', b'"text":"b"']),
        (b"\xff\n\r\n", [b'"raw":"/w=="']),
        (b"\xed\xa0\x80\n", [b'"raw":"7aCA"']),  # a surrogate is not UTF-8
        (b"\xc3\n\xa4\n", [b'"raw":"ww=="', b'"raw":"pA=="']),  # a character cut by an LF
        (b'{"a":1}\n', [b'"text":"{\\"a\\":1}"']),
        (b"AUTH PLAIN\n", [b'"text":"AUTH PLAIN"']),
    ],
)
def test_records(stream: bytes, fields: list[bytes]) -> None:
    check(text, stream, fields, trailing=TRAILING)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_of_exactly_the_limit_is_a_frame(end: bytes) -> None:
    line = b"x" * LIMIT
    check(limited, line + end, [field(line)], trailing=TRAILING)
    check(limited, b"a\n" + line + end + line + end, list(map(field, [b"a", line, line])),
          trailing=TRAILING)  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        b"x" * (LIMIT + 1) + b"\n",
        b"x" * (LIMIT + 1) + b"\r\n",
        b"x" * LIMIT + b"\r\r\n",
        b"x" * LIMIT + b"\rx",
        b"x" * (LIMIT + 1),
        b"\xff" * (LIMIT + 1) + b"\n",
        b"x" * 10 * LIMIT,
    ],
)
@pytest.mark.parametrize("before", [[], [b"a"], [b"a", b"\xff", b"x" * LIMIT]])
def test_a_longer_line_is_refused_and_the_lines_before_it_are_kept(
    before: list[bytes], line: bytes
) -> None:
    stream = b"".join(b"%b\r\n\n" % frame for frame in before) + line
    check_refused(limited, stream, list(map(field, before)), ErrorCode.FRAME_TOO_LONG)


def test_many_short_lines_in_one_read_may_exceed_the_limit_together() -> None:
    check(limited, b"abc\n" * LIMIT, [b'"text":"abc"'] * LIMIT, trailing=TRAILING)


@pytest.mark.parametrize(
    ("stream", "fields"),
    [
        (b"", []),
        (b"a\n", [b'"text":"a"']),
        (b"a\nlast", [b'"text":"a"', b'"text":"last"']),
        (b"last\r", [b'"text":"last"']),
        (b"\r", []),
        (b"a\n\xff", [b'"text":"a"', b'"raw":"/w=="']),
        (b"x" * LIMIT, [field(b"x" * LIMIT)]),
        (b"x" * LIMIT + b"\r", [field(b"x" * LIMIT)]),
    ],
)
def test_the_end_of_the_stream_completes_the_last_line(stream: bytes, fields: list[bytes]) -> None:
    expected = Read(block_of(fields), len(fields))
    assert read(limited(), [stream] if stream else [], closed=True) == expected
    assert read(limited(), bytewise(stream), closed=True) == expected


_PIECES = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"\\",
        b"\\n",
        b'"',
        b"\0",
        b"\x1f",
        b"\xff",
        b"\xc3",
        b"\xa4",
        b"a",
        b" ",
        "\u2028".encode(),
        "ä".encode(),
    ]
)
_STREAMS = st.lists(st.one_of(_PIECES, st.binary(max_size=4)), max_size=40).map(b"".join)


@given(_STREAMS, cuts)
def test_any_split_of_any_stream_gives_the_same_records(stream: bytes, places: list[int]) -> None:
    frames = lines_of(stream)
    expected = Read(block_of(map(field, frames)), len(frames))
    assert read(text(), cut(stream, places), closed=True) == expected


@given(_STREAMS, cuts)
def test_any_split_finds_the_same_long_line(stream: bytes, places: list[int]) -> None:
    frames = lines_of(stream)
    kept = list(takewhile(lambda frame: len(frame) <= LIMIT // 2, frames))
    records = read(text(LIMIT // 2), cut(stream, places), closed=True)
    assert records[:2] == (block_of(map(field, kept)), len(kept))
    assert (records.error is None) == (len(kept) == len(frames))


@given(_STREAMS)
def test_the_records_hold_what_was_sent(stream: bytes) -> None:
    lines = read(text(), [stream], closed=True).block.splitlines() if stream else []
    assert len(lines) == len(lines_of(stream))
    for seq, (line, frame) in enumerate(zip(lines, lines_of(stream), strict=True), FIRST):
        record = orjson.loads(line)
        assert list(record)[:3] == ["time", "device", "seq"]
        assert record["seq"] == seq
        assert ("text" in record) == (field(frame)[:6] == b'"text"')


def auth(line: bytes) -> Auth | None:
    """Parse a first message whole, byte by byte and with frames behind it."""
    results = [text().auth(line)]
    dialect = text()
    results += [dialect.auth(piece) for piece in bytewise(line)][-1:]
    dialect = text()
    results.append(dialect.auth(line + b"temp=20.5\ntemp="))
    assert dialect.unread() == b"temp=20.5\ntemp="
    assert dialect.unread() == b""
    assert results.count(results[0]) == len(results)
    return results[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"AUTH PLAIN AGEAYg==\n", Auth("PLAIN", b"\0a\0b")),
        (b"AUTH PLAIN AGEAYg==\r\n", Auth("PLAIN", b"\0a\0b")),
        (b"AUTH PLAIN AGEAYg== ack=durable\n", Auth("PLAIN", b"\0a\0b")),
        (b"AUTH PLAIN AGEAYg== ack=none\n", Auth("PLAIN", b"\0a\0b", wants_acks=False)),
        (b"AUTH PLAIN\n", Auth("PLAIN", b"")),
        (b"AUTH PLAIN ack=none\n", Auth("PLAIN", b"", wants_acks=False)),
        (b"AUTH  SCRAM-SHA-256   YQ==\n", Auth("SCRAM-SHA-256", b"a")),
    ],
)
def test_auth(line: bytes, expected: Auth) -> None:
    assert auth(line) == expected


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b" \n", ErrorCode.AUTH_REQUIRED),
        (b"temp=20.5\n", ErrorCode.AUTH_REQUIRED),
        (b"auth PLAIN YQ==\n", ErrorCode.AUTH_REQUIRED),
        (b"GET / HTTP/1.1\r\n", ErrorCode.AUTH_REQUIRED),
        (b"AUTH\n", ErrorCode.BAD_FRAME),
        (b"AUTH PLAIN !\n", ErrorCode.BAD_FRAME),
        (b"AUTH PLAIN YQ\n", ErrorCode.BAD_FRAME),
        (b"AUTH PLAIN Y Q==\n", ErrorCode.BAD_FRAME),
        (b"AUTH PLAIN YQ== ack=later\n", ErrorCode.BAD_FRAME),
        (b"AUTH PLAIN YQ== colour=red\n", ErrorCode.BAD_FRAME),
    ],
)
def test_a_bad_first_line(line: bytes, code: ErrorCode) -> None:
    for pieces in ([line], bytewise(line), [line + b"temp=20.5\n"]):
        with pytest.raises(PeerError) as caught:
            _feed_auth(text(), pieces)
        assert caught.value.code is code
        assert "\n" not in caught.value.text


def _feed_auth(dialect: TextDialect, pieces: list[bytes]) -> None:
    for piece in pieces:
        dialect.auth(piece)


def test_http_is_told_what_this_port_is() -> None:
    with pytest.raises(PeerError, match="HTTP"):
        text().auth(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")


def test_a_proxy_is_told_what_this_port_is() -> None:
    with pytest.raises(PeerError, match="PROXY"):
        text().auth(b"PROXY TCP4 192.0.2.7 192.0.2.1 50123 7650\r\nAUTH PLAIN AAAA\n")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_first_line_may_have_as_many_bytes_as_the_limit(end: bytes) -> None:
    line = b"AUTH PLAIN ".ljust(MAX_HANDSHAKE, b"A")
    for pieces in ([line + end], bytewise(line + end)):
        with pytest.raises(PeerError, match="base64"):  # it was read, and is 4,085 characters
            _feed_auth(text(), pieces)
    for pieces in ([line + b"A" + end], bytewise(line + b"A"), [line + b"\r\r"]):
        with pytest.raises(PeerError) as caught:
            _feed_auth(text(), pieces)
        assert caught.value.code is ErrorCode.FRAME_TOO_LONG


def test_frames_behind_the_first_line_do_not_count_as_its_bytes() -> None:
    dialect = text()
    assert dialect.auth(b"AUTH PLAIN\n" + b"y" * 2 * MAX_HANDSHAKE) == Auth("PLAIN", b"")


def test_response() -> None:
    dialect = text()
    assert dialect.response(b"YWJ") is None
    assert dialect.response(b"j\r\nframe") == Response(b"abc")
    assert dialect.unread() == b"frame"
    with pytest.raises(PeerError, match="base64"):
        text().response(b"*\n")


def test_messages_of_the_server() -> None:
    dialect = text()
    assert dialect.ok("d", Grant(43, b"T"), 65536, None) == (
        b"OK device=d next=43 max_frame=65536 time=T\n"
    )
    assert dialect.ok("d", Grant(1, b"T"), 10, b"v=x") == (
        b"OK data=dj14 device=d next=1 max_frame=10 time=T\n"
    )
    assert dialect.challenge(b"r=x") == b"+ cj14\n"
    assert dialect.ack(42) == b"ACK 42\n"
    error = PeerError(ErrorCode.IDLE_TIMEOUT, "nothing for 10 minutes")
    assert dialect.error(error) == b"ERR idle-timeout nothing for 10 minutes\n"
