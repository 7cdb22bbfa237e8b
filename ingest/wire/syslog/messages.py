"""Syslog messages (RFC 5424, RFC 3164): from their bytes to values of records.

    <34>1 2003-10-11T22:14:15.003Z web su - ID47 [a@1 b="c"] hello
    -> "event_time":"2003-10-11T22:14:15.003Z","data":{"facility":4,"severity":2,"host":"web",
       "app":"su","msgid":"ID47","structured":{"a@1":{"b":"c"}},"message":"hello"}

RFC 3164 describes what was seen in the field, and leaves open where a message's parts end. Where it
is not certain, `raw` holds the message as it came beside what is. A message without a priority is
`text`, and one that is not UTF-8 is `raw` in base64, as in `ingest/1`.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ingest.record import NO_VALUES, Values, printable
from ingest.wire.formats import opaque
from ingest.wire.formats.words import as_object

_BOM = "\ufeff"
_NIL = "-"
_PRIORITY = re.compile(r"<(0|[1-9][0-9]{0,2})>")
_MAX_PRIORITY = 191

_STAMP = (
    r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-2][0-9]:[0-5][0-9])"
)
_NAME = r'[^\x00-\x20\x7f="\]]{1,32}'
_PARAM = rf' {_NAME}="(?:[^"\\\]]|\\.)*"'
_ELEMENT = rf"\[{_NAME}(?:{_PARAM})*\]"
# RFC 5424, section 6.
_RFC_5424 = re.compile(
    rf"1 (-|{_STAMP}) ([!-~]{{1,255}}) ([!-~]{{1,48}}) ([!-~]{{1,128}}) ([!-~]{{1,32}})"
    rf" (-|(?:{_ELEMENT})+)(?: (.*))?",
    re.DOTALL,
)
_ELEMENTS = re.compile(rf"\[({_NAME})((?:{_PARAM})*)\]", re.DOTALL)
_PARAMS = re.compile(rf' ({_NAME})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')
# RFC 3164, section 4.1, as most send it; rsyslog writes the time of RFC 5424 there. Some leave out
# the host, and others write the year there: what ends in a colon or is a year is none.
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_RFC_3164 = re.compile(
    rf"({_STAMP}|(?:{_MONTHS}) [ 0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9])"
    r" (?![0-9]{4} )([!-~]{0,254}[!-9;-~]) ([^\s:\[\]]{1,48})(?:\[([^\s\]]{1,128})\])?:(?: (.*))?",
    re.DOTALL,
)


def without_end(message: bytes) -> bytes:
    """Take away what ends a line, where a message has a length and a client ends it all the same.

    LF, CRLF or NUL: what ends a message without a length, too.
    """
    if message.endswith((b"\n", b"\0")):
        return message[:-1].removesuffix(b"\r")
    return message


def values_of(messages: Sequence[bytes]) -> Values:
    """Make the values of messages; an empty one has none."""
    items = [_item(message) for message in messages if message]
    return Values(b",", items, b"}\n") if items else NO_VALUES


def _item(message: bytes) -> bytes:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return opaque.raw_field(message)
    priority = _PRIORITY.match(text)
    if priority is None or int(priority[1]) > _MAX_PRIORITY:
        return b'"text":' + printable(orjson.dumps(text))
    facility, severity = divmod(int(priority[1]), 8)
    data: dict[str, Any] = {"facility": facility, "severity": severity}
    begin = priority.end()
    if (match := _RFC_5424.fullmatch(text, begin)) and _read_5424(match, data):
        return _written(match[1], data)
    if match := _RFC_3164.fullmatch(text, begin):
        _read_3164(match, data)
        return _written(match[1], data)
    return _written("", data | {"raw": text})


def _read_5424(match: re.Match[str], data: dict[str, Any]) -> bool:
    """Add the parts of a message; tell whether they keep the rules."""
    names = ("host", "app", "procid", "msgid")
    parts = zip(names, match.groups()[1:5], strict=True)
    data.update((name, part) for name, part in parts if part != _NIL)
    structured: dict[str, Any] = {}
    for element, params in _ELEMENTS.findall(match[6]):
        if element in structured:  # RFC 5424, section 6.3.2
            return False
        structured[element] = _params(params)
    if structured:
        data["structured"] = as_object(structured)
    if match[7] is not None:
        data["message"] = match[7].removeprefix(_BOM)
    return True


def _params(text: str) -> dict[str, Any]:
    """Read the parameters of an element; one that is there several times has a list of values."""
    params: dict[str, Any] = {}
    for name, escaped in _PARAMS.findall(text):
        value = _ESCAPED.sub(r"\1", escaped)
        if name not in params:
            params[name] = value
        elif isinstance(params[name], list):
            params[name].append(value)
        else:
            params[name] = [params[name], value]
    return as_object(params)


def _read_3164(match: re.Match[str], data: dict[str, Any]) -> None:
    stamp, host, app, procid, message = match.groups()
    if stamp[0].isalpha():
        data["timestamp"] = stamp  # it has neither a year nor a time zone
    data["host"], data["app"] = host, app
    if procid is not None:
        data["procid"] = procid
    data["message"] = message or ""


def _written(stamp: str, data: dict[str, Any]) -> bytes:
    time = _utc(stamp)
    if not time and stamp[:1].isdigit():
        data["timestamp"] = stamp  # such as a 30th of February: kept as it came
    document = b'"data":' + printable(orjson.dumps(data))
    return b'"event_time":"%b",%b' % (time, document) if time else document


def _utc(stamp: str) -> bytes:
    """Write a time of RFC 3339 in UTC; empty if it is none."""
    if not stamp[:1].isdigit():
        return b""
    try:
        moment = datetime.fromisoformat(stamp).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # a month 19, say
        return b""
    return moment.isoformat().encode() + b"Z"
