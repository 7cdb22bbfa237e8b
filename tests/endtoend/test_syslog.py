"""Syslog and RELP: rsyslog and logger, as Debian has them, to a real listener."""

import json
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_certificate
from tests.support.listeners import Listener
from tests.support.waiting import PATIENCE, wait_for

LISTEN = ("--listen", "{}=tcp:0:interface=127.0.0.1", "--listen-option", "device=app")
RSYSLOGD = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")
needs_rsyslog = pytest.mark.skipif(RSYSLOGD is None, reason="rsyslog is not installed")


def listen(protocol: str) -> tuple[str, ...]:
    return tuple(word.format(protocol) for word in LISTEN)


def port_of(listener: Listener) -> int:
    address = listener.addresses[0]
    assert isinstance(address, tuple)
    return address[1]


def records(listener: Listener, device: str = "app") -> list[dict[str, Any]]:
    return [json.loads(line) for line in listener.lines(device)]


def messages(listener: Listener, device: str = "app") -> list[str]:
    return [record["data"]["message"] for record in records(listener, device)]


@needs_rsyslog
@pytest.mark.parametrize(
    ("protocol", "target"),
    [
        ("syslog", 'type="omfwd" protocol="tcp"'),
        ("syslog", 'type="omfwd" protocol="tcp" tcp_framing="octet-counted"'
                   ' template="RSYSLOG_SyslogProtocol23Format"'),
        ("relp", 'type="omrelp"'),
    ],
)  # fmt: skip
def test_rsyslog(tmp_path: Path, protocol: str, target: str) -> None:
    lines = [f"line {number} of many" for number in range(500)]
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in lines))
    with Listener(tmp_path / "data", *listen(protocol), listen=()) as listener:
        listener.add("app")
        config = tmp_path / "rsyslog.conf"
        config.write_text(
            'module(load="imfile")\nmodule(load="omrelp")\n'
            f'global(workDirectory="{tmp_path}")\n'
            f'input(type="imfile" file="{tmp_path}/in" tag="app:")\n'
            f'action({target} target="127.0.0.1" port="{port_of(listener)}")\n'
        )
        assert RSYSLOGD is not None
        command: list[str | Path] = [RSYSLOGD, "-n", "-f", config, "-i", tmp_path / "pid"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as rsyslog:
            try:
                wait_for(lambda: len(listener.lines("app")) >= 500, "the lines")
            finally:
                rsyslog.terminate()
        assert messages(listener) == lines
        first = records(listener)[0]
        assert ("event_time" in first) == ("timestamp" not in first["data"])
        assert first["data"]["app"] == "app"
        listener.ingest("verify")


@pytest.mark.skipif(shutil.which("logger") is None, reason="logger is not installed")
@pytest.mark.parametrize("options", [["--rfc3164"], ["--rfc5424"], ["--rfc5424", "--octet-count"]])
def test_logger(tmp_path: Path, options: list[str]) -> None:
    by_host = ("--listen", "syslog=tcp:0:interface=127.0.0.1", "--listen-option",
               "unregistered=accept")  # fmt: skip
    with Listener(tmp_path / "data", *by_host, listen=()) as listener:
        for number in range(3):
            subprocess.run(
                ["logger", "-T", "-n", "127.0.0.1", "-P", str(port_of(listener)), "-t", "job",
                 *options, f"message {number}"],
                check=True, timeout=PATIENCE,
            )  # fmt: skip
        wait_for(lambda: len(listener.lines("host-127.0.0.1")) == 3, "the messages")
        assert sorted(messages(listener, "host-127.0.0.1")) == [f"message {n}" for n in range(3)]


def test_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "localhost.pem")
    endpoint = f"syslog=ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}"
    options = ("--listen", endpoint, "--listen-option", "device=app")
    with Listener(tmp_path / "data", *options, listen=()) as listener:
        listener.add("app")
        context = ssl.create_default_context(cafile=str(certificate))
        address = ("127.0.0.1", port_of(listener))
        with (
            socket.create_connection(address, timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"<13>1 - - app - - - hello\n")
            wait_for(lambda: listener.lines("app"), "the message")
        assert messages(listener) == ["hello"]


@pytest.mark.parametrize("protocol", ["syslog", "relp"])
def test_a_device_that_is_not_registered_or_disabled(tmp_path: Path, protocol: str) -> None:
    with Listener(tmp_path / "data", *listen(protocol), listen=()) as listener:
        address = ("127.0.0.1", port_of(listener))
        with socket.create_connection(address, timeout=PATIENCE) as unknown:
            unknown.settimeout(PATIENCE)
            while unknown.recv(100):
                pass
        listener.add("app")
        with socket.create_connection(address, timeout=PATIENCE) as known:
            wait_for(lambda: listener.status()["devices_connected"] == 1, "the device")
            listener.ingest("device", "disable", "app")
            while known.recv(100):
                pass


def test_relp_answers_after_the_disk_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    answered: list[str] = []
    for turn in range(4):
        with Listener(tmp_path / "data", *listen("relp"), listen=()) as listener:
            if not turn:
                listener.add("app")
            address = ("127.0.0.1", port_of(listener))
            with socket.create_connection(address, timeout=PATIENCE) as client:
                client.sendall(b"1 open 0\n")
                stream = client.makefile("rb")
                assert stream.readline().startswith(b"1 rsp ")
                for _ in range(3):
                    stream.readline()
                for number in range(2, 30):
                    text = f"<13>{turn}-{number}"
                    client.sendall(b"%d syslog %d %b\n" % (number, len(text), text.encode()))
                    if number < 20:
                        assert stream.readline() == b"%d rsp 6 200 OK\n" % number
                        answered.append(text)
                listener.kill()
                stream.close()
    with Listener(tmp_path / "data", *listen("relp"), listen=()) as listener:
        stored = [record["data"]["raw"] for record in records(listener)]
        assert set(answered) <= set(stored)
        listener.ingest("verify")
