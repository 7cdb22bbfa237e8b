import math
from collections.abc import Mapping

import pytest
from cel_expr_python import cel
from hypothesis import given
from hypothesis import strategies as st

from ingest.watch.fields import Field
from ingest.watch.rules.expressions import compile_condition
from ingest.watch.rules.nodes import SECOND, Sample
from ingest.watch.rules.syntax import ExpressionError

READING: dict[str, Field] = {
    "temp": 31.0, "hum": 40.0, "door": "open", "on": True, "a.b": 2.0, "odd name": 1.0, "zero": 0.0,
}  # fmt: skip
BEFORE: dict[str, tuple[int, Field]] = {
    "temp": (90 * SECOND, 21.0), "door": (40 * SECOND, "shut"), "lost": (10 * SECOND, 5.0),
}  # fmt: skip


def value(
    source: str,
    fields: Mapping[str, Field] = READING,
    known: Mapping[str, tuple[int, Field]] = BEFORE,
) -> Field | None:
    sample = Sample(100 * SECOND, "cold-1", 7.0, "roof", "hello", fields, known)
    return compile_condition(source).evaluate(sample)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("temp > 30", True),
        ("temp > 31", False),
        ("30 < temp && 41 > hum", True),
        ("temp * 2 - 1 == 61", True),
        ("temp + hum >= 71.0", True),
        ("temp / zero > 1e9", True),
        ("-temp < -30", True),
        ("abs(-temp) == 31 && math.abs(temp - 32) == 1", True),
        ("!on", False),
        ("on", True),
        ("on ? temp > 40 : hum > 40", False),
        ('door == "open" && door != "shut"', True),
        ('door in ["open", "ajar"] && temp in [31, 32]', True),
        ('door.startsWith("op") && door.endsWith("en") && door.contains("pe")', True),
        ('door.matches("^o.*n$") && size(door) == 4 && door.size() == 4', True),
        ('device == "cold-1" && seq == 7 && tag == "roof" && text == "hello"', True),
        ("a.b == 2", True),
        ("fields.a.b == 2", True),
        ('fields["odd name"] == 1', True),
        ("has(fields.temp) && has(a.b) && !has(fields.lost)", True),
        ("has(previous.temp) && has(previous.lost) && !has(previous.hum)", True),
        ("previous.temp == 21", True),
        ('previous["door"] == "shut"', True),
        ("rate(temp) == 1", True),
        ("age(temp) <= 0", True),
        ("age(lost) >= 90 && !(age(lost) > 90)", True),
        ("60 < age(lost)", True),
        ('double("31.5") > temp && string(temp) == "31"', True),
        ("temp == 'open'", False),
    ],
)
def test_values(source: str, wanted: bool) -> None:
    assert value(source) is wanted


@pytest.mark.parametrize(
    "source",
    [
        "gone > 3", "gone == 3", "gone != 3", "!gone", "gone + 1 > 0", "gone in [1]",
        "gone ? true : true", "previous.hum > 1", "rate(hum) > 0", "rate(lost) > 0",
        "rate(door) > 0", "age(gone) > 1", "door > 3", "temp.contains('x')", "on > 1", "door && on",
        "-door > 1", 'double(door) > 1', "temp > 1 && gone > 1", "temp < 1 || gone > 1",
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_kind_has_no_value(source: str) -> None:
    assert value(source) is None


def test_one_side_may_decide() -> None:
    assert value("temp < 1 && gone > 1") is False
    assert value("gone > 1 && temp < 1") is False
    assert value("temp > 1 || gone > 1") is True
    assert value("gone > 1 || temp > 1") is True


def test_two_readings_of_one_moment_have_no_rate() -> None:
    assert value("rate(temp) > 0", known={"temp": (100 * SECOND, 1.0)}) is None


def test_no_text_makes_a_pattern_slow() -> None:
    """With backtracking, this takes 2 to the power of 60,000 steps."""
    text = "a" * 60_000 + "b"
    assert value('note.matches("^(a+)+$")', {"note": text}) is False


def test_division_is_that_of_doubles() -> None:
    zero: dict[str, Field] = {"x": 0.0, "minus": -0.0}
    assert value("1 / x > 1e300 && -1 / x < -1e300 && 1 / minus < -1e300", zero) is True
    assert value("x / x == x / x", zero) is False


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("temp >", "at column 7: Syntax error"),
        ("temp > 30\n && ", "its line 2"),
        ("temp", None),
        ("temp + 1", "this is a number; compare it: temp > 30"),
        ("'a'", "this is a text"),
        ("temp > 'a' + 'b' && 1 < 'x'", "a number can't be compared with a text"),
        ("has(temp)", "write has(fields.temp)"),
        ("temp % 2 == 0", "numbers are doubles"),
        ("rat(temp) > 1", "there is no rat() with 1 values; there are rate()"),
        ("rate(temp, 1) > 1", "there is no rate() with 2 values"),
        ("door.lower() == 'a'", "there is no .lower()"),
        ("rate(previous.temp) > 1", "rate() takes a field of the record: rate(temp)"),
        ("rate(1) > 1", "rate() takes a field"),
        ("age(temp) > temp", "compare age(temp) with a number of seconds"),
        ("age(temp) + 1 > 2", "compare age(temp) with a number: age(temp) > 600"),
        ("age(temp) == 600", "compare age(temp) with a number: age(temp) > 600"),
        ("fields > 1", "fields is no value by itself; write fields.temp"),
        ("previous", "previous is no value by itself"),
        ("fields[temp] > 1", 'fields["any name"]'),
        ("temp == null", "a value that is not there is no value"),
        ("b'x' == temp", "no bytes"),
        ("{'a': 1} == temp", "rules have no maps"),
        ("[1].exists(x, x > 1)", "no macro but has()"),
        ("[temp]", "a list stands behind `in` only"),
        ("temp in hum", "behind `in` stands a list of values"),
        ("temp in [hum]", "behind `in` stands a list of values"),
        ("!(temp + 1)", "a number stands where a condition must"),
        ("-'a' > 1", "a text stands where a number must"),
        ("door.matches(text)", "takes a pattern in quotes"),
        ("door.matches('(')", "'(' is no regular expression: missing )"),
        ("door.matches('(a)\\\\1')", "invalid escape sequence"),
        ("true + on", "a condition can't be added"),
        ("größe > 1", 'a field of any name is written fields["any name"]'),
        (" + ".join(["temp"] * 50) + " > 1", "it is nested more than 32 levels deep"),
        ("(" * 50 + "temp > 1" + ")" * 50, "it is nested more than 32 levels deep"),
    ],
)
def test_errors_say_what_to_write(source: str, said: str | None) -> None:
    if said is None:
        compile_condition(source)
        return
    with pytest.raises(ExpressionError) as caught:
        compile_condition(source)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("temp > 30", {"temp"}),
        ("temp > 30 || hum > 3", {"temp", "hum"}),
        ("temp > previous.temp", {"temp"}),
        ("rate(temp) > 1", {"temp"}),
        ("temp + hum > 30", {"temp"}),
        ("on ? temp > 1 : hum > 1", {"on"}),
        ("!has(fields.temp)", None),
        ("device == 'a' || temp > 1", None),
        ("age(temp) > 600", None),
        ("text.contains('x')", None),
    ],
)
def test_needs(source: str, needs: set[str] | None) -> None:
    assert compile_condition(source).needs == needs


def test_when_an_age_changes_a_condition() -> None:
    over = compile_condition("age(a) > 600 || 60 >= age(b) || age(c) <= 5 || age(d) < 0.5")
    assert over.ages == {
        ("a", 600 * SECOND + 1), ("b", 60 * SECOND + 1), ("c", 5 * SECOND + 1), ("d", SECOND // 2),
    }  # fmt: skip
    assert over.tracked == set("abcd")


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, -0.0, 2.0])
TEXTS = st.sampled_from(["", "a", "ab", "b"])
LEAVES = st.sampled_from(["x", "y", "s", "t", "p", "q", "gone", "1.0", "2.5", '"a"', "true"])
OPERATORS = ["<", "<=", ">", ">=", "==", "!=", "&&", "||", "+", "-", "*", "/"]
SOURCES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(OPERATORS), inner, inner).map(
            lambda parts: f"({parts[1]} {parts[0]} {parts[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda parts: "({} ? {} : {})".format(*parts)),
        inner.map(lambda part: f"!({part})"),
        inner.map(lambda part: f"-({part})"),
        st.tuples(inner, st.sampled_from(["contains", "startsWith", "endsWith"])).map(
            lambda parts: f'({parts[0]}).{parts[1]}("a")'
        ),
        inner.map(lambda part: f'({part}) in [1.0, "a", true]'),
    ),
    max_leaves=6,
)
ENVIRONMENT = cel.NewEnv(
    variables=dict.fromkeys(("x", "y", "s", "t", "p", "q", "gone"), cel.Type.DYN)
)


def googles_answer(source: str, fields: Mapping[str, Field]) -> object:
    """What the library says; None for an error."""
    try:
        expression = ENVIRONMENT.compile(f"dyn({source})", disable_check=True)
        answer = expression.eval(data=fields)
    except RuntimeError:
        return None
    if answer.type() == cel.Type.ERROR:
        return None
    return answer.value()


@given(SOURCES, NUMBERS, NUMBERS, TEXTS, TEXTS, st.booleans(), st.booleans())
def test_it_means_what_google_says(
    source: str, x: float, y: float, s: str, t: str, p: bool, q: bool
) -> None:
    try:
        expression = compile_condition(source)
    except ExpressionError:  # of a wrong kind: Google tells it when it is evaluated
        return
    fields: dict[str, Field] = {"x": x, "y": y, "s": s, "t": t, "p": p, "q": q}
    ours = expression.evaluate(Sample(0, "a", fields=fields))
    theirs = googles_answer(source, fields)
    if isinstance(ours, float) and math.isnan(ours):
        assert isinstance(theirs, float) and math.isnan(theirs)
    else:
        assert (type(ours), ours) == (type(theirs), theirs)
