"""What an expression says, as a tree: Google's library parses, this module reads its answer.

The library hands its tree out as the message `cel.expr.ParsedExpr` of Protocol Buffers
(https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto). Its wire format
(https://protobuf.dev/programming-guides/encoding/) takes a few lines to read.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cel_expr_python import cel

from ingest.watch.fields import Field

_PARSER = cel.NewEnv()
_WHERE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


class ExpressionError(ValueError):
    """An expression that is none, or says what rules have no use for; the text is for people."""


@dataclass(frozen=True)
class Constant:
    """`30`, `"open"`, `true`; a number is a double, however it is written."""

    value: Field


@dataclass(frozen=True)
class Name:
    """`temp`."""

    name: str


@dataclass(frozen=True)
class Select:
    """`operand.name`, or `has(operand.name)` if it is a test."""

    operand: "Expr"
    name: str
    test: bool = False


@dataclass(frozen=True)
class Call:
    """`name(arguments)` or `target.name(arguments)`; an operator is called `_>_`."""

    name: str
    target: "Expr | None"
    arguments: Sequence["Expr"]


@dataclass(frozen=True)
class List:
    """`[elements]`."""

    elements: Sequence["Expr"]


Expr: TypeAlias = Constant | Name | Select | Call | List

_Message: TypeAlias = Mapping[int, Sequence[bytes | int]]


def parse(source: str) -> Expr:
    """Parse an expression.

    Raises:
        ExpressionError: it is none, or has maps, bytes, `null` or a macro other than `has` in it.
    """
    try:
        parsed = _PARSER.compile(source, disable_check=True).serialize()
    except RuntimeError as error:
        raise ExpressionError(_in_words(str(error))) from None
    # google.protobuf.Any: the message is field 2. ParsedExpr: the tree is field 2.
    return _expr(_message(_first(_message(_first(_message(parsed), 2)), 2)))


def _in_words(error: str) -> str:
    if "recursion" in error:
        return "it is nested more than 32 levels deep: make several rules of it"
    found = _WHERE.search(error)
    if found is None:
        return error
    line, column, reason = found.groups()
    place = f"column {column}" if line == "1" else f"its line {line}, column {column}"
    if "token recognition" in reason:
        reason += ': a field of any name is written fields["any name"]'
    if "has() argument" in reason:
        reason += ": write has(fields.temp)"
    return f"at {place}: {reason}"


def _expr(message: _Message) -> Expr:
    """Read an `Expr`; which field it has says what it is."""
    for number in (3, 4, 5, 6, 7):
        if number in message:
            inner = _message(_first(message, number))
            break
    else:
        raise ExpressionError("rules have no maps, and no macro but has()")
    match number:
        case 3:
            return _constant(inner)
        case 4:
            return Name(_text(inner, 1))
        case 5:
            return Select(_expr(_message(_first(inner, 1))), _text(inner, 2), 3 in inner)
        case 6:
            target = _expr(_message(_first(inner, 1))) if 1 in inner else None
            return Call(_text(inner, 2), target, _all(inner, 3))
    return List(_all(inner, 1))


def _constant(message: _Message) -> Constant:
    ((number, (value, *_)),) = message.items()
    match number, value:
        case 2, int():
            return Constant(bool(value))
        case 3, int():  # int64, in two's complement
            return Constant(float(value - (1 << 64) if value >> 63 else value))
        case 4, int():
            return Constant(float(value))
        case 5, bytes():
            return Constant(float(struct.unpack("<d", value)[0]))
        case 6, bytes():
            return Constant(value.decode())
    raise ExpressionError("rules have no null and no bytes: a value that is not there is no value")


def _all(message: _Message, number: int) -> list[Expr]:
    return [_expr(_message(part)) for part in message.get(number, ()) if isinstance(part, bytes)]


def _first(message: _Message, number: int) -> bytes:
    value = message[number][0]
    assert isinstance(value, bytes)
    return value


def _text(message: _Message, number: int) -> str:
    return _first(message, number).decode()


def _message(data: bytes) -> _Message:
    """Cut a message into its fields, by number; a varint is an int, all else is bytes."""
    fields: defaultdict[int, list[bytes | int]] = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: bytes | int
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 1:
                value, at = data[at : at + 8], at + 8
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case wire_type:
                raise AssertionError(f"CEL's tree has no field of wire type {wire_type}")
        fields[tag >> 3].append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
