"""The tables `[[dial]]` of the settings: devices that only answer."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any

from ingest.listener.dialer import Dial
from ingest.names import FORMATS, RULE, is_device_name, nearest
from ingest.units import parse_duration
from ingest.wire.poll import Ending, Question

_TIMEOUT = "5s"
_ENDINGS = ("until", "length", "silence", "close")
KEYS = (
    *("device", "connect", "send", "send-base64"),
    *_ENDINGS,
    *("every", "stay", "timeout", "format"),
)


class TableError(ValueError):
    """One of several tables makes no sense.

    Attributes:
        number: which one; the first is 1.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"table {number}, {text}")
        self.number = number


def parse_dials(tables: Any) -> tuple[Dial, ...]:
    """Read the tables.

    Raises:
        ValueError: one makes no sense; the text is one line that says which and what would.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("tables [[dial]] are wanted, one for each device")
    dials: dict[str, Dial] = {}
    for number, table in enumerate(tables, 1):
        device = table.get("device", "")
        try:
            dial = _parse(table)
            if device in dials:
                raise ValueError("the device has another table already")
        except ValueError as error:
            raise TableError(number, f"{device or 'without a device'}: {error}") from None
        dials[device] = dial
    return tuple(dials.values())


def parse_ending(table: Mapping[str, Any]) -> Ending:
    """Read how a reply ends.

    Raises:
        ValueError: it is said twice, not at all, or makes no sense.
    """
    given = [key for key in _ENDINGS if table.get(key, False) is not False]
    if len(given) != 1:
        raise ValueError(
            'how a reply ends is wanted, by one of until = "\\n", length = 12, silence = "200ms" or'
            f" close = true{', not ' + ' and '.join(given) if given else ''}"
        )
    (key,) = given
    value = table[key]
    if key == "until" and isinstance(value, str) and value:
        return Ending(until=value.encode())
    if key == "length" and type(value) is int and value > 0:
        return Ending(length=value)
    if key == "silence":
        return Ending(silence=_duration(key, value))
    if key == "close" and value is True:
        return Ending()
    raise ValueError(
        f"{key} = {value!r} makes no sense: until is some text, length a number of bytes from 1 on,"
        ' silence a duration such as "200ms", and close is true'
    )


def _parse(table: Mapping[str, Any]) -> Dial:
    for key in table:
        if key not in KEYS:
            close = nearest(key, KEYS)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(KEYS)}"
            raise ValueError(f"there is no {key!r}; {hint}")
    every = _every(table)
    question = Question(
        _device(table),
        _send(table),
        parse_ending(table),
        _duration("timeout", table.get("timeout", _TIMEOUT)),
        every is None,
        _format(table),
    )
    if every is None and "close" in table:
        raise ValueError("a connection that is to stay can't end a reply by close")
    return Dial(_connect(table), question, every)


def _device(table: Mapping[str, Any]) -> str:
    device = table.get("device")
    if not isinstance(device, str) or not is_device_name(device):
        raise ValueError(f"device = NAME is wanted, of {RULE}")
    return device


def _connect(table: Mapping[str, Any]) -> str:
    connect = table.get("connect")
    if not isinstance(connect, str):
        raise ValueError('connect = "tcp:192.0.2.1:12345" is wanted')
    return connect


def _send(table: Mapping[str, Any]) -> bytes:
    text, packed = table.get("send", ""), table.get("send-base64", "")
    if not isinstance(text, str) or not isinstance(packed, str) or (text and packed):
        raise ValueError("send is text, or send-base64 is base64, or neither is there")
    try:
        return text.encode() or b64decode(packed, validate=True)
    except Base64Error:
        raise ValueError(f"send-base64 = {packed!r} is not base64") from None


def _every(table: Mapping[str, Any]) -> float | None:
    stay = table.get("stay", False)
    if not isinstance(stay, bool) or stay == ("every" in table):
        raise ValueError('one of every = "10s" and stay = true is wanted')
    return None if stay else _duration("every", table["every"])


def _format(table: Mapping[str, Any]) -> str:
    name = table.get("format", FORMATS[0])
    if name not in FORMATS:
        raise ValueError(f"format = {name!r} is none of {', '.join(FORMATS)}")
    return str(name)


def _duration(key: str, value: object) -> float:
    try:
        seconds = parse_duration(value) if isinstance(value, str) else 0.0
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not seconds:
        raise ValueError(f'{key} = {value!r} is no duration such as "10s"')
    return seconds
