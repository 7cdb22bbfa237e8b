from pathlib import Path

import pytest

from ingest.watch.rules.model import (
    DiskFull,
    MailServer,
    Message,
    MissingNumbers,
    Refused,
    Silence,
    Target,
    When,
    in_words,
)
from ingest.watch.rules.nodes import SECOND
from ingest.watch.rules.rulesfile import RulesError, read_rules
from tests.watch.rules.making import rules

ALL = """
[mail]
server = "mail.example.org:587"
from = "watch@example.org"
username = "watch"
password_file = "/etc/ingest/mail"
tls = true

[[rule]]
name = "hot"
devices = "cold-*"
when = "temp > 30"
for = "10m"
clear = "temp < 25"
keep_firing_for = "1h"
then = ["webhook:https://example.org/x?y=1", "exec:/bin/true", "alertmanager:http://[::1]:9093",
        "mail:ops@example.org"]
message = "{device} has {temp:.1f}"

[[rule]]
name = "quiet"
silent = "90s"

[[rule]]
name = "no bat"
silent = "learned"
field = "bat"

[[rule]]
name = "gap"
missing_numbers = true

[[rule]]
name = "no"
refused = 5
within = "1d"

[[rule]]
name = "disk"
disk_full_within = "12h"
"""


def test_all_that_may_stand_there(tmp_path: Path) -> None:
    found = rules(tmp_path, ALL)
    hot, quiet, bat, gap, no, disk = found.rules
    assert isinstance(hot.test, When)
    assert (hot.devices, str(hot.test), hot.hold, hot.keep) == (
        "cold-*", "temp > 30", 600 * SECOND, 3600 * SECOND,
    )  # fmt: skip
    assert hot.test.clear is not None
    assert hot.test.clear.source == "temp < 25"
    assert hot.then == (
        Target("webhook", "https://example.org/x?y=1"),
        Target("exec", "/bin/true"),
        Target("alertmanager", "http://[::1]:9093"),
        Target("mail", "ops@example.org"),
    )
    assert quiet.test == Silence(90 * SECOND, None)
    assert (quiet.devices, quiet.then, quiet.hold, quiet.keep) == ("*", (), 0, 0)
    assert bat.test == Silence(None, "bat")
    assert gap.test == MissingNumbers()
    assert no.test == Refused(5, 86400 * SECOND)
    assert disk.test == DiskFull(43200 * SECOND)
    assert found.mail == MailServer(
        "mail.example.org", 587, "watch@example.org", "watch", "/etc/ingest/mail", True
    )


HEAD = '[[rule]]\nname = "a"\n'
WHEN = HEAD + 'when = "temp > 1"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no rule; one begins with [[rule]]"),
        ("x =\n", "this is no TOML: Invalid value (at line 1, column 4)"),
        ("[rule]\nname = 'a'", ":1: a rule begins with a line [[rule]]"),
        ("rule = [1, 2]", "a rule begins with a line [[rule]]"),
        ('mail = "x"\n' + WHEN, "mail: this is a table, below a line [mail]"),
        ("[[rules]]\n" + WHEN, ":1: rules: there are only [[rule]] and [mail]"),
        ('[[rule]]\nwhen = "a > 1"', ':1: rule number 1: a rule needs a name'),
        (WHEN + WHEN, ':5: rule "a": another rule has this name'),
        (HEAD, ':1: rule "a": a rule has one of when, silent, missing_numbers,'),
        (WHEN + 'silent = "1m"', "here is when and silent"),
        (HEAD + 'when = "temp >"', ':3: rule "a": when: at column 7: Syntax error'),
        (HEAD + 'when = "has(temp)"', "write has(fields.temp)"),
        (HEAD + "when = 3", ":3: rule \"a\": when: this is a text in quotes"),
        (WHEN + 'clear = "temp + 1"', ":4: rule \"a\": clear: this is a number; compare it"),
        (WHEN + 'for = "10x"', ":4: rule \"a\": for: '10x' is not a duration"),
        (WHEN + 'for = "0s"', "longer than no time"),
        (WHEN + 'fro = "10s"', ":4: rule \"a\": fro has no meaning here; is it for?"),
        (HEAD + 'wehn = "a > 1"', "wehn has no meaning here; is it when?"),
        (HEAD + 'silent = "1m"\nfor = "1m"', ":4: rule \"a\": for has no meaning here"),
        (WHEN + 'devices = "a b"', "in which * and ? may stand for others"),
        (WHEN + 'message = "{device"', ":4: rule \"a\": message: expected '}'"),
        (WHEN + 'message = "a } b"', "one by itself is written twice: {{"),
        (WHEN + 'message = "{0.__class__}{}"', "braces hold a name"),
        (WHEN + 'message = "{temp!r}"', "braces hold a name"),
        (WHEN + 'message = "{temp:zz}"', ":4: rule \"a\": message: 'zz' is no format"),
        (WHEN + 'message = "{temp:999999999}"', "asks for more than 99 places"),
        (HEAD + 'silent = "99999999d"', ':3: rule "a": silent: this is at most 3650d'),
        (HEAD + 'silent = "1m"\nfield = ""', ':4: rule "a": field: this is a field\'s name'),
        (WHEN + 'then = ["webhook:http://x:99999/"]', "Port out of range"),
        (WHEN + 'then = "webhook:http://x"', "this is a list"),
        (WHEN + 'then = ["fax:1"]', "'fax:1' begins with none of webhook:, exec:,"),
        (WHEN + 'then = ["webhook:ftp://x"]', "'ftp://x' is no address such as"),
        (WHEN + 'then = ["alertmanager:http://"]', "is no address such as"),
        (WHEN + 'then = ["exec:bin/true"]', "is no path from the root"),
        (WHEN + 'then = ["exec:/etc/passwd", "mail:x"]', "chmod +x; this is a mail address"),
        (WHEN + 'then = ["webhook:http://x/ü"]', "write signs beyond ASCII, and blanks, as %20"),
        (WHEN + 'then = ["mail:jürgen@example.org"]', "this is a mail address"),
        (WHEN + 'then = ["mail:a@b@example.org"]', "this is a mail address"),
        (WHEN + 'then = ["mail:nobody"]', "this is a mail address"),
        (HEAD + "missing_numbers = false", "this can only be true"),
        (HEAD + "refused = 0", "this is a whole number above 0"),
        (WHEN + '[mail]\nserver = "x:99999"', ":5: [mail] server: this is host and port"),
        (WHEN + "[mail]\nport = 3", ":5: [mail] port has no meaning here"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RulesError) as caught:
        rules(tmp_path, text)
    assert said in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(RulesError) as caught:
        rules(tmp_path, WHEN + 'for = "x"\nthen = ["fax:1", "mail:x"]\n' + HEAD + "x = 1\n")
    assert [(problem.rule, problem.line) for problem in caught.value.problems] == [
        ('"a"', 4), ('"a"', 5), ('"a"', 6), ('"a"', 7), ('"a"', 8),
    ]  # fmt: skip
    assert str(caught.value).count("\n") == 4


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="No such file"):
        read_rules(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match="this is no TOML"):
        read_rules(tmp_path / "binary.toml")


def test_messages() -> None:
    message = Message.parse("{device}: {temp:.1f}, {door}, {gone} {{x}} {x.y:>4}")
    values = {"device": "{temp}", "temp": 3.14159, "door": "open", "x.y": 1.0}
    assert message.fill(values) == "{temp}: 3.1, open, ? {x}  1.0"
    assert Message.parse("{t:.1f} {t}").fill({"t": "text"}) == "? text"
    assert Message.parse("{n}").fill({"n": 20.0}) == "20"


def test_targets_are_shown_without_their_secrets() -> None:
    hook = Target.parse("webhook:https://user:pw@hooks.example.org:8443/T0/secret?k=1")
    assert str(hook) == "webhook:https://user:pw@hooks.example.org:8443/T0/secret?k=1"
    assert hook.shown == "webhook:https://hooks.example.org:8443/…"
    assert Target.parse("mail:a@b.c").shown == "mail:a@b.c"


def test_durations_in_words() -> None:
    assert [in_words(round(each * SECOND)) for each in (0.25, 90, 600, 7200, 86400)] == [
        "0.25s", "90s", "10m", "2h", "1d",
    ]  # fmt: skip
