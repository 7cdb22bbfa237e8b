"""What the README says is true: its commands, its tour, its tables."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

from ingest.cli import main
from ingest.layout import Layout
from ingest.service.parts import DRAIN
from ingest.service.reading import read_settings
from ingest.service.settings import DEFAULT_LISTEN, Settings, option_name
from ingest.service.tap import Options
from ingest.watch.packages import PACKAGES
from tests.support.listeners import Listener
from tests.support.processes import INGEST
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OPERATING = (ROOT / "deploy" / "OPERATING.md").read_text()

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder in ("*", "ingest/**/*", "deploy/**/*", "tests/**/*")
    for path in ROOT.glob(f"{folder}.md")
)

RUN = "python3 -m venv .venv && .venv/bin/pip install -q '.[watch]' && .venv/bin/ingest demo"
TEST = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"


def section(heading: str, document: str = README) -> str:
    """Return what stands below a heading, up to the next of its level or above."""
    level = heading.index(" ")
    _, found, rest = document.partition(f"\n{heading}\n")
    assert found, heading
    return re.split(rf"\n#{{1,{level}}} ", rest)[0]


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def rows(text: str) -> Iterator[list[str]]:
    """Go through the rows of a text's tables, their heads included."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_two_commands_stand_there() -> None:
    assert blocks(section("## Start here"), "sh") == [f"{RUN}\n", f"{TEST}\n"]


def test_the_table_of_options_is_complete() -> None:
    table = {
        match[1]: default.strip("`")
        for option, default, *_ in rows(section("## Options of `twistd ingest`", OPERATING))
        if (match := re.match(r"`--([a-z-]+)", option))
    }
    names = {option_name(field.name) for field in fields(Settings)}
    assert table.keys() == (names - {"dial"}) | {"config", "listen-option"}
    assert table.keys() == {name.rstrip("=") for name in Options().longOpt} - {"version", "help"}
    assert table["listen"] == " ".join(map(str, DEFAULT_LISTEN))
    assert table["max-connections"] == "the limit of open files, less 256"
    assert "and 256 more" in (ROOT / "deploy" / "ingest.service").read_text()
    for field in fields(Settings):
        name = option_name(field.name)
        if field.metadata and name != "max-connections":
            assert table[name] == field.metadata["default"]


def test_the_file_of_settings_is_one(tmp_path: Path) -> None:
    file = blocks(section("## Options of `twistd ingest`", OPERATING), "toml")[0]
    path = tmp_path / "ingest.toml"
    path.write_text(file)
    settings = read_settings({}, path)
    assert settings.keep_days == tomllib.loads(file)["keep-days"]


def test_every_file_of_ours_is_named() -> None:
    told = section("## What lies where", OPERATING)
    layout = Layout(Path())
    names = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    for path in (getattr(layout, name) for name in names):
        assert f"`{path}" in told, path


def test_the_drain_time() -> None:
    assert f"That takes at most {DRAIN:g} seconds" in OPERATING


def commands(group: click.Group, path: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_the_table_of_commands_is_complete() -> None:
    assert isinstance(main, click.Group)
    cells = "".join(cell for cell, *_ in rows(section("## The `ingest` command")))
    named = {re.sub(r" [A-Z.]+.*", "", name) for name in re.findall(r"`(ingest [^`]+)`", cells)}
    assert named == set(commands(main, "ingest"))


def test_dependencies_are_named_with_their_reasons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["watch"]]
    wanted = {re.split("[>=<]", requirement)[0] for requirement in required}
    named = {package.strip("`") for package, _ in rows(section("## Dependencies"))}
    assert named - {"package", "---", "|---|---|"} == wanted


def test_all_of_the_extra_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.split("[>=<]", each)[0] for each in project["optional-dependencies"]["watch"]}
    distributions = packages_distributions()
    assert {distributions[name][0] for name in PACKAGES} == extra


def anchors(document: Path) -> set[str]:
    """Return what the headings of a document are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_benchmark_is_named() -> None:
    folder = ROOT / "tests" / "bench"
    named = (folder / "README.md").read_text()
    for program in folder.glob("*.py"):
        if "__main__" in program.read_text() and program.stem != "compare":
            assert f"`python -m tests.bench.{program.stem}" in named, program


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 2000


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = (ROOT / document).read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", text):
        path = ROOT / document.parent / target if target else ROOT / document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), (target, anchor)


def test_the_way_of_a_frame_names_functions() -> None:
    code = (ROOT / "ingest" / "CODE.md").read_text()
    steps = re.findall(r"`(\w+)` in \[\w+\.py\]\(([^)]+)\)", code)
    assert len(steps) == 12
    for function, file in steps:
        assert f"def {function}(" in (ROOT / "ingest" / file).read_text(), (function, file)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "ingest-data", cwd=tmp_path) as listener:
        yield listener


def shell(command: str, listener: Listener) -> str:
    """Run a line of the README's shell, in the folder and with the port of `listener`."""
    port = str(listener.addresses[0][1])
    path = os.pathsep.join((str(INGEST.parent), os.environ["PATH"]))
    done = subprocess.run(
        command.replace("7650", port), shell=True, cwd=listener.data.parent,
        env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def untimed(text: str) -> str:
    """Write TIME for each time of the listener."""
    return re.sub(r"[-0-9]{10}T[:0-9]{8}\.[0-9]{6}Z", "TIME", text)


def python(program: str, listener: Listener) -> str:
    """Run a program of the README with the port of `listener`."""
    port = str(listener.addresses[0][1])
    command = [sys.executable, "-c", program.replace("7650", port)]
    return subprocess.run(
        command,
        cwd=listener.data.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


def _timeless(said: str) -> str:
    return re.sub(r"time=\S+", "time=TIME", said)


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
def test_the_tour(listener: Listener) -> None:
    tour = section("## A tour")
    (_, start), (_, add, push), (send,), (tail,), (certify, _) = map(
        str.splitlines, blocks(tour, "sh")
    )
    assert start == "twistd -n ingest"
    added = shell(add, listener)
    assert push.split("'")[1].split(r"\n")[0] in added.splitlines()
    assert _timeless(shell(push, listener)) == _timeless(blocks(tour, "text")[0])
    program, client = blocks(tour, "python")
    assert len(program.replace("\n\n", "\n").splitlines()) == 10
    said = _timeless(python(program, listener))
    assert said == "OK device=sensor-1 next=3 max_frame=65536 time=TIME\n\nACK 4\n\n"
    python(client, listener)
    assert "1 acknowledged" in shell(send, listener)
    shell(certify, listener)
    log = shell(tail.replace("-F", "-n +1"), listener).splitlines()
    printed = blocks(tour, "json")[0].splitlines()
    untimed = slice(len('{"time":"2026-11-22T11:39:00.123456Z"'), None)
    assert [line[untimed] for line in log[:2]] == [line[untimed] for line in printed]
    assert log[4].endswith('"seq":5,"text":"temp=20.9"}')
    assert log[5].endswith('"seq":6,"data":{"temp":21.0}}')


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_lines_that_read_the_log(listener: Listener, tmp_path: Path) -> None:
    listener.add("sensor-1")
    frames = tmp_path / "frames"
    to = f"127.0.0.1:{listener.addresses[0][1]}"
    for option, frame in (("", "temp=20.5"), ("--msgpack", '{"temp":21}')):
        frames.write_text(frame)
        shell(f"INGEST_TOKEN=s3cr3t ingest send sensor-1 {option} --to {to} frames", listener)
    reading = section("## Reading the log", OPERATING)
    texts, temperatures, counts = (
        shell(line, listener) for line in blocks(reading, "sh")[1].splitlines()
    )
    assert texts == "temp=20.5\n"
    assert re.fullmatch(r"\S+Z\tsensor-1\t21\n", temperatures)
    assert counts == '{"device":"sensor-1","frames":2}\n'
    follow, grep, between = blocks(reading, "sh")[0].splitlines()
    assert "temp=20.5" in shell(grep, listener)
    assert shell(between, listener) == ""
    assert len(shell(follow.replace("-f", ""), listener).splitlines()) == 2


def test_the_lines_that_ask_the_log(listener: Listener, tmp_path: Path) -> None:
    listener.add("sensor-1")
    (tmp_path / "frames").write_text("temp=20.5\ntemp=21.5")
    to = f"127.0.0.1:{listener.addresses[0][1]}"
    shell(f"INGEST_TOKEN=s3cr3t ingest send sensor-1 --to {to} frames", listener)
    mean, plot, describe, export = blocks(section("## Reading the log", OPERATING), "sh")[
        2
    ].splitlines()
    assert re.search(r"│ sensor-1 │ +2 │ 20\S+Z │ 21\.0 │", shell(mean, listener))
    assert shell(plot, listener) == ""
    assert (tmp_path / "temp.png").stat().st_size > 0
    assert "\ntemp,DOUBLE," in shell(describe, listener)
    assert shell(export, listener) == ""
    assert (tmp_path / "day.parquet").stat().st_size > 0
