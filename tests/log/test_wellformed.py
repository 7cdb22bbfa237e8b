"""What many lines at a time are said to be, against what each line is by itself."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.log.files import ACTIVE
from ingest.log.verifying import verify
from ingest.log.wellformed import are_json, are_strings, check_lines, check_run
from tests.log.logs import line

TEXT = '"text":"temp=20.5 %d é"'
ESCAPED = r'"text":"{\"temp\":20.5,\"x\":\"\\ \u0001 %d\"}"'
DATA = '"data":{"temp":20.5,"list":[1,{"b":null}],"x":%d}'
RAW = '"raw":"/wD+"'
EVENT = '"event_time":"2026-11-22T11:38:59.123456789Z","tag":"app.é","chunk":"c/Q=="' + f",{TEXT}"
TAGGED = r'"tag":"a \"b\" \u0001",' + DATA
KINDS = [TEXT, ESCAPED, DATA]
OTHERS = [RAW, EVENT, TAGGED]

_SECOND = rb"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
_RECORD = re.compile(
    rb'\{"time":"%b\.[0-9]{6}Z","device":"[A-Za-z0-9._:-]{1,128}","seq":[1-9][0-9]{0,18}'
    rb'(?:,"event_time":"%b(?:\.[0-9]{1,9})?Z")?'
    rb'(?:,"tag":(?P<tag>"(?:[^"\\]|\\.)*"))?(?:,"chunk":(?P<chunk>"(?:[^"\\]|\\.)*"))?'
    rb',(?:"text":(?P<text>".*")|"data":(?P<data>.*)|"raw":"[A-Za-z0-9+/]*={0,2}")\}'
    % (_SECOND, _SECOND)
)
_NUMBERED = re.compile(
    rb'\{"time":"[^"]*","device":"([A-Za-z0-9._:-]{1,128})","seq":([1-9][0-9]{0,18}),'
)


OPTIONAL = [
    '"event_time":"2026-11-22T11:00:00Z","tag":"","chunk":"","text":"x"',
    '"event_time":"2026-11-22T11:00:00.1Z","data":{"tag":1}',
    r'"tag":"\u0000\ud83d\ude00\"","raw":""',
    '"chunk":"x","text":"y"',
]
BAD_OPTIONAL = [
    '"event_time":"2026-11-22T11:00:00.1234567890Z","text":"x"',
    '"event_time":"2026-11-22T11:00:00+00:00","text":"x"',
    '"event_time":"2026-22-22T11:00:00Z","text":"x"',
    '"tag":"x","event_time":"2026-11-22T11:00:00Z","text":"x"',
    '"chunk":"x","tag":"x","text":"x"',
    '"tag":"x","tag":"y","text":"x"',
    r'"tag":"\x","text":"x"',
    r'"tag":"\ud800","text":"x"',
    r'"tag":"\","text":"x"',
    '"tag":"\t","text":"x"',
    '"tag":1,"text":"x"',
    '"tag": "x","text":"x"',
    '"tag":"x"',
    '"text":"x","tag":"x"',
]


def run(
    kind: str, first: int = 1, count: int = 60, device: str = "a", time: float = 0
) -> list[bytes]:
    """Records that a device at full speed leaves."""
    values = [kind % number if "%" in kind else kind for number in range(first, first + count)]
    return [line(number, value, device, time) for number, value in enumerate(values, start=first)]


def block(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def bad_lines(content: bytes) -> Iterator[int]:
    """The places, from 1, of the lines in which something is wrong: one line after the other."""
    last: dict[bytes, int] = {}
    for place, text in enumerate(content.split(b"\n")[:-1], start=1):
        follows = True
        if head := _NUMBERED.match(text):
            number = int(head[2])
            follows = number == last.get(head[1], number - 1) + 1
            last[head[1]] = number
        record = _RECORD.fullmatch(text)
        if not (follows and record and all(map(is_json, filter(None, record.groups())))):
            yield place


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [1, 95, 10**18 - 30])
def test_a_run_is_found_to_its_end(kind: str, first: int) -> None:
    good = block(*run(kind, first))
    for after in (b"", block(*run(kind, 1, 40, "b")), block(*run(kind, first + 60, 40, "a", 1))):
        found = check_run(block(line(1)) + good + after, len(line(1)) + 1)
        assert found is not None
        assert (found.device, found.first, found.count) == (b"a", first, 60)
        assert found.end == len(line(1)) + 1 + len(good)


def test_a_run_is_of_one_kind_and_long() -> None:
    assert check_run(block(*run(TEXT, count=5)), 0) is None
    assert check_run(block(*run(TEXT), *run(DATA, 61)), 0) is None
    for kind in OTHERS:
        assert check_run(block(*run(kind)), 0) is None


def test_lines_of_many_devices_of_every_kind() -> None:
    for more in ([*KINDS, RAW], [*KINDS, *OTHERS]):
        devices = "abcdef"[: len(more)]
        runs = [run(kind, 3, 2, device) for kind, device in zip(more, devices, strict=True)]
        mixed = list(chain.from_iterable(zip(*runs, strict=True)))
        names = tuple(device.encode() for device in devices * 2)
        assert check_lines(block(*mixed)) == (names, [3] * len(more) + [4] * len(more))
    assert check_lines(block(*mixed, b"junk")) is None


@pytest.mark.parametrize("value", OPTIONAL)
def test_optional_keys_make_a_record(value: str) -> None:
    assert check_lines(block(line(1), line(2, value))) == ((b"a", b"a"), [1, 2])
    assert list(bad_lines(block(line(1), line(2, value)))) == []


@pytest.mark.parametrize("value", BAD_OPTIONAL)
def test_optional_keys_have_one_spelling(value: str) -> None:
    assert check_lines(block(line(1), line(2, value))) is None


def test_a_tag_is_in_utf_8() -> None:
    assert check_lines(block(line(1, '"tag":"x","text":"x"').replace(b"x", b"\xff", 1))) is None


@pytest.mark.parametrize(
    "values",
    [
        ['"data":[1', '"data":2]', '"data":3,4'],
        ['"data":{"a":1', '"data":"b":2}', '"data":3,"":4'],
        ['"data":[{"":1', '"data":2}]', '"data":3},{"":4'],
        [r'"text":"a\"', '"text":",\\"b"', '"text":"c"'],
        ['"text":"a",["b"', '"text":"c"]', '"text":"d","e"'],
        ['"data":{"a":', '"data":1}}', '"data":1'],
    ],
)
@pytest.mark.parametrize("count", [0, 60])
def test_lines_that_are_records_only_together_are_none(values: list[str], count: int) -> None:
    kind = TEXT if "text" in values[0] else DATA
    bad = [line(count + number, value, time=0) for number, value in enumerate(values, start=1)]
    lines = block(*run(kind, 1, count), *bad)
    assert check_run(lines, 0) is None
    assert check_lines(lines) is None


PIECES = [
    b"1", b"-2.5e3", b"null", b'"x"', b"[]", b"{}", b"[1", b"2]", b"3,4", b'{"a":1', b'"b":2}',
    b'"', b'3,"":4', b'[{"":1', b"2}]", b'3},{"":4', b"[[1", b"2]]", b"3],[4", b"", b" ", b"]",
    b"}", b",", b'"x', b'y"', b'"\\', b"nul", b"\xff", b"\xc3", b"\xa9", b'"\xc3\xa9"', b"1] ,",
    b"1] , [2", b"1}", b'{"":1} , ', b'"\\ud800"', b"1e999",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(b"".join)))
def test_values_are_json_when_each_is(values: list[bytes]) -> None:
    assert are_json(values) == (bool(values) and all(map(is_json, values)))


TEXT_PIECES = [
    b"a", b" ", b"", b"\\", b'"', b'\\"', b"\\u00", b"e9", b"\\ud83d", b"\\ude00", b"\t", b"\n",
    b"\xc3\xa9", b"\xc3", b"\xa9", b"\x7f", b"\xed\xa0\x80", b"\\n", b"\\x", b'","',
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(TEXT_PIECES), max_size=3).map(b"".join)))
def test_values_are_strings_when_each_is(values: list[bytes]) -> None:
    alone = [is_json(b'"%b"' % value) for value in values]
    assert are_strings(values) == (bool(values) and all(alone))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """A good log: runs, long ones and short ones, of three devices."""
    following = dict.fromkeys("abc", draw(st.sampled_from([1, 95, 10**18 - 20])))
    lines = []
    for time in range(draw(st.integers(1, 6))):
        device = draw(st.sampled_from("abc"))
        count = draw(st.sampled_from([1, 2, 30, 60]))
        lines += run(
            draw(st.sampled_from([*KINDS, *OTHERS])), following[device], count, device, time
        )
        following[device] += count
    return block(*lines)


def breached(content: bytes) -> list[int]:
    with TemporaryDirectory() as name:
        (Path(name) / ACTIVE).write_bytes(content)
        return [breach.line for breach in verify(Path(name)).breaches]


@given(
    content=logs(),
    place=st.floats(0, 1, exclude_max=True),
    removed=st.integers(0, 1),
    added=st.sampled_from([b"", *map(b"%c".__mod__, b'"\\\n\r ,:{}[]019ax\x00\x7f\xc3\xff')]),
)
def test_a_byte_that_is_changed_is_judged_as_line_by_line(
    content: bytes, place: float, removed: int, added: bytes
) -> None:
    assert breached(content) == []
    index = int(place * len(content))
    # The end is a breach of another kind, which other tests cover.
    changed = content[:index] + added + content[index + removed :] + b"\n"
    assert breached(changed) == list(bad_lines(changed))[:100]
