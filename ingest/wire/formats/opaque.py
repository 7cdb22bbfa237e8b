"""Lines that nobody looks into: each is stored as `text`, or as `raw` where it is not UTF-8."""

from base64 import b64encode
from collections.abc import Iterable

import orjson

from ingest.record import NO_VALUES, Values, escape_steering, printable
from ingest.wire.framing import Frames

_DELETE = "\x7f"


def keep(whole: bytes) -> Frames:
    """Make the values of whole lines, each with its LF; an empty line has none."""
    try:
        text = whole.decode()
    except UnicodeDecodeError:
        return Frames(_mixed_values(whole))
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text[:-1]
    if _DELETE in lines:
        items = [printable(orjson.dumps(line)[1:-1]) for line in lines.split("\n")]
    else:
        # One call escapes all lines, and leaves DELETE as it is: so that is where they end.
        joined = orjson.dumps(lines.replace("\n", _DELETE))[1:-1]
        items = escape_steering(joined).split(b"\x7f")
    if b"" in items:
        items = list(filter(None, items))
    return Frames(Values(b',"text":"', items, b'"}\n') if items else NO_VALUES)


def lines_of(whole: bytes) -> list[bytes]:
    """Cut whole lines apart, without LF, CRLF and empty ones."""
    lines: Iterable[bytes] = (line.removesuffix(b"\r") for line in whole[:-1].split(b"\n"))
    return [line for line in lines if line]


def field(line: bytes) -> bytes:
    """Write what the record of a line has behind its number."""
    try:
        return b'"text":' + printable(orjson.dumps(line.decode()))
    except UnicodeDecodeError:
        return raw_field(line)


def raw_field(data: bytes) -> bytes:
    """Write the field of bytes that are no text."""
    return b'"raw":"%b"' % b64encode(data)


def _mixed_values(whole: bytes) -> Values:
    fields = [field(line) for line in lines_of(whole)]
    return Values(b",", fields, b"}\n") if fields else NO_VALUES
