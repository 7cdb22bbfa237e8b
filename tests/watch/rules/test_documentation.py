"""What RULES.md says is true: its file of rules, its test, its example of an alert."""

import json
import re
from pathlib import Path

from ingest.watch.fields import fields_in
from ingest.watch.rules.cases import read_cases
from ingest.watch.rules.courier import TRIES
from ingest.watch.rules.expressions import compile_condition
from ingest.watch.rules.model import Message, Target
from ingest.watch.rules.rulesfile import _TARGETS, _TESTS, read_rules
from tests.watch.rules.making import Sender, engine

RULES = (Path(__file__).parents[3] / "ingest" / "watch" / "rules" / "RULES.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", RULES, re.MULTILINE | re.DOTALL)


def test_the_file_and_its_test(tmp_path: Path) -> None:
    file, tests = blocks("toml")
    (tmp_path / "rules.toml").write_text(file)
    (tmp_path / "tests.toml").write_text(tests)
    read_rules(tmp_path / "rules.toml")
    found, (case,) = read_cases(tmp_path / "tests.toml")
    assert case.run(found) == []
    for key in _TESTS:
        assert re.search(rf"^{key} = ", file, re.MULTILINE), key


def test_the_example_of_an_alert(tmp_path: Path) -> None:
    (text,) = blocks("json")
    (line,) = text.splitlines()
    (event,) = engine(tmp_path, '[[rule]]\nname = "x"\nwhen = "temp > 1"\n').feed(
        Sender()(1, "temp=2")
    )
    assert list(json.loads(line)) == list(event.described())


def test_the_tables(tmp_path: Path) -> None:
    named = re.findall(r"^\| `(\w+):[A-Z/a-z]+` \|", RULES, re.MULTILINE)
    assert named == list(_TARGETS)
    for name in Message.NAMES:
        assert f"`{name}`" in RULES
    for expression in ("has(fields.temp)", "previous.temp > 1", 'fields["any name"] > 1'):
        compile_condition(expression)
    assert f"asked {TRIES} times" in RULES
    assert Target.parse("exec:/path").kind == "exec"
    assert fields_in("text", "temp=20.5 door=shut") == {"temp": 20.5, "door": "shut"}
