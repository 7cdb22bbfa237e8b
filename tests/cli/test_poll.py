"""`ingest poll` with real devices that only answer."""

from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ingest.cli import main
from ingest.cli.poll import unescape
from tests.endtoend.answering import (
    AnsweringDevice,
    answers,
    answers_and_closes,
    drips_for_ever,
    silent,
    talks,
)
from tests.support.processes import free_port


def poll(device: AnsweringDevice | int, *arguments: str) -> Result:
    port = device if isinstance(device, int) else device.port
    return CliRunner().invoke(main, ["poll", f"127.0.0.1:{port}", *arguments])


@pytest.mark.parametrize(
    ("behaviour", "arguments", "answer"),
    [
        (answers(b"20.5\r\nmore"), ["--until", r"\n"], b"20.5\r\n"),
        (answers(b"\x01\x03\xff\x00"), ["--length", "3"], b"\x01\x03\xff"),
        (answers(b"20.5"), ["--silence", "50ms"], b"20.5\n"),
        (answers(b"20.5\n"), [], b"20.5\n"),
        (answers_and_closes(b"20.5\n20.6\n"), ["--close"], b"20.5\n20.6\n"),
        (answers_and_closes(b"20.5"), [], b"20.5\n"),
        (answers_and_closes(b"20.5"), ["--until", "END"], b"20.5\n"),
    ],
)
def test_answers(behaviour: Any, arguments: list[str], answer: bytes) -> None:
    with AnsweringDevice(behaviour) as device:
        result = poll(device, "--send", "Hello, IoT!", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == answer
    assert device.asked == [b"Hello, IoT!"]


@pytest.mark.parametrize(
    "ending", [["--until", r"\n"], ["--length", "1000"], ["--close"], ["--silence", "1s"], []]
)
def test_an_answer_that_drips_has_its_time(ending: list[str]) -> None:
    with AnsweringDevice(drips_for_ever) as device:
        result = poll(device, "--timeout", "300ms", *ending)
    assert result.exit_code == 1
    assert "sent no whole answer within 0.3 s" in result.output


def test_what_is_sent() -> None:
    with AnsweringDevice(answers(b"\n")) as device:
        poll(device, "--send", r"a\r\n\x00\\", "--until", r"\n")
        poll(device, "--send-base64", "AQID", "--until", r"\n")
        assert device.asked == [b"a\r\n\0\\", b"\1\2\3"]
    with AnsweringDevice(talks(b"unasked\n")) as device:
        assert poll(device, "--until", r"\n").stdout == "unasked\n"


def test_errors() -> None:
    assert poll(free_port()).output.endswith(": Connection refused\n")
    with AnsweringDevice(silent) as device:
        output = poll(device, "--timeout", "50ms").output
    where = f"Error: 127.0.0.1:{device.port}"
    assert output == f"{where} is connected, but sent no whole answer within 0.05 s; 0 bytes came\n"
    with AnsweringDevice(answers_and_closes(b"abc")) as device:
        result = poll(device, "--send", "x", "--length", "5")
    assert result.exit_code == 1
    assert (
        "closed the connection without a whole answer; 3 bytes came, at the end b'abc'"
        in result.output
    )
    with AnsweringDevice(answers_and_closes(b"x" * (2 << 20))) as device:
        assert "answers with more than 1048576 bytes" in poll(device, "--send", "x").output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["here"], "'here' is not HOST:PORT, such as 192.168.1.100:12345"),
        (["here:99999"], "'here:99999' is not HOST:PORT"),
        (["here:1", "--send", r"\q"], r"\n, \r, \t, \0, \\ and \x1f are understood"),
        (["here:1", "--send-base64", "?"], "'?' is not base64"),
        (["here:1", "--send", "a", "--send-base64", "YQ=="], "two ways to say the same"),
        (["here:1", "--until", "a", "--close"], "one of --until, --length, --silence and --close"),
        (["here:1", "--until", ""], "--until wants some text"),
        (["here:1", "--timeout", "soon"], "'soon' is not a duration"),
        (["here:1", "--silence", "0s"], "it has to be longer than nothing"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], error: str) -> None:
    result = CliRunner().invoke(main, ["poll", *arguments])
    assert result.exit_code == 2
    assert error in result.output


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\")))
def test_what_has_no_backslash_is_sent_as_it_is(text: str) -> None:
    assert unescape(text) == text.encode()


@pytest.mark.parametrize("text", ["\\", "a\\", "\\x", "\\x1", "\\xgg", "\\\\\\", "\\\n"])
def test_a_backslash_before_nothing_known(text: str) -> None:
    with pytest.raises(click.BadParameter):
        unescape(text)
