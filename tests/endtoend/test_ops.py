"""What an operator's programs see of a running listener: metrics, health, and word to systemd."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingest.ops.control import ask
from ingest.ops.web import MAX_CONNECTIONS
from tests.support.devices import Device, PackedDevice, TextDevice
from tests.support.listeners import Listener
from tests.support.processes import TWISTD, run
from tests.support.waiting import PATIENCE, wait_for

HTTP = ("--http", "tcp:0:interface=127.0.0.1")


def port_of(listener: Listener) -> int:
    found = re.search(r"metrics and health on 127\.0\.0\.1:(\d+)\n", listener.output)
    assert found, listener.output
    return int(found[1])


def get(port: int, path: str, token: str = "", method: str = "GET") -> tuple[int, str]:
    """Ask, and return the status and the text."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def metrics(port: int, token: str = "") -> dict[str, float]:
    """Return all samples, by name and labels as they are written."""
    status, text = get(port, "/metrics", token)
    assert status == 200, text
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    """A listener that answers over HTTP."""
    with Listener(tmp_path_factory.mktemp("watched") / "data", *HTTP) as listener:
        yield listener


def test_the_metrics_agree_with_the_books(watched: Listener) -> None:
    port = port_of(watched)
    before = metrics(port)
    watched.add("sensor-1", "sensor-2")
    with TextDevice(watched.addresses[0]) as text, PackedDevice(watched.addresses[0]) as packed:
        text.log_in("sensor-1")
        packed.log_in("sensor-2")
        text.push_all("a", "b", "c", last=3)
        packed.push_all("d", "e", last=2)
        with TextDevice(watched.addresses[0]) as stranger:
            stranger.send(stranger.plain("sensor-1", token="wrong"))
            assert stranger.last_words() == "auth-failed"
        text.send(b"x" * 70_000)
        assert text.last_words() == "frame-too-long"
        wait_for(lambda: metrics(port)["ingest_devices_connected"] == 1, "the end of the first")
        after = metrics(port)
    status = watched.status()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    total = status["total"]
    by_protocol = "{protocol=ingest/1}"
    assert more(f"ingest_received_frames_total{by_protocol}") == total["received_frames"] == 6
    assert more(f"ingest_written_frames_total{by_protocol}") == total["written_frames"] == 5
    assert more(f"ingest_acknowledged_frames_total{by_protocol}") == 5
    assert more(f"ingest_received_bytes_total{by_protocol}") == total["received_bytes"]
    assert more(f"ingest_written_bytes_total{by_protocol}") == total["written_bytes"]
    assert after["ingest_refused_frames_total{protocol=ingest/1,reason=frame-too-long}"] == 1
    assert more("ingest_handshakes_total{mechanism=PLAIN,result=ok}") == 2
    assert more("ingest_handshakes_total{mechanism=PLAIN,result=auth-failed}") == 1
    for reason in ("auth-failed", "no-proxy-header", "tls-failed", "registry-failed"):
        assert before[f"ingest_connection_errors_total{{reason={reason}}}"] == 0
    assert more("ingest_connection_errors_total{reason=auth-failed}") == 1
    assert more("ingest_connections_accepted_total") == 3
    commits = more("ingest_commit_duration_seconds_count")
    assert commits >= 2
    assert more("ingest_commit_size_bytes_sum") == total["written_bytes"]
    assert more("ingest_fsync_duration_seconds_count") == commits
    assert 1 <= more("ingest_ack_latency_seconds_count") <= commits
    assert after["ingest_ready"] == 1 and after["ingest_waiting_bytes"] == 0
    assert after["ingest_disk_free_bytes"] > 0
    assert after["process_resident_memory_bytes"] > 1e6


def test_no_metric_names_a_device(watched: Listener, request: pytest.FixtureRequest) -> None:
    watched.add("very-special-name")
    with TextDevice(watched.addresses[0]) as device:
        device.log_in("very-special-name")
        device.push_all("a", last=1)
        text = get(port_of(watched), "/metrics")[1]
    assert "very-special-name" not in text and "device=" not in text


def test_rotations_are_counted(watched: Listener) -> None:
    port = port_of(watched)
    before = metrics(port)["ingest_rotations_total"]
    watched.add("turner")
    with TextDevice(watched.addresses[0]) as device:
        device.log_in("turner")
        device.push_all("a", last=1)
    watched.ingest("rotate")
    assert metrics(port)["ingest_rotations_total"] == before + 1


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_the_metrics_keep_the_conventions(watched: Listener) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=get(port_of(watched), "/metrics")[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_all_is_well(watched: Listener, path: str) -> None:
    assert get(port_of(watched), path) == (200, "ok\n")
    assert get(port_of(watched), path, method="HEAD") == (200, "")


def test_what_is_not_there(watched: Listener) -> None:
    port = port_of(watched)
    assert get(port, "/")[0] == 404
    assert get(port, "/readyz", method="POST")[0] == 405


def test_who_holds_connections_takes_none_from_devices(watched: Listener) -> None:
    port = port_of(watched)
    with ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            for _ in range(MAX_CONNECTIONS + 5)
        ]
        for oldest in held[:5]:
            with pytest.raises(ConnectionResetError):
                oldest.recv(1)
        descriptors = len(os.listdir(f"/proc/{watched.pid}/fd"))  # noqa: PTH208
        assert descriptors < MAX_CONNECTIONS + 100
        assert get(port, "/livez") == (200, "ok\n"), "whoever asks gets an answer"


def test_who_asks_a_byte_at_a_time_keeps_nobody_out(watched: Listener) -> None:
    port = port_of(watched)
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            slow.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        for _ in range(2 * MAX_CONNECTIONS):
            assert get(port, "/livez") == (200, "ok\n")


# Who may read the metrics.


def refused(tmp_path: Path, *options: str) -> str:
    """Start a listener that refuses to; return the line that says why."""
    listen = ("--data", tmp_path / "data", "--listen", "tcp:0:interface=127.0.0.1")
    started = run(TWISTD, "-n", "--pidfile=", "ingest", *listen, *options)
    assert started.returncode == 1
    (line,) = [text for text in started.stderr.splitlines() if "can't start" in text]
    return line


def test_others_may_not_read_without_a_token(tmp_path: Path) -> None:
    line = refused(tmp_path, "--http", "tcp:0")
    assert "other hosts could read the metrics; give a token by --http-token-file" in line


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("\n", "it is empty"), ("\xe4", "ASCII")]
)
def test_a_token_file_that_holds_none(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    line = refused(tmp_path, "--http", "tcp:0", "--http-token-file", str(path))
    assert f"--http-token-file {path}: " in line and words in line


@pytest.mark.parametrize("endpoint", ["nonsense", "haproxy:tcp:0", "tcp:0:interface=192.0.2.1"])
def test_an_endpoint_that_can_not_be_had(tmp_path: Path, endpoint: str) -> None:
    assert f"--http {endpoint}: " in refused(tmp_path, "--http", endpoint)


def test_with_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    options = ("--http", "tcp:0", "--http-token-file", str(token))
    with Listener(tmp_path / "data", *options) as listener:
        found = re.search(r"metrics and health on 0\.0\.0\.0:(\d+)\n", listener.output)
        assert found
        port = int(found[1])
        assert get(port, "/metrics")[0] == get(port, "/metrics", "wrong")[0] == 401
        assert get(port, "/readyz") == (200, "ok\n")
        assert metrics(port, "first")["ingest_ready"] == 1
        token.write_text("second\n")
        os.kill(listener.pid, signal.SIGHUP)
        wait_for(lambda: get(port, "/metrics", "second")[0] == 200, "the new token")
        assert get(port, "/metrics", "first")[0] == 401
        token.unlink()
        os.kill(listener.pid, signal.SIGHUP)
        wait_for(lambda: "the token stays as it is" in listener.output, "the reload")
        assert get(port, "/metrics", "second")[0] == 200


def test_a_unix_socket_needs_no_token(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with (
        Listener(tmp_path / "data", "--http", f"unix:{path}"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.0 200 OK")


# When something is wrong.


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    assert run("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder).returncode == 0
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder)


def fill(path: Path) -> None:
    """Let a file take all the room that is left."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))


def test_a_full_disk(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk") as disk,
        Listener(disk / "data", *HTTP, output=tmp_path / "output") as listener,
    ):
        port = port_of(listener)
        listener.add("writer")
        ballast = disk / "ballast"
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("writer")
            device.push_all("before", last=1)
            fill(ballast)
            frames = ["x" * 1000] * 100
            device.push(*frames)
            wait_for(lambda: get(port, "/readyz")[0] == 503, "the disk to be full")
            assert get(port, "/readyz") == (503, "disk-failing: No space left on device\n")
            assert get(port, "/healthz")[0] == 503
            assert get(port, "/livez") == (200, "ok\n")
            full = metrics(port)
            assert full["ingest_ready"] == 0
            assert full["ingest_trouble{kind=disk-failing}"] == 1
            assert full["ingest_waiting_bytes"] > 0
            assert 0 < full["ingest_waiting_frames{protocol=ingest/1}"] <= 100
            (connection,) = ask(listener.layout.control, "connections")
            assert connection["is_paused"] and connection["waiting_frames"] > 0
            wait_for(
                lambda: metrics(port)["ingest_paused_seconds_total"] > 0, "the pause to be counted"
            )
            ballast.unlink()
            wait_for(lambda: get(port, "/readyz") == (200, "ok\n"), "the disk to take records")
            device.wait_for_ack(101)
            well = metrics(port)
            assert well["ingest_ready"] == 1
            assert well["ingest_trouble{kind=disk-failing}"] == 0
            paused = well["ingest_paused_seconds_total"]
            assert paused > 0
            assert metrics(port)["ingest_paused_seconds_total"] == paused


def test_while_it_stops(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", *HTTP) as listener:
        port = port_of(listener)
        listener.add("lingerer")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("lingerer")
            os.kill(listener.pid, signal.SIGTERM)
            wait_for(lambda: get(port, "/readyz")[0] == 503, "the stop")
            assert get(port, "/readyz")[1].startswith("stopping: ")
            assert get(port, "/livez") == (200, "ok\n")
            assert metrics(port)["ingest_ready"] == 0
            assert device.last_words() == "shutting-down"


# What systemd hears.


def test_systemd_hears_of_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)

        def hear(word: str) -> list[str]:
            while True:
                message = manager.recv(4096).decode().split("\n")
                if message[0] == word:
                    return message

        environment = (f"NOTIFY_SOCKET={tmp_path}/notify", "WATCHDOG_USEC=100000")
        pauses = {"ingest.service.snapshot.SAMPLES": 0.1}
        with Listener(tmp_path / "data", under=("env", *environment), pauses=pauses) as listener:
            assert hear("READY=1")[1] == "STATUS=ok; 0 devices connected, 0 frames/s"
            for _ in range(3):
                hear("WATCHDOG=1")
            os.kill(listener.pid, signal.SIGHUP)
            assert re.fullmatch(r"MONOTONIC_USEC=\d+", hear("RELOADING=1")[1])
            hear("READY=1")
            listener.add("sensor-1")
            with TextDevice(listener.addresses[0]) as device:
                device.log_in("sensor-1")
                hear("STATUS=ok; 1 device connected, 0 frames/s")
            listener.stop()
            assert hear("STOPPING=1")[1].startswith("STATUS=stopping")


# What is asked by the control socket.


def test_the_list_of_connections(watched: Listener, dialect: type[Device]) -> None:
    name = f"listed-{dialect.field}"
    watched.add(name)
    with dialect(watched.addresses[0]) as device:
        device.log_in(name)
        device.push_all("a", "b", last=2)
        listed = {each["device"]: each for each in ask(watched.layout.control, "connections")}
    found = listed[name]
    assert found["protocol"] == "ingest/1" and found["phase"] == "open" and found["is_proved"]
    assert found["peer"].startswith("127.0.0.1")
    assert (found["acknowledged"], found["waiting_frames"], found["waiting_bytes"]) == (2, 0, 0)
    assert found["is_paused"] is False
    assert 0 <= found["heard_s_ago"] <= found["connected_s"]


# The daemon's own log.


@pytest.mark.parametrize("style", ["stdout", "logfile", "background"])
def test_a_log_of_json(tmp_path: Path, style: str) -> None:
    if style == "stdout":
        with Listener(tmp_path / "data", "--log-format", "json") as listener:
            pass
        lines = listener.output.splitlines()
    else:
        lines = _logged(tmp_path, in_background=style == "background")
    events = [json.loads(line) for line in lines]
    keys = {"time", "level", "namespace", "message", "fields"}
    assert all(event.keys() == keys for event in events)
    (event,) = [event for event in events if event["message"].startswith("listening on")]
    assert (event["level"], event["namespace"]) == ("info", "ingest")
    assert event["fields"]["address"] in event["message"]
    assert events[-1]["message"] == "Server Shut Down."


def _logged(tmp_path: Path, *, in_background: bool) -> list[str]:
    log, pid = tmp_path / "own.log", tmp_path / "pid"
    options = [] if in_background else ["-n"]
    process = subprocess.Popen(
        [TWISTD, *options, "--pidfile", pid, "--logfile", log, "ingest", "--data",
         tmp_path / "data", "--listen", "tcp:0:interface=127.0.0.1", "--log-format", "json"]
    )  # fmt: skip
    has: Callable[[str], bool] = lambda words: log.exists() and words in log.read_text()  # noqa: E731
    wait_for(lambda: has("may connect") and pid.exists(), "the start")
    os.kill(int(pid.read_text()), signal.SIGTERM)
    wait_for(lambda: has("Server Shut Down."), "the stop")
    process.wait(PATIENCE)
    return log.read_text().splitlines()


@pytest.mark.parametrize("other", [("--syslog",), ("--logger", "twisted.logger.STDLibLogObserver")])
def test_a_log_of_json_that_goes_elsewhere(tmp_path: Path, other: tuple[str, ...]) -> None:
    options = ("--data", tmp_path, "--log-format", "json")
    started = run(TWISTD, "-n", "--pidfile=", *other, "ingest", *options)
    assert started.returncode == 1
    assert f"--log-format json makes no sense with twistd's {other[0]}" in started.stderr
