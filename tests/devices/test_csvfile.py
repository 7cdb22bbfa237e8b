"""Devices as CSV."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.devices.csvfile import Entry, Problem, parse_devices, write_devices, write_tokens
from ingest.devices.device import Device
from tests.devices.tokens import made_tokens


@pytest.mark.parametrize(
    "data",
    [
        b"name,token,note\na,t,n\nb,,\n",
        b"note,name,token\nn,a,t\n,b,\n",
        b"name, token, note\r\na,t,n\r\n\r\nb,,\r\n",
        b"name, token, note\n a , t ,\tn \nb, , \n",
        b'\xef\xbb\xbf"name","token","note"\n"a","t","n"\n"b",,',
        b'"name", "token", "note"\n "a", "t", "n"\n"b", "", ""\n',
    ],
)
def test_spellings_of_one_table(data: bytes) -> None:
    assert parse_devices(data) == ([Entry("a", "t", "n"), Entry("b", "", "")], [])


def test_token_and_note_may_be_missing() -> None:
    assert parse_devices(b"name\na\n") == ([Entry("a", "", "")], [])


@pytest.mark.parametrize(
    "data", [b"", b"a,t\n", b"name,name\n", b"name,tokens\n", b"token,note\n", b"\n"]
)
def test_bad_headers(data: bytes) -> None:
    entries, [problem] = parse_devices(data)
    assert entries == []
    assert problem.line == 1
    assert "name,token,note" in problem.reason


def test_every_bad_row_is_reported_with_its_line() -> None:
    entries, problems = parse_devices(
        b'name,token\na,"x"\nb b,\nc\na,y\nd,\x07\n\n"e\nf",g\nh,i\n"unfinished'
    )
    assert [entry.name for entry in entries] == ["a", "h"]
    assert [problem.line for problem in problems] == [3, 4, 5, 6, 8, 11]
    reasons = [problem.reason for problem in problems]
    assert "'b b' is not a device name" in reasons[0]
    assert reasons[1] == "2 fields expected, 1 found"
    assert reasons[2] == "device a stands in line 2 already"
    assert "control characters" in reasons[3]


def test_a_bad_note() -> None:
    _, [problem] = parse_devices(b"name,note\na,\x1b[0m\n")
    assert problem.line == 2
    assert "one line of text" in problem.reason


@pytest.mark.parametrize("name", ["-rf", "-", ".", ".."])
def test_a_name_that_would_be_a_nuisance(name: str) -> None:
    _, [problem] = parse_devices(f"name\n{name}\n".encode())
    assert problem.line == 2
    assert repr(name) in problem.reason


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])).map(str.strip))
def test_an_exported_note_is_no_formula_and_comes_back(note: str) -> None:
    file = io.StringIO(newline="")
    write_devices(file, [Device("a", True, "", note, None, None)])
    [row] = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert not row["note"].startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    again = io.StringIO(newline="")
    csv.writer(again).writerows([("name", "note"), ("a", row["note"])])
    assert parse_devices(again.getvalue().encode()) == ([Entry("a", "", note)], [])


@pytest.mark.parametrize("note", ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(A1)", "'=1"])
def test_formulas(note: str) -> None:
    file = io.StringIO(newline="")
    write_devices(file, [Device("a", True, "", note, None, "=1:2")])
    [row] = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert (row["note"], row["last_peer"]) == ("'" + note, "'=1:2")


def test_formats() -> None:
    entries, problems = parse_devices(b"format,name\njson,a\n,b\nyaml,c\n")
    assert entries == [Entry("a", "", "", "json"), Entry("b", "", "", "")]
    assert [(line, reason.split(";")[0]) for line, reason in problems] == [
        (4, "'yaml' is no format of lines")
    ]


def test_not_utf_8() -> None:
    assert parse_devices(b"name\na\n\xff\n") == ([], [Problem(3, "not UTF-8")])
    utf16 = "name\na\n".encode("utf-16")
    assert parse_devices(utf16) == ([], [Problem(1, "UTF-16; save it as UTF-8")])


def test_blank_lines_count_as_lines_and_nothing_else() -> None:
    entries, problems = parse_devices(b"\n  \nname,token\n\na,t1\n \t \n,\nb,t2\n../x,t3\n")
    assert [(entry.name, entry.token) for entry in entries] == [("a", "t1"), ("b", "t2")]
    assert [problem.line for problem in problems] == [9]


@given(st.binary() | st.binary().map(b"name,token,note\n".__add__))
def test_no_input_raises(data: bytes) -> None:
    parse_devices(data)


@given(st.lists(made_tokens))
def test_written_tokens_can_be_imported(tokens: list[str]) -> None:
    file = io.StringIO(newline="")
    write_tokens(file, ((f"d{number}", token) for number, token in enumerate(tokens)))
    entries, problems = parse_devices(file.getvalue().encode())
    assert problems == []
    assert [entry.token for entry in entries] == tokens


def test_export() -> None:
    file = io.StringIO(newline="")
    created = "2026-11-22T11:39:00Z"
    seen = Device("b", False, created, 'the "left", one', created, "127.0.0.1:9", "json")
    write_devices(file, [Device("a", True, created, "", None, None), seen])
    assert file.getvalue() == (
        "name,enabled,created,note,last_seen,last_peer,format\n"
        "a,true,2026-11-22T11:39:00Z,,,,\n"
        'b,false,2026-11-22T11:39:00Z,"the ""left"", one",2026-11-22T11:39:00Z,127.0.0.1:9,json\n'
    )
