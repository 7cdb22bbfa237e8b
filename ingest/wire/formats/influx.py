"""The line protocol of InfluxDB: `weather,place=roof temp=82i,hum=71.2 1465839830100400200`.

https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/
"""

import re
from typing import Any

from ingest.wire.formats.words import as_object, number

_NAME = r"(?:[^,= \\]|\\.)+"
_MEASUREMENT = re.compile(r"(?:[^, \\]|\\.)+")
_TAG = re.compile(rf",({_NAME})=({_NAME})")
_FIELD = re.compile(rf'({_NAME})=("(?:[^"\\]|\\.)*"|[^, "]+)')
_INTEGER = r"-?(?:0|[1-9][0-9]*)"
_STAMP = re.compile(rf" +({_INTEGER})")
_ESCAPED = re.compile(r"\\([,= ])")
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')
_WHOLE = re.compile(rf"({_INTEGER})([iu])")
_RANGES = {"i": range(-(1 << 63), 1 << 63), "u": range(1 << 64)}
_TRUTH = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


def parse(line: str) -> dict[str, Any]:
    """Read a line; of equal keys the last counts. What it has no tags or time of is left out.

    Raises:
        ValueError: it is not in the line protocol.
    """
    line = line.rstrip(" ")
    measurement = _MEASUREMENT.match(line)
    if measurement is None or line.startswith("#"):
        raise ValueError("a measurement is wanted")
    parsed: dict[str, Any] = {"measurement": _unescaped(measurement[0])}
    tags, at = _tags(line, measurement.end())
    if tags:
        parsed["tags"] = as_object(tags)
    space = len(line) - at - len(line[at:].lstrip(" "))
    fields, at = _fields(line, at + space) if space else ({}, at)
    if not fields:
        raise ValueError("a space and a field are wanted")
    parsed["fields"] = as_object(fields)
    if at < len(line):
        parsed["timestamp"] = _timestamp(line, at)
    return parsed


def _tags(line: str, at: int) -> tuple[dict[str, str], int]:
    tags = {}
    while tag := _TAG.match(line, at):
        tags[_unescaped(tag[1])] = _unescaped(tag[2])
        at = tag.end()
    return tags, at


def _fields(line: str, at: int) -> tuple[dict[str, Any], int]:
    fields: dict[str, Any] = {}
    while field := _FIELD.match(line, at):
        fields[_unescaped(field[1])] = _value(field[2])
        at = field.end()
        if not line.startswith(",", at):
            return fields, at
        at += 1
    raise ValueError("a field is wanted")


def _timestamp(line: str, at: int) -> int:
    stamp = _STAMP.fullmatch(line, at)
    if stamp is None:
        raise ValueError("a time is wanted")
    return _in_range(stamp[1], "i")


def _value(word: str) -> Any:
    if word.startswith('"'):
        return _ESCAPED_IN_STRING.sub(r"\1", word[1:-1])
    if word in _TRUTH:
        return _TRUTH[word]
    if whole := _WHOLE.fullmatch(word):
        return _in_range(whole[1], whole[2])
    found = number(word)
    if found is None:
        raise ValueError("a field is a number, a truth value or a string in quotes")
    return found


def _in_range(digits: str, kind: str) -> int:
    value = int(digits)
    if value not in _RANGES[kind]:
        raise ValueError("more than 64 bits")
    return value


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(r"\1", name) if "\\" in name else name
