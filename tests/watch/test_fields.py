import json
import math
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.record import parse
from ingest.watch.fields import DEEPEST, LIMIT, Field, fields_in, fields_of, needle
from tests.log.logs import line

LINE = "weather,place=roof temp=82i,hum=71.2 1465839830100400200"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("temp=20.5 door=shut", {"temp": 20.5, "door": "shut"}),
        ("temp=20.5,hum=41;open=true", {"temp": 20.5, "hum": 41.0, "open": True}),
        ('note="a b=c" x=-1e3', {"note": "a b=c", "x": -1000.0}),
        ("rev=1_000 v=1.2.3 n= temp=.5", {"rev": "1_000", "v": "1.2.3", "n": "", "temp": 0.5}),
        ("lost: temp=20.5", {"temp": 20.5}),
        (LINE, {"place": "roof", "temp": 82.0, "hum": 71.2}),
        (r'a,my\ place=the\ roof s="say \"hi\"",ok=T 1', {
            "my place": "the roof", "s": 'say "hi"', "ok": "T",
        }),
        ("20.5,shut,,7", {"c1": 20.5, "c2": "shut", "c4": 7.0}),
        ('"a,b";3', {"c1": "a,b", "c2": 3.0}),
        ("20.5", {"value": 20.5}),
        (" true ", {"value": True}),
        ('{"temp":20.5,"door":{"open":true},"n":null}', {"temp": 20.5, "door.open": True}),
        ("[1,[2]]", {"c1": 1.0, "c2.c1": 2.0}),
        ("{temp=1", {"{temp": 1.0}),
        ("", {}),
        ("hello, world", {}),
        ("door opened", {}),
    ],
)  # fmt: skip
def test_texts(text: str, fields: dict[str, Field]) -> None:
    assert fields_in("text", text) == fields


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({"temp": 20, "on": False}, {"temp": 20.0, "on": False}),
        ({"a": {"b": {"c": 1}}, "d": [{"e": "f"}]}, {"a.b.c": 1.0, "d.c1.e": "f"}),
        ({"value": {"a": 1}}, {"value.a": 1.0}),
        (7, {"value": 7.0}),
        ("up", {"value": "up"}),
        ({"$number": "-Infinity"}, {"value": -math.inf}),
        ({"x": {"$number": "Infinity"}}, {"x": math.inf}),
        ({"at": {"$date": "2026-11-22T11:39:00Z"}}, {"at": "2026-11-22T11:39:00Z"}),
        ({"$map": [["a", 1], [None, 2], ["b", {"$map": [["c", 3]]}]]}, {"a": 1.0, "b.c": 3.0}),
        ({"b": {"$binary": "/wD+"}, "e": {"$ext": [5, "AQ=="]}, "x": 1}, {"x": 1.0}),
        ({"$a": 1, "b": 2}, {"$a": 1.0, "b": 2.0}),
        (None, {}),
        ({}, {}),
    ],
)
def test_data(value: object, fields: dict[str, Field]) -> None:
    assert fields_in("data", value) == fields


def test_a_record_of_the_log() -> None:
    assert fields_of(parse(line(1, '"data":{"temp":20}'))) == {"temp": 20.0}
    assert fields_of(parse(line(1, '"raw":"/wD+"'))) == {}


def test_numbers_are_doubles() -> None:
    fields = fields_in("data", {"a": 1, "b": [2**63], "c": {"d": -3}})
    assert {type(value) for value in fields.values()} == {float}


def test_a_record_of_many_fields_is_cut() -> None:
    many = {str(number): number for number in range(LIMIT * 2)}
    assert len(fields_in("data", many)) == LIMIT
    assert len(fields_in("data", {"a": list(range(LIMIT * 2))})) == LIMIT
    assert len(fields_in("text", " ".join(f"k{number}=1" for number in many.values()))) == LIMIT


@pytest.mark.parametrize(
    "text", ["a" * 60000, "a=" * 30000, "\\" * 60000, '="' * 30000, "," * 60000]
)
def test_hostile_texts_end(text: str) -> None:
    assert len(fields_in("text", text)) <= LIMIT


@pytest.mark.parametrize(
    ("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"$map":[["a",', "]]}]")]
)
@pytest.mark.parametrize("depth", [DEEPEST, 250, 20_000])
def test_what_is_nested_too_deeply_is_no_field(begin: str, end: str, depth: int) -> None:
    text = begin * depth + "1" + end * depth
    assert len(fields_in("text", text)) <= 1
    if depth == 250:
        assert fields_in("data", orjson.loads(f"[2,{text}]")) == {"c1": 2.0}


@pytest.mark.parametrize("number", ["abc", "1.2.3", "", "1_000"])
def test_what_looks_like_a_number_of_the_log_is_a_map(number: str) -> None:
    assert fields_in("data", {"$number": number}) == {"$number": number}


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
TREES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(TREES | st.text(), st.booleans())
def test_a_needle_is_found_in_every_line_that_has_the_field(tree: object, escaped: bool) -> None:
    """With or without escapes of JSON, as data and as text."""
    text = tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=escaped)
    kept = json.dumps(text, ensure_ascii=False).encode()
    for name in fields_in("text", text):
        assert needle(name) in kept or re.search(rb"\\u", kept)
