"""The parts of a compiled expression: closures over a sample, with what is known of them before."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import re2

from ingest.watch.fields import Field
from ingest.watch.rules.syntax import ExpressionError

SECOND: Final = 1_000_000
"""Times are whole microseconds since 1970."""

_QUIETLY: Final = re2.Options()
_QUIETLY.log_errors = False


@dataclass(slots=True)
class Sample:
    """What an expression is evaluated over.

    Attributes:
        time: of the record, or the moment between records that is looked at, in microseconds.
        device: the device's name.
        seq: the record's number.
        tag: the record's tag; None if it has none.
        text: what the device wrote, if it is a text.
        fields: those of the record; empty between records.
        known: each tracked field's newest value before this record, and when it came.
    """

    time: int
    device: str
    seq: float | None = None
    tag: str | None = None
    text: str | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    known: Mapping[str, tuple[int, Field]] = field(default_factory=dict)


Value: TypeAlias = Field | None
Run: TypeAlias = Callable[[Sample], Value]
Kind: TypeAlias = type[float] | type[str] | type[bool] | None
"""What a value is known to be before any record is there; None if only a record will tell."""


@dataclass(frozen=True)
class Node:
    """A part of an expression.

    Attributes:
        run: returns its value.
        kind: of its value.
        needs: as in `Expression`.
        constant: its value, if that is written there.
        field: the field of the record, if it is one and nothing more.
        age: the field, if it is `age(field)`.
    """

    run: Run
    kind: Kind = None
    needs: frozenset[str] | None = None
    constant: Field | None = None
    field: str | None = None
    age: str | None = None


def kind_name(kind: Kind) -> str:
    return {float: "number", str: "text", bool: "condition", None: "value"}[kind]


def expect(kind: type[float] | type[str] | type[bool], node: Node) -> Node:
    if node.kind is not None and node.kind is not kind:
        raise ExpressionError(f"a {kind_name(node.kind)} stands where a {kind_name(kind)} must")
    return node


def constant(value: Field) -> Node:
    return Node(lambda _: value, type(value), constant=value)


def newest_of(sample: Sample, name: str) -> Value:
    known = sample.known.get(name)
    return None if known is None else known[1]


def rate_of(sample: Sample, name: str) -> Value:
    value, known = sample.fields.get(name), sample.known.get(name)
    if known is None or type(value) is not float or type(known[1]) is not float:
        return None
    seconds = (sample.time - known[0]) / SECOND
    return (value - known[1]) / seconds if seconds > 0 else None


def age_of(sample: Sample, name: str) -> Value:
    if name in sample.fields:
        return 0.0
    known = sample.known.get(name)
    return None if known is None else (sample.time - known[0]) / SECOND


def _both(left: Node, right: Node) -> frozenset[str] | None:
    """What two parts need together, when there is no value unless both have one."""
    return right.needs if left.needs is None else left.needs


def _either(left: Node, right: Node) -> frozenset[str] | None:
    """What two parts need together, when one of them may be enough."""
    return None if left.needs is None or right.needs is None else left.needs | right.needs


def logic(decides: bool, left: Node, right: Node) -> Node:
    """`||`, which true decides, or `&&`, which false decides."""
    first, second = left.run, right.run

    def run(sample: Sample) -> Value:
        one = first(sample)
        if one is decides:
            return decides
        other = second(sample)
        if other is decides:
            return decides
        return other if type(one) is type(other) is bool else None

    return Node(run, bool, _either(left, right))


def negation(node: Node) -> Node:
    inner = node.run

    def run(sample: Sample) -> Value:
        value = inner(sample)
        return not value if type(value) is bool else None

    return Node(run, bool, node.needs)


def choice(condition: Node, yes: Node, no: Node) -> Node:
    test, first, second = condition.run, yes.run, no.run

    def run(sample: Sample) -> Value:
        value = test(sample)
        if type(value) is not bool:
            return None
        return first(sample) if value else second(sample)

    kind = yes.kind if yes.kind is no.kind else None
    needs = _either(yes, no) if condition.needs is None else condition.needs
    return Node(run, kind, needs)


def equality(equal: bool, left: Node, right: Node) -> Node:
    first, second = left.run, right.run

    def run(sample: Sample) -> Value:
        one, other = first(sample), second(sample)
        if one is None or other is None:
            return None
        return (type(one) is type(other) and one == other) is equal

    if right.constant is not None and left.field is not None:
        return Node(_field_to_constant(equal, left.field, right.constant), bool, left.needs)
    return Node(run, bool, _both(left, right))


def _field_to_constant(equal: bool, name: str, constant: Field) -> Run:
    kind = type(constant)

    def run(sample: Sample) -> Value:
        value = sample.fields.get(name)
        return None if value is None else (type(value) is kind and value == constant) is equal

    return run


def ordering(compare: Callable[[Any, Any], bool], left: Node, right: Node) -> Node:
    if left.kind and right.kind and left.kind is not right.kind:
        raise ExpressionError(
            f"a {kind_name(left.kind)} can't be compared with a {kind_name(right.kind)}"
        )
    first, second, limit = left.run, right.run, right.constant

    def run(sample: Sample) -> Value:
        one, other = first(sample), second(sample)
        return compare(one, other) if type(one) is type(other) and one is not None else None

    # Nearly all conditions are like temp > 30, and a call costs as much as a comparison.
    if type(limit) is float and left.field is not None:
        return Node(_field_to_limit(compare, left.field, limit), bool, left.needs)
    return Node(run, bool, _both(left, right))


def _field_to_limit(compare: Callable[[Any, Any], bool], name: str, limit: float) -> Run:
    def run(sample: Sample) -> Value:
        value = sample.fields.get(name)
        return compare(value, limit) if type(value) is float else None

    return run


def addition(left: Node, right: Node) -> Node:
    for node in (left, right):
        if node.kind is bool:
            raise ExpressionError("a condition can't be added")
    first, second = left.run, right.run

    def run(sample: Sample) -> Value:
        one, other = first(sample), second(sample)
        if isinstance(one, str) and isinstance(other, str):
            return one + other
        if type(one) is float and type(other) is float:
            return one + other
        return None

    return Node(run, left.kind or right.kind, _both(left, right))


def arithmetic(compute: Callable[[float, float], float], left: Node, right: Node) -> Node:
    first, second = left.run, right.run

    def run(sample: Sample) -> Value:
        one, other = first(sample), second(sample)
        return compute(one, other) if type(one) is float and type(other) is float else None

    return Node(run, float, _both(left, right))


def divide(left: float, right: float) -> float:
    """Divide as IEEE 754 does: by zero too."""
    if right:
        return left / right
    if not left or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def on_number(compute: Callable[[float], float], node: Node) -> Node:
    inner = node.run

    def run(sample: Sample) -> Value:
        value = inner(sample)
        return compute(value) if type(value) is float else None

    if type(node.constant) is float:
        return constant(compute(node.constant))
    return Node(run, float, node.needs)


def membership(node: Node, choices: Collection[Field]) -> Node:
    inner, wanted = node.run, {(type(choice), choice) for choice in choices}

    def run(sample: Sample) -> Value:
        value = inner(sample)
        return None if value is None else (type(value), value) in wanted

    return Node(run, bool, node.needs)


def size_of(node: Node) -> Node:
    inner = node.run

    def run(sample: Sample) -> Value:
        value = inner(sample)
        return float(len(value)) if isinstance(value, str) else None

    return Node(run, float, node.needs)


def text_test(test: Callable[[str, str], bool], left: Node, right: Node) -> Node:
    first, second = left.run, right.run

    def run(sample: Sample) -> Value:
        one, other = first(sample), second(sample)
        return test(one, other) if isinstance(one, str) and isinstance(other, str) else None

    return Node(run, bool, _both(left, right))


def matching(node: Node, pattern: Node) -> Node:
    if not isinstance(pattern.constant, str):
        raise ExpressionError('.matches() takes a pattern in quotes: text.matches("err(or)?")')
    try:
        search = re2.compile(pattern.constant, _QUIETLY).search
    except re2.error as error:
        why = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ExpressionError(f"{pattern.constant!r} is no regular expression: {why}") from None
    return text_test(lambda text, _: search(text) is not None, node, pattern)


def conversion(convert: Callable[[Field], Value], kind: Kind, node: Node) -> Node:
    inner = node.run

    def run(sample: Sample) -> Value:
        value = inner(sample)
        return None if value is None else convert(value)

    return Node(run, kind, node.needs)


def to_number(value: Field) -> Value:
    try:
        return None if isinstance(value, bool) else float(value)
    except ValueError:
        return None


def to_text(value: Field) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.17g}"
