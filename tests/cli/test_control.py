"""What `ingest status` and its like make of a listener's answers, over a real socket."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout

TOTAL = {
    "received_frames": 12, "received_bytes": 1200, "written_frames": 10, "written_bytes": 1000,
    "waiting_frames": 1, "acknowledged_frames": 10, "refused_frames": {"bad-frame": 1},
}  # fmt: skip
PLAIN = {
    "health": "ok", "reason": "", "connections": 1, "devices_connected": 1, "waiting_bytes": 100,
    "total": TOTAL, "devices": {},
}  # fmt: skip
FULL = PLAIN | {
    "uptime_s": 93784.2, "frames_per_s": 1234.5, "bytes_per_s": 2048.0, "pid": 77,
    "version": "1.2.3", "oldest_silence_s": 125.0, "oldest_silence_device": "sensor-7",
    "disk_free_bytes": 5 << 30, "disk_full_in_s": 14 * 86400.0,
    "settings": {"keep-days": "9", "listen": "tcp:7650 tcp:7651"},
    "listening": ["[::]:7650", "10.0.0.5:7651"], "errors": {"busy": 3},
    "ack_latency_s": {"p50": 0.0042, "p99": 1.25},
    "handshakes": {"PLAIN/ok": 5}, "holding_until_s": 0,
}  # fmt: skip

Answers = dict[str, Any]


@pytest.fixture
def answers(layout: Layout) -> Iterator[Answers]:
    """What a listener answers to each command."""
    known: Answers = {}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            command = json.loads(self.rfile.readline())["command"]
            answer = {"ok": known[command]} if command in known else {"error": "unknown command"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(layout.control), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def run(layout: Layout, answers: Answers) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(main, ["--data", str(layout.data), *arguments])


Run = Callable[..., Result]


def test_all_that_a_listener_says(run: Run, answers: Answers) -> None:
    answers["status"] = FULL
    lines = [line.rstrip() for line in run("status").stdout.splitlines()]
    assert lines[:7] == [
        "health: ok; 1 device connected, 1 connection",
        "listening on: [::]:7650 10.0.0.5:7651",
        "listener: version 1.2.3, up for 1 d 2 h, pid 77",
        "rate: 1,234.5 frames/s, 2.0 KiB/s",
        "acknowledged after: p50 4.2 ms, p99 1,250.0 ms",
        "longest silence: 2 min 5 s, sensor-7",
        "disk: 5.0 GiB free; full in 14 d at this rate",
    ]
    assert [line.split() for line in lines if "refused: bad" in line] == [
        ["refused:", "bad-frame", "1"]
    ]
    assert any(line.split() == ["ended", "by:", "busy", "3"] for line in lines)
    assert any(line.split() == ["handshakes:", "PLAIN/ok", "5"] for line in lines)
    assert lines[-3:] == ["settings in force:", "  keep-days = 9", "  listen = tcp:7650 tcp:7651"]


def test_an_older_listener_says_less(run: Run, answers: Answers) -> None:
    answers["status"] = PLAIN
    result = run("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "health: ok; 1 device connected, 1 connection"
    assert json.loads(run("status", "--json").stdout) == PLAIN


def test_what_is_not_known_is_left_out(run: Run, answers: Answers) -> None:
    answers["status"] = FULL | {"disk_full_in_s": None, "oldest_silence_device": ""}
    text = run("status").stdout
    assert "disk: 5.0 GiB free\n" in text
    assert "silence" not in text


def test_what_is_not_well(run: Run, answers: Answers) -> None:
    answers["status"] = FULL | {"health": "registry-failing", "reason": "\x1b[2Jno"}
    result = run("status")
    assert result.exit_code == 2
    assert result.stdout.startswith("health: registry-failing (\\x1b[2Jno); ")


def test_that_the_log_is_held(run: Run, answers: Answers) -> None:
    answers["status"] = FULL | {"holding_until_s": 42.0}
    assert "log: held for another 42 s; go on: ingest release\n" in run("status").stdout


def test_rotate(run: Run, answers: Answers, layout: Layout) -> None:
    answers["rotate"] = "ingest-1.log"
    assert run("rotate").stdout == f"rotated to {layout.log_folder}/ingest-1.log\n"
    answers["rotate"] = None
    assert run("rotate").stdout == "the log file is empty\n"


@pytest.fixture
def devices(layout: Layout, answers: Answers) -> None:
    with Registry(layout.devices) as registry:
        registry.add_many((name, derive("t"), "") for name in ("away", "busy", "quiet"))
        registry.record_seen([("busy", "2026-01-01T00:00:00Z", "old:1")])
    answers["connections"] = [
        {"device": "busy", "peer": "h:1", "heard_s_ago": 0.2, "is_proved": True},
        {"device": "quiet", "peer": "h:2\x1b", "heard_s_ago": 7200.0, "is_proved": True},
        {"device": "quiet", "peer": "impostor:1", "heard_s_ago": 0.1, "is_proved": False},
        {"device": "", "peer": "h:3", "heard_s_ago": 0.1, "is_proved": False},
    ]


@pytest.mark.usefixtures("devices")
def test_the_connected(run: Run) -> None:
    listed = json.loads(run("device", "list", "--connected", "--json").stdout)
    assert [(each["name"], each["last_peer"]) for each in listed] == [
        ("busy", "h:1"), ("quiet", "h:2\x1b")
    ]  # fmt: skip
    assert listed[0]["last_seen"] > "2026-01-01T00:00:00Z"
    assert "\x1b" not in run("device", "list", "--connected").stdout


@pytest.mark.usefixtures("devices")
def test_the_silent(run: Run, answers: Answers) -> None:
    def names(*arguments: str) -> list[str]:
        listed = json.loads(run("device", "list", "--json", *arguments).stdout)
        return [each["name"] for each in listed]

    assert names("--connected", "--silent", "1h") == ["quiet"]
    assert names("--connected", "--silent", "3h") == []
    assert names("--silent", "1h") == ["away", "quiet"]
    answers.clear()
    assert names("--silent", "1h") == ["away", "busy", "quiet"]


@pytest.mark.parametrize(
    ("listening", "command"),
    [
        ([("tcp:7000", "0.0.0.0:7000")], "nc -N 127.0.0.1 7000"),
        ([("tcp6:7000", "[::]:7000")], "nc -N ::1 7000"),
        ([("ssl:7651:privateKey=k", "0.0.0.0:7651"), ("tcp:7", "10.0.0.5:7")], "nc -N 10.0.0.5 7"),
        ([("other=tcp:5", "0.0.0.0:5"), ("ingest/1=tcp:6", "0.0.0.0:6")], "nc -N 127.0.0.1 6"),
        ([("haproxy:tcp:5", "0.0.0.0:5")], "nc -N 127.0.0.1 7650"),
        ([("unix:/run/x", "/run/x")], "nc -N 127.0.0.1 7650"),
        (
            [("ssl:7651:privateKey=k", "0.0.0.0:7651")],
            "(cat; sleep 1) | openssl s_client -quiet -no_ign_eof -nocommands"
            " -connect 127.0.0.1:7651",
        ),
        ([], "nc -N 127.0.0.1 7650"),
    ],
)
def test_the_line_to_paste_names_the_real_port(
    run: Run, answers: Answers, listening: list[tuple[str, str]], command: str
) -> None:
    answers["status"] = PLAIN | {
        "listening": [address for _, address in listening],
        "settings": {"listen": " ".join(endpoint for endpoint, _ in listening)},
    }
    result = run("device", "add", "sensor-1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].partition(" | ")[2] == command
