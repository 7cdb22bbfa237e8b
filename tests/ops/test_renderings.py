"""The contract of whatever shows the snapshot of a listener: nothing of it is forgotten silently.

Each field of `Status` changes each rendering, or is in the table of what that one leaves out. So
whoever adds a field decides where it is seen, and whoever adds a rendering what it shows.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

import ingest
from ingest.cli.control import _show
from ingest.ops.metrics import Metrics
from ingest.ops.status import TROUBLES, Counts, Status

BASE = Status(
    health="ok", reason="", version="1", pid=1, uptime_s=100.0, connections=1, max_connections=10,
    connections_accepted=1, devices_connected=1, oldest_silence_s=1.0, oldest_silence_device="a",
    frames_per_s=1.0, bytes_per_s=1.0, waiting_bytes=1, is_paused=False, paused_s=1.0, rotations=1,
    holding_until_s=1.0, disk_free_bytes=1 << 20, disk_full_in_s=None, errors={}, handshakes={},
    listening=["127.0.0.1:1"], dialled={"devices": 1, "down": 0, "calls": 1, "failures": 0},
    settings={"a": "1"}, total=Counts(), protocols={"ingest/1": Counts()}, devices={"a": Counts()},
)  # fmt: skip
MUCH = Counts(7, 7 << 20, 7, 7 << 20, 7, {"bad-frame": 7}, 7, 7)
OTHER: dict[str, Any] = {
    "health": "disk-failing", "reason": "full", "version": "2", "pid": 2, "uptime_s": 200_000.0,
    "connections": 2, "max_connections": 20, "connections_accepted": 2, "devices_connected": 2,
    "oldest_silence_s": 200.0, "oldest_silence_device": "b", "frames_per_s": 20.0,
    "bytes_per_s": 2e6, "waiting_bytes": 2 << 20, "is_paused": True, "paused_s": 2.0,
    "rotations": 2, "holding_until_s": 20.0, "disk_free_bytes": 2 << 20, "disk_full_in_s": 20.0,
    "errors": {"busy": 2}, "handshakes": {"PLAIN/ok": 2}, "listening": ["127.0.0.1:2"],
    "dialled": {"devices": 2, "down": 1, "calls": 3, "failures": 1}, "settings": {"a": "2"},
    "total": MUCH, "protocols": {"ingest/1": MUCH}, "devices": {"a": MUCH},
}  # fmt: skip
"""Another value of each field."""

Rendering = Callable[[Status, pytest.CaptureFixture[str]], str]


def in_metrics(status: Status, _: object) -> str:
    text = Metrics(["ingest/1"], ["busy"]).render(status, is_ready=True).decode()
    return "\n".join(line for line in text.splitlines() if "process_" not in line)


def in_words(status: Status, _: object) -> str:
    return status.in_words()


def in_json(status: Status, _: object) -> str:
    return orjson.dumps(status).decode()


def in_the_terminal(status: Status, capsys: pytest.CaptureFixture[str]) -> str:
    _show(orjson.loads(orjson.dumps(status)))
    return capsys.readouterr().out


RENDERINGS: dict[str, Rendering] = {
    "metrics": in_metrics,
    "words": in_words,
    "json": in_json,
    "terminal": in_the_terminal,
}
LEFT_OUT = {
    "metrics": {
        "reason", "pid", "uptime_s", "oldest_silence_device", "frames_per_s", "bytes_per_s",
        "is_paused", "holding_until_s", "listening", "dialled", "settings", "total", "devices",
    },
    "words": {field.name for field in fields(Status)}
    - {"health", "reason", "devices_connected", "frames_per_s"},
    "json": set[str](),
    "terminal": {
        "max_connections", "connections_accepted", "is_paused", "paused_s", "rotations",
        "protocols", "devices",
    },
}  # fmt: skip
"""What a rendering does not show, by intent."""


def test_each_field_has_another_value() -> None:
    assert OTHER.keys() == {field.name for field in fields(Status)}


@pytest.mark.parametrize("name", RENDERINGS)
@pytest.mark.parametrize("field", OTHER)
def test_a_field_is_shown_or_left_out_by_intent(
    name: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    render = RENDERINGS[name]
    before = render(BASE, capsys)
    after = render(replace(BASE, **{field: OTHER[field]}), capsys)
    assert (before != after) == (field not in LEFT_OUT[name])


@pytest.mark.parametrize("name", RENDERINGS)
@pytest.mark.parametrize("health", TROUBLES)
def test_every_trouble_is_named(name: str, health: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health in RENDERINGS[name](replace(BASE, health=health, reason="why"), capsys)


def takers(tree: ast.AST) -> Iterator[str]:
    """Return the public functions that are given a whole snapshot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            kinds = [ast.unparse(each.annotation) for each in node.args.args if each.annotation]
            if {"Summary", "Status"} & set(kinds):
                yield node.name


def test_no_rendering_is_left_out() -> None:
    """A function that is given a snapshot is in the table; the others take what `ask` answers."""
    root = Path(ingest.__file__).parent
    found = {taker for path in root.rglob("*.py") for taker in takers(ast.parse(path.read_text()))}
    assert found == {"render"}
