"""Starting a listener: its options, its configuration, and why it may not start."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.devices import PackedDevice, TextDevice
from tests.support.listeners import ANY_PORT, Listener
from tests.support.processes import TWISTD, run
from tests.support.waiting import wait_for

START = (TWISTD, "-n", "--pidfile=", "ingest")

OPTIONS = {
    "allow-plaintext-auth", "compress", "config", "data", "durability", "handshake-timeout", "http",
    "http-token-file", "idle-timeout", "keep-bytes", "keep-days", "keep-files", "listen",
    "listen-option", "log-format", "max-connections", "max-frame", "rotate-every", "rotate-size",
}  # fmt: skip


def refusal(*arguments: str | Path, cwd: Path) -> str:
    """Start a listener that does not start; return the one line that it says why."""
    result = run(*START, *arguments, cwd=cwd)
    assert result.returncode not in (0, -signal.SIGTERM)
    assert "Traceback" not in result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert not (cwd / "twistd.pid").exists()
    return line


def test_twistd_lists_it(tmp_path: Path) -> None:
    assert re.search(
        r"^ +ingest  +Collect ", run(TWISTD, "--help", cwd=tmp_path).stdout, re.MULTILINE
    )


def test_help_explains_every_option(tmp_path: Path) -> None:
    text = run(TWISTD, "ingest", "--help", cwd=tmp_path).stdout
    assert set(re.findall(r"--([a-z-]+)", text)) >= OPTIONS
    assert (
        set(re.findall(r"^ +(?:-., )?--([a-z-]+)", text, re.MULTILINE)) - {"help", "version"}
        == OPTIONS
    )
    explained = " ".join(text.split())
    for default in ("tcp:7650", "ingest-data", "256MiB", "1d", "64KiB", "10s", "1h", "fsync"):
        assert f"[default: {default}]" in explained
    assert not list(tmp_path.iterdir())


def test_no_option_at_all(tmp_path: Path) -> None:
    with socket.socket() as other:
        try:
            other.bind(("", 7650))
        except OSError:
            pytest.skip("another program uses port 7650")
    # The harness gives `--data` and `--listen`; here they are the defaults, from elsewhere.
    output = tmp_path / "output"
    with Listener(Path("ingest-data"), listen=(), cwd=tmp_path, output=output) as listener:
        assert listener.addresses == [("0.0.0.0", 7650)]
        for line in (
            "listening on 0.0.0.0:7650",
            "logging to ingest-data/log/ingest.log",
            "0 devices may connect",
            "add one with: ingest --data ingest-data device add NAME",
        ):
            assert f"] {line}\n" in listener.output
    assert {path.name for path in tmp_path.iterdir()} == {"ingest-data", "output"}


def test_it_says_how_many_devices_it_knows(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a", "b")
    with Listener(tmp_path / "data") as listener:
        assert "] 2 devices may connect\n" in listener.output
        assert "device add" not in listener.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--rotate-size 5parsecs", ["--rotate-size", "'5parsecs'", "64KiB"]),
        ("--idle-timeout soon", ["--idle-timeout", "'soon'", "10s"]),
        ("--compress lzma", ["--compress", "'lzma'", "none, gzip, zstd"]),
        ("--max-connections 0", ["--max-connections", "'0'", "at least 1"]),
        ("--nonsense", ["--nonsense"]),
        ("--rotate-size", ["--rotate-size", "argument"]),
        ("surplus", ["'surplus' is no option"]),
        ("--config missing.toml", ["missing.toml", "No such file"]),
        ("--config broken.toml", ["broken.toml", "TOML", "line 1"]),
        ("--config unknown.toml", ["unknown.toml", "'rotate-seize'"]),
        ("--config wide.toml", ["wide.toml: not TOML: it is UTF-16; save it as UTF-8"]),
        (
            "--config table.toml",
            ["table.toml, line 4: listen forwrad=tcp:7650", "did you mean forward?"],
        ),
        ("--config bad.toml", ["bad.toml", "max-frame", "'huge'"]),
        ("--listen tcp:nowhere", ["--listen tcp:nowhere"]),
        ("--listen pigeon:7650", ["--listen pigeon:7650", "pigeon"]),
        ("--listen 7650", ["did you mean tcp:7650?"]),
        ("--listen haproxy:7650", ["did you mean haproxy:tcp:7650?"]),
        ("--listen systemd:domain=INET:name=ingest", ["LISTEN_FDNAMES"]),
        ("--listen tcp:1:interface=192.0.2.1", ["--listen tcp:1:interface=192.0.2.1", "assign"]),
        ("--listen ssl:0:privateKey=missing.pem", ["missing.pem", "No such file"]),
        ("--listen ssl:0:privateKey=bad.toml", ["--listen ssl:0:privateKey=bad.toml"]),
        ("--listen unix:missing/socket", ["--listen unix:missing/socket", "No such file"]),
        ("--listen unix:bad.toml", ["--listen unix:bad.toml", "in use"]),
        ("--data bad.toml", ["bad.toml", "Not a directory"]),
        ("--data bad.toml/below", ["bad.toml", "Not a directory"]),
    ],
)
def test_why_it_does_not_start(tmp_path: Path, arguments: str, words: list[str]) -> None:
    (tmp_path / "broken.toml").write_text("rotate-size 5\n")
    (tmp_path / "unknown.toml").write_text('rotate-seize = "5MiB"\n')
    (tmp_path / "bad.toml").write_text('max-frame = "huge"\n')
    (tmp_path / "wide.toml").write_text("keep-days = 9\n", encoding="utf-16")
    (tmp_path / "table.toml").write_text(
        '[[listen]]\nendpoint = "tcp:0"\n\n'
        '[[listen]]\nendpoint = "tcp:7650"\nprotocol = "forwrad"\n'
    )
    before = set(tmp_path.iterdir())
    line = refusal("--data", "data", *arguments.split(), cwd=tmp_path)
    assert [word for word in words if word not in line] == []
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "data"}


def test_a_busy_port(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        host, port = address
        endpoint = f"tcp:{port}:interface={host}"
        line = refusal("--data", "other", "--listen", endpoint, cwd=tmp_path)
        assert line == f"ingest: can't start: --listen {endpoint}: Address already in use"
    assert not (tmp_path / "other" / "state" / "control.sock").exists()
    assert (tmp_path / "other" / "log" / "ingest.log").read_bytes() == b""


def test_a_socket_that_a_failed_start_left(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/socket"
    refusal("--data", "data", "--listen", listen, "--listen", "unix:/", cwd=tmp_path)
    with Listener(tmp_path / "data", listen=(listen,)) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            assert device.log_in("a") == 1


def test_a_second_listener_for_one_folder(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            device.push_all("x", last=1)
            line = refusal("--data", "data", "--listen", ANY_PORT, cwd=tmp_path)
            assert line == "ingest: can't start: data is in use by another listener"
            device.push_all("y", last=2)
            assert listener.status()["health"] == "ok"
    assert listener.frames("a") == ["x", "y"]


def test_a_folder_that_takes_no_log(tmp_path: Path) -> None:
    (tmp_path / "data" / "log" / "ingest.log").mkdir(parents=True)
    line = refusal("--data", "data", "--listen", ANY_PORT, cwd=tmp_path)
    assert "ingest.log" in line and "is not a regular file" in line


def test_a_registry_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "data" / "state").mkdir(parents=True)
    (tmp_path / "data" / "state" / "devices.db").write_text("not a database at all\n" * 100)
    line = refusal("--data", "data", "--listen", ANY_PORT, cwd=tmp_path)
    assert "devices.db" in line


def test_the_configuration_and_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text(
        f"""
        listen = ["{ANY_PORT}", "{ANY_PORT}"]
        data = "unused"
        max-frame = "1KiB"
        rotate-size = 1_000_000
        rotate-every = "1h"
        keep-files = 3
        keep-days = 7
        keep-bytes = "1GiB"
        compress = "gzip"
        durability = "os"
        max-connections = 10
        handshake-timeout = "300ms"
        idle-timeout = 3600
        allow-plaintext-auth = true
        """
    )
    options = ("--config", config, "--handshake-timeout", "20s", "--max-frame", "2KiB")
    with Listener(tmp_path / "data", *options, listen=(), cwd=tmp_path) as listener:
        assert len(listener.addresses) == 2
        listener.add("a")
        with TextDevice(listener.addresses[1]) as device:
            device.send(device.plain("a"))
            assert device.reply() == ("ok", {"device": "a", "next": 1, "max_frame": 2048})
    assert not (tmp_path / "unused").exists()


def test_max_frame(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", "--max-frame", "100") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.send(device.plain("a"))
            assert device.reply() == ("ok", {"device": "a", "next": 1, "max_frame": 100})
            device.push("x" * 100, "x" * 101)
            assert device.replies() == [("ack", 1), ("err", "frame-too-long"), ("end", None)]
        with PackedDevice(listener.addresses[0]) as packed:
            packed.log_in("a")
            packed.push("x" * 98, "x" * 99)
            assert packed.replies() == [("ack", 2), ("err", "frame-too-long"), ("end", None)]


def test_sighup_reads_the_configuration_again(tmp_path: Path) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text('max-frame = "1KiB"')
    with Listener(tmp_path / "data", "--config", config) as listener:
        listener.add("a")
        config.write_text('max-frame = "2KiB"')
        os.kill(listener.pid, signal.SIGHUP)
        wait_for(lambda: "settings are read again" in listener.output, "the new settings")
        with TextDevice(listener.addresses[0]) as device:
            device.send(device.plain("a"))
            assert device.reply()[1]["max_frame"] == 2048
            config.write_text("max-frame = 'huge'")
            os.kill(listener.pid, signal.SIGHUP)
            wait_for(lambda: "settings stay as they are" in listener.output, "the complaint")
            device.push_all("x" * 2048, last=1)


def test_sighup_changes_the_idle_timeout_of_who_is_there(tmp_path: Path) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text("")
    with Listener(tmp_path / "data", "--config", config) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            config.write_text('idle-timeout = "400ms"')
            os.kill(listener.pid, signal.SIGHUP)
            assert device.last_words() == "idle-timeout"


def test_from_another_folder_with_a_relative_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    output = tmp_path / "output"
    with Listener(Path("deep/data"), cwd=tmp_path / "elsewhere", output=output):
        pass
    assert (tmp_path / "elsewhere" / "deep" / "data" / "log" / "ingest.log").exists()
