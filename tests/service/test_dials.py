"""The tables `[[dial]]`: what they say, and what is said of those that make no sense."""

import re
import tomllib
from pathlib import Path

import pytest

from ingest.listener.dialer import Dial
from ingest.service.dials import KEYS, parse_dials
from ingest.service.reading import read_settings
from ingest.service.reload import changes
from ingest.service.settings import Settings, SettingsError
from ingest.wire.poll import Ending, Question

GOOD = 'device = "boiler"\nconnect = "tcp:192.0.2.1:12345"\nuntil = "\\n"\nevery = "10s"\n'


def parsed(text: str) -> tuple[Dial, ...]:
    return parse_dials(tomllib.loads(text)["dial"])


def test_the_least_that_a_table_says() -> None:
    question = Question("boiler", b"", Ending(until=b"\n"), 5.0)
    assert parsed(f"[[dial]]\n{GOOD}") == (Dial("tcp:192.0.2.1:12345", question, 10.0),)


def test_all_that_a_table_may_say() -> None:
    [dial] = parsed("""
        [[dial]]
        device = "meter"
        connect = "tls:plant.example:12345"
        send-base64 = "AQID"
        length = 12
        stay = true
        timeout = "1m"
        format = "nmea"
    """)
    question = Question("meter", b"\1\2\3", Ending(length=12), 60.0, True, "nmea")
    assert dial == Dial("tls:plant.example:12345", question, None)


@pytest.mark.parametrize(
    ("line", "ending"),
    [
        ('until = "END"', Ending(until=b"END")),
        ('silence = "200ms"', Ending(silence=0.2)),
        ("close = true", Ending()),
    ],
)
def test_endings(line: str, ending: Ending) -> None:
    [dial] = parsed(f"[[dial]]\n{GOOD}".replace('until = "\\n"', line))
    assert dial.question.ending == ending


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('device = "boiler"\n', "", "table 1, without a device: device = NAME is wanted"),
        ("boiler", "boi ler", "table 1, boi ler: device = NAME is wanted"),
        ("connect", "conect", "table 1, boiler: there is no 'conect'; did you mean connect?"),
        ('"tcp:192.0.2.1:12345"', "12345", 'connect = "tcp:192.0.2.1:12345" is wanted'),
        ('until = "\\n"\n', "", "how a reply ends is wanted, by one of until"),
        ("until", "length = 3\nuntil", "or close = true, not until and length"),
        ('until = "\\n"', 'until = ""', "until = '' makes no sense"),
        ('until = "\\n"', "length = 0", "length = 0 makes no sense"),
        ('until = "\\n"', "length = true", "length = True makes no sense"),
        ('until = "\\n"', 'silence = "soon"', "silence: 'soon' is not a duration"),
        ('until = "\\n"', "silence = 2", 'silence = 2 is no duration such as "10s"'),
        ('until = "\\n"', "close = 1", "close = 1 makes no sense"),
        ('every = "10s"', "", 'one of every = "10s" and stay = true is wanted'),
        ("every", "stay = true\nevery", 'one of every = "10s" and stay = true is wanted'),
        ('every = "10s"', 'every = "0s"', "every = '0s' is no duration"),
        ("every", 'timeout = "x"\nevery', "timeout: 'x' is not a duration"),
        ("every", 'send-base64 = "?"\nevery', "send-base64 = '?' is not base64"),
        ("every", 'send = "a"\nsend-base64 = "YQ=="\nevery', "send is text, or send-base64"),
        ("every", 'format = "yaml"\nevery', "format = 'yaml' is none of opaque, json"),
        (
            'until = "\\n"\nevery = "10s"', "close = true\nstay = true",
            "a connection that is to stay can't end a reply by close",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense(old: str, new: str, error: str, tmp_path: Path) -> None:
    assert old in GOOD
    path = tmp_path / "ingest.toml"
    path.write_text(f"[[dial]]\n{GOOD.replace(old, new, 1)}")
    with pytest.raises(SettingsError) as raised:
        read_settings({}, path)
    assert str(raised.value).startswith(f"{path}, line 1: dial: table 1, ")
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tables_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "ingest.toml"
    path.write_text('dial = "boiler"\n')
    with pytest.raises(SettingsError, match=r"tables \[\[dial\]\] are wanted"):
        read_settings({}, path)


def test_the_examples_for_operators() -> None:
    guide = (Path(__file__).parents[2] / "deploy" / "OPERATING.md").read_text()
    section = guide.partition("\n## Devices that only answer\n")[2].partition("\n## ")[0]
    (file,) = re.findall(r"^```toml\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    boiler, wind = parsed(file)
    assert boiler.question == Question("boiler", b"Hello, IoT!", Ending(until=b"\n"), 5.0)
    assert (wind.every, wind.question.line_format) == (None, "nmea")
    listed = re.findall(r"^\| ((?:`.*?`,? ?(?:or |one of )?|one of )+)", section, re.MULTILINE)
    assert set(re.findall(r"`([a-z0-9-]+)", " ".join(listed))) == set(KEYS)


def test_changes_are_said_device_by_device() -> None:
    other = GOOD.replace("boiler", "meter")
    before = Settings(dial=parsed(f"[[dial]]\n{GOOD}[[dial]]\n{other}"))
    after = Settings(dial=parsed(f"[[dial]]\n{GOOD.replace('10s', '1m')}"))
    assert list(changes(before, before)) == []
    assert list(changes(before, after)) == [
        "dial: meter is called no more from now on",
        "dial: boiler at tcp:192.0.2.1:12345 (every 60 s) from now on",
    ]
    assert before.as_written()["dial"] == "2 devices"
