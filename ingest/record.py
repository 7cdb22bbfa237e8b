"""The record: one line of JSON for each frame, and the one place that knows how it is spelled.

    {"time":"2026-11-22T11:39:00.123456Z","device":"sensor-1","seq":42,"text":"temp=20.5"}

Records are written and matched a block at a time. A block is what one read brought: whole lines.
No Python statement runs per line; slices, `join`, `split` and regular expressions do the work.

Between `seq` and the last key there may be, in this order, `event_time`, `tag` and `chunk`: what
protocols other than ours say of a frame. See `Record`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Literal, NamedTuple, cast

import orjson

from ingest.names import DEVICE_NAME

_RUN = 10_000
"""Numbers in a row that differ in their last four digits only."""
_LAST_DIGITS = [b"%04d" % number for number in range(_RUN)]
_SMALL = [b"%d" % number for number in range(_RUN)]


_STEERING = re.compile(rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""Characters beyond ASCII that steer a terminal: C1 controls (U+0080 to U+009F), line separators,
and what turns the direction of text (U+061C, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069).
"""


class Values(NamedTuple):
    """What the records of one read hold behind their numbers, as JSON.

    The worked example: `Values(b',"text":"', [b"a", b"b"], b'"}\\n')` are the frames `a` and `b`.

    Attributes:
        opening: what stands between the number and each item.
        items: one for each record: a JSON value, or what of it is not in `opening` and `closing`.
        closing: what ends each line, LF included.
    """

    opening: bytes
    items: Sequence[bytes]
    closing: bytes


NO_VALUES = Values(b"", (), b"")


def printable(document: bytes) -> bytes:
    """Escape in JSON what would steer a terminal that shows it: DEL, and `escape_steering`."""
    return escape_steering(document).replace(b"\x7f", b"\\u007f")


def escape_steering(document: bytes) -> bytes:
    """Escape in JSON the characters beyond ASCII that would steer a terminal, such as CSI (U+009B).

    `orjson` escapes those below U+0020. What a JSON reader makes of the document stays the same.
    """
    if document.isascii():
        return document
    # To replace one character everywhere is a call; a call for each match would cost a hundredfold.
    for character in set(_STEERING.findall(document)):
        document = document.replace(character, b"\\u%04x" % ord(character.decode()))
    return document


def record_block(time: bytes, device: bytes, first: int, values: Values) -> bytes:
    """Write one record for each of `values`.

    Args:
        time: when they were read, RFC 3339.
        device: whose they are.
        first: the number of the first record.
        values: at least one.
    """
    key, items, end = values
    prefix = b'{"time":"%b","device":"%b","seq":' % (time, device)
    count = len(items)
    if count == 1:
        return b"%b%d%b%b%b" % (prefix, first, key, items[0], end)
    begins: list[bytes] = []
    digits: list[bytes] = []
    while (left := count - len(digits)) > 0:
        run, low = divmod(first + len(digits), _RUN)
        digits += (_LAST_DIGITS if run else _SMALL)[low : low + left]
        begin = end + prefix + (b"%d" % run if run else b"")
        begins += [begin] * (len(digits) - len(begins))
    begins[0] = begins[0][len(end) :]
    # Of all ways to weave, to lay the parts out in one list is the fastest: no tuple, no bytes for
    # each line. Nor does a number take any: to slice a table beats to write them.
    parts = [key] * (4 * count)
    parts[::4] = begins
    parts[1::4] = digits
    parts[3::4] = items
    parts.append(end)
    return b"".join(parts)


KINDS = ("text", "data", "raw")
"""The keys of which a record has exactly one, as its last: what the device sent."""
_OPTIONAL_KEYS = ("event_time", "tag", "chunk")
KEYS = frozenset(
    ("time", "device", "seq", *extra, kind)
    for count in range(len(_OPTIONAL_KEYS) + 1)
    for extra in combinations(_OPTIONAL_KEYS, count)
    for kind in KINDS
)
"""The keys that a record may have, in their order."""

TIME_SPAN = slice(9, 36)
"""Where the time stands in a record."""

_NAME = DEVICE_NAME.encode()
_SECOND = rb"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"'  # of JSON, but for what an escape may be
_OPTIONAL = rb'(?:"event_time":"%b(?:\.[0-9]{1,9})?Z",)?(?:"tag":%b,)?(?:"chunk":%b,)?' % (
    _SECOND,
    _STRING,
    _STRING,
)

# A record but for two or three of its parts, which cost less to check apart: the second and the
# optional keys, since few differ, and the value, which has to be JSON. It takes the LF before the
# record, not the one after it: each LF begins one match at most, so as many matches as lines means
# that every line is a match. One pattern for both kinds of records would slow down the usual one.
_BEGIN = rb'\n\{"time":"([^"]{19})\.[0-9]{6}Z","device":"(%b)","seq":([1-9][0-9]{0,18}),' % _NAME
_VALUE = rb'"(?:text":(?=")|data":|raw":(?="[A-Za-z0-9+/]*={0,2}"\}\n))(.*)\}(?=\n)'
_PLAIN_RECORD = re.compile(_BEGIN + _VALUE)
_RECORD = re.compile(_BEGIN + b"(%b)" % _OPTIONAL + _VALUE)
_HEAD = re.compile(
    rb'(\{"time":"%b\.[0-9]{6}Z","device":"(%b)","seq":)([1-9][0-9]{0,17})(,"text":"|,"data":)'
    % (_SECOND, _NAME)
)
# These begin with a LF and a literal: the search then skips to the start of a line without trying
# each byte. No string within a record can hold a LF.
_NUMBERED = re.compile(rb'\n\{"time":"[^"\n]*","device":"(%b)","seq":([1-9][0-9]{0,18}),' % _NAME)
_CHUNK = re.compile(
    rb'\n\{"time":"[^"\n]*","device":"(%b)","seq":[1-9][0-9]{0,18},'
    rb'(?:"event_time":"[^"\n]*",)?(?:"tag":%b,)?"chunk":(%b),' % (_NAME, _STRING, _STRING)
)
_DATED = re.compile(
    rb'\n\{"time":"([^"\n]{19})[^"\n]{8}","device":"(%b)","seq":([1-9][0-9]{0,18}),' % _NAME
)
_ANY_TIME = re.compile(rb'\n\{"time":"([^"\n]{27})"')
_TIME = re.compile(rb'\n\{"time":"(%b\.[0-9]{6})Z"' % _SECOND)

is_second = re.compile(_SECOND).fullmatch
"""Matches `2026-11-22T11:39:00`."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        time: when the listener read it: UTC, RFC 3339, microseconds.
        device: who sent it.
        seq: its number among those of the device.
        kind: one of `KINDS`.
        value: what JSON makes of it: a str for `text`, base64 for `raw`, anything for `data`.
        line: the record as it stands in the log, without the LF.
        event_time: the time that the device or its collector gave: UTC, RFC 3339, up to nine
            digits of the second.
        tag: what the device's protocol calls so.
        chunk: the chunk in which a client of Fluent Forward sent it, and its place there: id, `/`
            and a number from 0 on.
    """

    time: str
    device: str
    seq: int
    kind: Literal["text", "data", "raw"]
    value: object
    line: bytes
    event_time: str | None = None
    tag: str | None = None
    chunk: str | None = None


def parse(line: bytes) -> Record:
    """Read one line of the log, without its LF.

    Raises:
        ValueError: it is not a record.
    """
    fields = orjson.loads(line)
    if not isinstance(fields, dict) or tuple(fields) not in KEYS:
        raise ValueError("not a record")
    kind, value = fields.popitem()
    return Record(kind=kind, value=value, line=line, **fields)


def record_time(moment: datetime) -> bytes:
    """Write an aware time as records do: `2026-11-22T11:39:00.123456Z`."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds").encode() + b"Z"


def first_time(block: bytes) -> datetime | None:
    """Return the time of the first line in a block that begins as a record; None without one."""
    match = _TIME.search(b"\n" + block)
    try:
        return None if match is None else datetime.fromisoformat(f"{match[1].decode()}+00:00")
    except ValueError:  # a month 19, say
        return None


def first_since(block: bytes, since: bytes) -> int | None:
    """Return where the first record in a block begins that has the time `since` or a later one."""
    lines = b"\n" + block
    if max(_ANY_TIME.findall(lines), default=b"") < since:
        return None
    return next(match.start() for match in _ANY_TIME.finditer(lines) if match[1] >= since)


def has_before(block: bytes, until: bytes) -> bool:
    """Tell whether a line in a block that begins as a record has a time before `until`."""
    return min(_ANY_TIME.findall(b"\n" + block), default=until) < until


def numbers_in(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return the device and the number of each line in a block that begins as a record."""
    return _NUMBERED.findall(b"\n" + block)


def chunks_in(block: bytes) -> list[tuple[str, str]]:
    """Return the device and the `chunk` of each line in a block that begins as a record with one.

    Of the records of one chunk that follow one another, the last one's.
    """
    if b'"chunk":' not in block:
        return []
    lines = _CHUNK.findall(b"\n" + block)
    last = {(device, chunk.rpartition(b"/")[0]): chunk for device, chunk in lines}
    return [(device.decode(), orjson.loads(chunk)) for (device, _), chunk in last.items()]


def dated_numbers_in(block: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return the second, the device and the number of each line that begins as a record.

    The second is as it is written, `2026-11-22T11:39:00`, and may be none.
    """
    return _DATED.findall(b"\n" + block)


def plain_records_in(block: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Take apart the lines of a block that are records without optional keys.

    Returns:
        For each its second, device, number and value. The caller checks that the second is one
        (`is_second`), and that the value is JSON.
    """
    return _PLAIN_RECORD.findall(b"\n" + block)


def records_in(block: bytes) -> list[tuple[bytes, bytes, bytes, bytes, bytes]]:
    """Take apart the lines of a block that are records; slower than `plain_records_in`.

    Returns:
        For each its second, device, number, optional keys and value. The optional keys are members
        of an object, each with a comma; the caller checks that they are JSON, too.
    """
    return _RECORD.findall(b"\n" + block)


def head_at(block: bytes, start: int) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Take apart the beginning of a record of text or data without optional keys.

    Returns:
        What stands before the number, the device in it, the number, and what stands between the
        number and the value; for text with the value's first quote. None for any other line.
    """
    match = _HEAD.match(block, start)
    return None if match is None else cast(tuple[bytes, bytes, bytes, bytes], match.groups())


def line_finder(device: str | None) -> "re.Pattern[bytes]":
    """Make a pattern whose `findall` finds the lines of a device in a LF and a block.

    Args:
        device: a pattern for its name; `*` is any characters, `?` is any one; None for all.
    """
    name = re.escape(device or "*").replace(r"\*", '[^"]*').replace(r"\?", '[^"]')
    return re.compile(rb'\n(\{"time":"[^"]{27}","device":"%b","seq":[0-9]+,.*)' % name.encode())
