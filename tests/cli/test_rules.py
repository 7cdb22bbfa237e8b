import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.layout import Layout
from ingest.watch.rules.runner import Runner
from tests.log.logs import BEGIN
from tests.watch.rules.making import START, Sender, rules

HOT = '[[rule]]\nname = "hot"\nwhen = "temp > 30"\nfor = "10s"\nmessage = "{device} is hot"\n'
END = "2026-11-22T12:00:00Z"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(HOT)
    return path


@pytest.fixture
def log(layout: Layout) -> Path:
    """An hour in which `a` is hot from the 10th to the 60th second, and `b` from the 100th on."""
    send = Sender()
    path = layout.log_folder / "ingest.log"
    path.write_bytes(
        send(0, "temp=20") + send(10, "temp=31") + send(60, "temp=20") + send(100, "temp=31", "b")
    )
    return path


def run(layout: Layout, *arguments: object) -> Result:
    command = ["--data", str(layout.data), *map(str, arguments)]
    return CliRunner().invoke(main, command, env={"COLUMNS": "150"})


def test_check(layout: Layout, file: Path) -> None:
    result = run(layout, "rules", "check", file)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{file}: 1 rules, and nothing is wrong with them\n",
    )
    file.write_text(HOT + 'fro = "1s"\nthen = ["fax:1"]\n')
    result = run(layout, "rules", "check", file)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f'Error: {file}:6: rule "hot": fro has no meaning here; is it for?',
        f"{file}:7: rule \"hot\": then: 'fax:1' begins with none of webhook:, exec:,"
        " alertmanager:, mail:",
    ]


def test_replay_as_a_table(layout: Layout, file: Path, log: Path) -> None:
    result = run(layout, "rules", "replay", "--rules", file, "--until", END)
    assert result.exit_code == 0, result.output
    a, b = (line.split("│")[1:-1] for line in result.stdout.splitlines() if "is hot" in line)
    assert [cell.strip() for cell in a] == [
        "hot", "a", "2026-11-22T11:00:20Z", "2026-11-22T11:01:00Z", "00:00:40", "a is hot",
    ]  # fmt: skip
    assert [cell.strip() for cell in b] == [
        "hot", "b", "2026-11-22T11:01:50Z", "still fires", "00:58:10", "b is hot",
    ]  # fmt: skip
    assert result.stdout.splitlines()[-1] == "fired 2 times"


def test_replay_as_json(layout: Layout, file: Path, log: Path) -> None:
    options = ("--rules", file, "--format", "json")
    a, b = map(json.loads, run(layout, "rules", "replay", *options).stdout.splitlines())
    assert (a["device"], a["fired"], a["cleared"], a["seconds"]) == (
        "a", "2026-11-22T11:00:20.000000Z", "2026-11-22T11:01:00.000000Z", 40,
    )  # fmt: skip
    assert (b["device"], b["cleared"]) == ("b", None)
    now = datetime.now(UTC)
    assert 0 <= (now - BEGIN).total_seconds() - 110 - b["seconds"] < 600


def test_replay_between_two_times(layout: Layout, file: Path, log: Path) -> None:
    options = ("--rules", file, "--format", "json")
    result = run(layout, "rules", "replay", *options, "--since", "2026-11-22T11:01:00Z")
    assert [json.loads(line)["device"] for line in result.stdout.splitlines()] == ["b"]
    result = run(layout, "rules", "replay", *options, "--until", "2026-11-22T11:00:30Z")
    (only,) = map(json.loads, result.stdout.splitlines())
    assert (only["device"], only["cleared"], only["seconds"]) == ("a", None, 10)


def test_replay_says_the_same_as_what_was_live(layout: Layout, file: Path) -> None:
    send = Sender()
    runner = Runner(layout, rules(layout.data, HOT), lambda: START)
    with (layout.log_folder / "ingest.log").open("ab", buffering=0) as stream:
        for second in range(0, 600, 7):
            stream.write(send(second, f"temp={20 + second % 29}", f"d{second % 3}"))
            runner.step()
    runner.step()
    live = [event for event in runner.state.newest(1000) if event.event.firing]
    runner.close()
    replayed = run(layout, "rules", "replay", "--rules", file, "--format", "json",
                   "--until", "2026-11-22T11:10:00Z")  # fmt: skip
    again = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert len(live) > 3
    assert {each.event.id for each in live} <= {each["id"] for each in again}


@pytest.mark.parametrize(("kind", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_timeline(layout: Layout, file: Path, log: Path, kind: str, begins: bytes) -> None:
    picture = layout.data / f"timeline.{kind}"
    result = run(layout, "rules", "replay", "--rules", file, "--until", END, "--plot", picture)
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(begins)
    if kind == "svg":
        drawn = picture.read_text()
        assert "hot · a" in drawn
        assert "fired 2 times, in UTC" in drawn


def test_a_picture_of_no_kind(layout: Layout, file: Path, log: Path) -> None:
    result = run(layout, "rules", "replay", "--rules", file, "--plot", layout.data / "x.doc")
    assert result.exit_code == 1
    assert "can't draw" in result.stderr


def test_replay_without_a_log(tmp_path: Path, file: Path) -> None:
    result = run(Layout(tmp_path / "none"), "rules", "replay", "--rules", file)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: can't read the log in ")
    assert result.stderr.rstrip().endswith("is --data right?")


def test_rules_that_the_log_does_not_decide_are_left_out(
    layout: Layout, file: Path, log: Path
) -> None:
    file.write_text(HOT + '[[rule]]\nname = "disk"\ndisk_full_within = "1d"\n')
    result = run(layout, "rules", "replay", "--rules", file)
    assert result.stderr == "left out, as the log does not hold it: disk\n"


def test_without_the_extra_it_is_said_what_to_install(
    file: Path,
) -> None:
    hidden = "import sys; sys.modules |= dict.fromkeys(('cel_expr_python', 're2', 'numpy'))"
    program = f"{hidden}; from ingest.cli import main; main()"
    for arguments in (("check", file), ("test", file), ("replay", "--rules", file)):
        command = [sys.executable, "-c", program, "rules", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (
            1,
            "Error: this command needs more packages: pip install 'ingest[watch]'\n",
        )
    # The list of all commands needs none of them.
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert "rules" in done.stdout


CASES = """
rules = "rules.toml"

[[test]]
name = "hot for ten seconds"
until = "1m"
records = [
    {at = "0s", device = "a", text = "temp=31"},
    {at = "20s", device = "a", data = {temp = 20}},
    {at = "25s", device = "b", text = "temp=31"},
]
expect = [
    {rule = "hot", device = "a", fires = "10s", clears = "20s"},
    {rule = "hot", device = "b", fires = "35s"},
]

[[test]]
name = "cool"
records = [{at = "0s", device = "a", text = "temp=20"}]
"""


def test_tests_of_rules(layout: Layout, file: Path) -> None:
    cases = file.with_name("tests.toml")
    cases.write_text(CASES)
    result = run(layout, "rules", "test", cases)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "ok     hot for ten seconds", "ok     cool", "2 tests, 0 failed",
    ]  # fmt: skip
    file.write_text(HOT.replace("10s", "15s"))
    result = run(layout, "rules", "test", cases)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"FAILED hot for ten seconds ({cases}:4)",
        '       expected, but not so: "hot" fires on "a" at 10s and clears at 20s',
        '       expected, but not so: "hot" fires on "b" at 35s and does not clear',
        '       not expected: "hot" fires on "a" at 15s and clears at 20s',
        '       not expected: "hot" fires on "b" at 40s and does not clear',
        "ok     cool",
        "2 tests, 1 failed",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =\n", "Invalid value"),
        ("[[test]]", "there is no rules"),
        ('rules = "rules.toml"', "there is no test"),
        ('rules = "none.toml"\ntest = []', "No such file"),
        (CASES.replace('text = "temp=20"', 'txt = "x"'), "record 1: txt has no meaning here"),
        (CASES.replace(', text = "temp=20"', ""), "record 1: a record has a text or data"),
        (CASES.replace('at = "20s"', 'at = "x"'), "'x' is not a duration"),
        (CASES.replace('at = "20s"', 'at = "30s"'), "records stand in the order of their times"),
        (CASES.replace('fires = "10s", ', ""), "there is no fires"),
        (CASES.replace('rule = "hot"', 'rule = "cold"'), "there is no rule cold"),
    ],
)
def test_what_is_wrong_with_tests_is_said(layout: Layout, file: Path, text: str, said: str) -> None:
    cases = file.with_name("tests.toml")
    cases.write_text(text)
    result = run(layout, "rules", "test", cases)
    assert result.exit_code == 1
    assert said in result.stderr
    assert not isinstance(result.exception, AttributeError | KeyError)


def test_tail_shows_the_alerts(layout: Layout) -> None:
    send = Sender()
    runner = Runner(layout, rules(layout.data, HOT), lambda: START)
    with (layout.log_folder / "ingest.log").open("ab", buffering=0) as stream:
        stream.write(send(0, "temp=31") + send(20, "temp=1") + send(30, "temp=31", "b"))
        stream.write(send(50, "x", "b"))
    runner.step()
    runner.close()
    found = run(layout, "tail", "--alerts").stdout.splitlines()
    assert [(each["device"], each["data"]["state"]) for each in map(json.loads, found)] == [
        ("a", "firing"), ("a", "cleared"), ("b", "firing"),
    ]  # fmt: skip
    only = run(layout, "tail", "--alerts", "--device", "b", "--pretty").stdout
    assert only.startswith("2026-11-22T11:00:40.000000Z b 3 {")
