"""The log as lines of JSON."""

import io
import json
from typing import Any

import pytest
from twisted.logger import Logger
from twisted.python import log as legacy
from twisted.python.log import LogPublisher as LegacyPublisher

from ingest.ops.jsonlog import json_observer


def logged(**fields: Any) -> dict[str, Any]:
    stream = io.StringIO()
    Logger("ingest.test", observer=json_observer(stream)).warn("it is {word!r}", **fields)
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return parsed


def test_a_line() -> None:
    line = logged(word="so", count=3, ratio=0.5, is_bad=True, nothing=None)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warn",
        "namespace": "ingest.test",
        "message": "it is 'so'",
        "fields": {"word": "so", "count": 3, "ratio": 0.5, "is_bad": True, "nothing": None},
    }


class Unspeakable:
    def __str__(self) -> str:
        raise ValueError("never")

    __repr__ = __str__


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), 1 << 70, "\ud800", "\x1b[2J\u202e\n", b"\xff", object(),
        Unspeakable(), {"a": {1}},
    ],
)  # fmt: skip
def test_whatever_a_field_is(value: object) -> None:
    stream = io.StringIO()
    Logger("ingest.test", observer=json_observer(stream)).info("it", word=value)
    text = stream.getvalue()
    assert text.isascii() and text.count("\n") == 1 and "\x1b" not in text
    assert json.loads(text, parse_constant=pytest.fail)["fields"].keys() == {"word"}


def test_an_exception() -> None:
    stream = io.StringIO()
    log = Logger("ingest.test", observer=json_observer(stream))
    try:
        raise ValueError("here")
    except ValueError:
        log.failure("it has failed")
    line = json.loads(stream.getvalue())
    assert line["level"] == "critical" and line["message"].startswith("it has failed")
    assert "ValueError: here" in line["traceback"] and "test_an_exception" in line["traceback"]


def test_an_event_of_the_older_kind() -> None:
    stream = io.StringIO()
    publisher = LegacyPublisher(publishPublisher=json_observer(stream))
    publisher.msg("an older one")
    assert legacy is not None
    line = json.loads(stream.getvalue())
    assert (line["message"], line["fields"]) == ("an older one", {})
