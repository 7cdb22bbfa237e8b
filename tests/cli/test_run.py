"""`ingest run` is `twistd -n ingest`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.layout import Layout
from ingest.ops.control import ask
from tests.support.listeners import ANY_PORT
from tests.support.processes import INGEST, TWISTD, run
from tests.support.waiting import PATIENCE, wait_for

OURS = [(INGEST, "run"), (sys.executable, "-m", "ingest")]


@contextmanager
def started(*command: str | Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "INGEST_DATA"}
    with (cwd / "out.txt").open("w") as out:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, text=True, stdout=out, stderr=out
        )
    try:
        wait_for(lambda: "may connect\n" in (cwd / "out.txt").read_text(), "its start")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


@pytest.mark.parametrize("command", OURS, ids=["ingest run", "python -m ingest"])
def test_it_runs_a_listener(tmp_path: Path, command: tuple[str | Path, ...]) -> None:
    data = tmp_path / "data"
    with started(*command, "--data", data, "--listen", ANY_PORT, cwd=tmp_path) as process:
        assert ask(Layout(data).control, "status")["health"] == "ok"
    assert process.returncode in {0, -signal.SIGTERM}
    assert "stopped: all acknowledged frames are on disk" in (tmp_path / "out.txt").read_text()
    assert not (tmp_path / "twistd.pid").exists()


def test_the_data_folder_may_be_named_before_it(tmp_path: Path) -> None:
    with started(INGEST, "--data", "before", "run", "--listen", ANY_PORT, cwd=tmp_path):
        assert (tmp_path / "before" / "log").is_dir()


def test_a_file_may_name_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(f'data = "held"\nlisten = "{ANY_PORT}"\n')
    with started(INGEST, "run", "--config", "ingest.toml", cwd=tmp_path):
        assert (tmp_path / "held" / "log").is_dir()


def _options(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", OURS, ids=["ingest run", "python -m ingest"])
def test_it_has_the_same_options(command: tuple[str | Path, ...], option: str) -> None:
    ours, twistd = run(*command, option), run(TWISTD, "ingest", "--help")
    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout.startswith("Usage: ingest run [options]\n")
    assert set(_options(ours.stdout)) == set(_options(twistd.stdout))


@pytest.mark.parametrize("arguments", [("--listn", "tcp:1"), ("--rotate-size", "x"), ("surplus",)])
def test_what_makes_no_sense_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = run(INGEST, "run", *arguments, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("ingest run: ")
    assert result.stderr.endswith("; see ingest run --help\n")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", ["20", "wide"])
def test_help_on_a_narrow_terminal(columns: str) -> None:
    for command in ((INGEST, "run"), (TWISTD, "ingest"), (TWISTD, "ingest-watch")):
        shown = run("env", f"COLUMNS={columns}", *command, "--help")
        assert (shown.returncode, shown.stderr) == (0, "")
