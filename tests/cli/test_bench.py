"""`ingest bench` with real listeners: what it counts, never how long it took."""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingest.bench import local
from ingest.cli import main
from ingest.layout import Layout


@pytest.fixture(autouse=True)
def checkout_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `twistd` find the plugin where the package is not installed."""
    checkout = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (checkout, checkout / "plugins"))))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def figures(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.output)
    assert report["failures"] == {}
    return report


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dialect", "text"),
        ("--dialect", "msgpack"),
        ("--dialect", "msgpack", "--size", "33"),
        ("--size", "65536"),
        ("--pattern", "single"),
        ("--pattern", "single", "--dialect", "msgpack", "--scram"),
        ("--rate", "500"),
        ("--tls",),
        ("--processes", "2"),
    ],
)
def test_every_frame_is_sent_and_acknowledged(arguments: tuple[str, ...]) -> None:
    report = figures("--local", "--devices", "7", "--frames", "1003", *arguments)
    assert report["devices"] == report["connected"] == 7
    assert report["frames"] == report["acknowledged"] == 1003
    assert 0 < report["latency"]["p50"] <= report["latency"]["p99"] <= report["latency"]["max"]
    assert report["listener"]["resident"] > 0


@pytest.mark.parametrize("arguments", [(), ("--tls",), ("--pattern", "single")])
def test_without_acks(arguments: tuple[str, ...]) -> None:
    report = figures("--devices", "3", "--frames", "1000", "--ack", "none", *arguments)
    assert (report["frames"], report["acknowledged"]) == (1000, 0)
    assert report["latency"] is None


def test_for_a_time() -> None:
    report = figures("--devices", "3", "--for", "300ms")
    assert report["frames"] == report["acknowledged"] > 0


def test_idle() -> None:
    report = figures("--devices", "20", "--idle", "--for", "100ms")
    assert (report["connected"], report["frames"]) == (20, 0)
    assert report["listener"]["per_connection"] is not None


def test_for_a_person() -> None:
    result = run("--devices", "2", "--frames", "100")
    assert result.exit_code == 0, result.output
    assert "connections   2 of 2, " in result.output
    assert "frames        100 in " in result.output
    assert ", 100 acknowledged\n" in result.output


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    layout = Layout(tmp_path / "data")
    devices = local.make_devices(2)
    local.register(layout, devices)
    with (tmp_path / "tokens.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "token"), *devices, ("stranger", "wrong")])
    port = local.free_port()
    with local.listener(layout, port):
        yield port


def test_a_listener_that_runs_already(port: int, tmp_path: Path) -> None:
    to = ("--to", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "tokens.csv"))
    report = figures(*to, "--devices", "2", "--frames", "10")
    assert (report["acknowledged"], report["listener"]) == (10, None)
    result = run(*to, "--devices", "3", "--frames", "10", "--json")
    assert json.loads(result.output)["failures"] == {"auth-failed": 1}
    result = run(*to, "--devices", "4")
    assert result.output.endswith(
        "has names and tokens of 3 devices: give it 4, or set --devices lower\n"
    )


def test_nobody_listens(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("name,token\na,b\n")
    to = ("--to", f"127.0.0.1:{local.free_port()}", "--token-file", str(tokens), "--devices", "1")
    result = run(*to, "--frames", "1")
    assert result.exit_code == 1
    assert "failed        1: Connection refused" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--local", "--to", "h:1"), "--local and --to exclude each other"),
        (("--to", "h:1"), "--to needs --token-file FILE, a CSV with the header name,token"),
        (("--to", "h"), "'h' is not HOST:PORT"),
        (("--rate", "0"), "'0' is neither max nor a number of frames a second"),
        (("--size", "0"), "'0' is not a size from 1 to 16MiB"),
        (("--for", "soon"), "'soon' is not a duration"),
        (("--idle", "--frames", "1"), "--idle sends no frames: leave out --frames and --rate"),
    ],
)
def test_a_command_line_without_sense(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
