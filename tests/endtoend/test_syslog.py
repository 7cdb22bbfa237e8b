"""Syslog and RELP: rsyslog and logger, as Debian has them, to a real listener."""

import json
import logging
import shutil
import socket
import subprocess
from itertools import count
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.tools import RSYSLOGD, SYSLOG_NG, needs, rsyslog, syslog_ng
from tests.support.certificates import make_certificate
from tests.support.listeners import Listener
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE, wait_for

NAMED = ("--listen-option", "device=app")
needs_rsyslog = needs(RSYSLOGD, "rsyslog")


def listen(protocol: str, certificate: Path | None = None, port: int = 0) -> tuple[str, ...]:
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    if certificate is not None:
        endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={certificate}"
    return ("--listen", f"{protocol}={endpoint}", *NAMED)


def port_of(listener: Listener) -> int:
    address = listener.addresses[0]
    assert isinstance(address, tuple)
    return address[1]


def records(listener: Listener, device: str = "app") -> list[dict[str, Any]]:
    return [json.loads(line) for line in listener.lines(device)]


def messages(listener: Listener, device: str = "app") -> list[str]:
    return [record["data"]["message"] for record in records(listener, device)]


LINES = [f"line {number} of many" for number in range(500)]
TLS = (
    'global(defaultNetstreamDriver="{driver}" defaultNetstreamDriverCAFile="{certificate}")\n'
    'action(type="omfwd" protocol="tcp" streamDriverMode="1" streamDriverAuthMode="x509/name"'
    ' streamDriverPermittedPeers="localhost" {target})'
)
TARGETS = {
    "lines": ("syslog", 'action(type="omfwd" protocol="tcp" {target})'),
    "counted": ("syslog", 'action(type="omfwd" protocol="tcp" tcp_framing="octet-counted"'
                ' template="RSYSLOG_SyslogProtocol23Format" {target})'),
    "TLS by OpenSSL": ("syslog", TLS.replace("{driver}", "ossl")),
    "TLS by GnuTLS": ("syslog", TLS.replace("{driver}", "gtls")),
    "RELP": ("relp", 'action(type="omrelp" {target})'),
    "RELP over TLS": ("relp", 'action(type="omrelp" tls="on" tls.authMode="name"'
                      ' tls.permittedPeer=["localhost"] tls.caCert="{certificate}"'
                      ' tls.myCert="{certificate}" tls.myPrivKey="{certificate}" {target})'),
}  # fmt: skip
"""What rsyslog is to do with messages, and what the listener speaks there."""


@needs_rsyslog
@pytest.mark.parametrize(("protocol", "action"), TARGETS.values(), ids=TARGETS)
def test_rsyslog(tmp_path: Path, protocol: str, action: str) -> None:
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    certificate = make_certificate(tmp_path / "cert.pem") if "{certificate}" in action else None
    with Listener(tmp_path / "data", *listen(protocol, certificate), listen=()) as listener:
        listener.add("app")
        target = f'target="127.0.0.1" port="{port_of(listener)}"'
        with rsyslog(
            tmp_path,
            'module(load="imfile")\nmodule(load="omrelp")',
            f'input(type="imfile" file="{tmp_path}/in" tag="app:")',
            action.format(target=target, certificate=certificate),
        ):
            wait_for(lambda: len(listener.lines("app")) >= 500, "the lines")
        assert messages(listener) == LINES
        first = records(listener)[0]
        assert ("event_time" in first) == ("timestamp" not in first["data"])
        assert first["data"]["app"] == "app"
        listener.ingest("verify")


@needs_rsyslog
def test_rsyslog_loses_nothing_by_relp_while_the_listener_is_killed(tmp_path: Path) -> None:
    """What was not answered is sent again; so some messages may be there twice, in their order."""
    port = free_port()
    options = ("--listen", f"relp=tcp:{port}:interface=127.0.0.1", *NAMED)
    listener = Listener(tmp_path / "data", *options, listen=())
    listener.add("app")
    source = tmp_path / "in"
    source.touch()
    with (
        listener,
        rsyslog(
            tmp_path,
            'module(load="imfile" mode="polling" pollingInterval="1")\nmodule(load="omrelp")',
            f'input(type="imfile" file="{source}" tag="app:")',
            f'action(type="omrelp" target="127.0.0.1" port="{port}" action.resumeRetryCount="-1"'
            ' action.resumeInterval="1" queue.type="LinkedList")',
        ),
    ):
        for turn in range(4):
            with source.open("a") as stream:
                stream.writelines(f"turn {turn}, {line}\n" for line in LINES)
            wait_for(lambda: len(listener.lines("app")) > 500 * turn, "some lines")  # noqa: B023
            if turn < 3:
                listener.kill()
                listener.start()
        sent = [f"turn {turn}, {line}" for turn in range(4) for line in LINES]
        wait_for(lambda: messages(listener)[-1:] == sent[-1:], "the last line")
        assert list(dict.fromkeys(messages(listener))) == sent
        listener.ingest("verify")


@needs(SYSLOG_NG.joinpath("usr/sbin/syslog-ng").exists(), "syslog-ng")
@pytest.mark.parametrize(
    "target",
    ['network("127.0.0.1" transport("tcp") {})', 'syslog("127.0.0.1" transport("tcp") {})',
     'syslog("127.0.0.1" transport("tls") tls(ca-file("{certificate}")) {})'],
)  # fmt: skip
def test_syslog_ng(tmp_path: Path, target: str) -> None:
    """It reconnects by itself to a listener that was killed; lines on their way are lost then."""
    source, port = tmp_path / "in", free_port()
    source.touch()
    certificate = make_certificate(tmp_path / "cert.pem") if "{certificate}" in target else None
    options = listen("syslog", certificate, port)
    listener = Listener(tmp_path / "data", *options, listen=())
    listener.add("app")
    target = target.replace("{certificate}", str(certificate)).replace("{}", f"port({port})")
    with (
        listener,
        syslog_ng(
            tmp_path,
            "options { keep-hostname(yes); time-reopen(1); };",
            f'source s {{ file("{source}" follow-freq(0.05) program-override("app")'
            " flags(no-parse)); };",
            f"destination d {{ {target}; }};",
            "log { source(s); destination(d); };",
        ),
    ):
        with source.open("a") as stream:
            stream.writelines(f"{line}\n" for line in LINES)
        wait_for(lambda: len(listener.lines("app")) >= 500, "the lines")
        assert messages(listener) == LINES
        listener.kill()
        listener.start()
        numbers = count()

        def write_on() -> bool:
            with source.open("a") as stream:
                stream.writelines(f"again {next(numbers)}\n" for _ in range(5))
            return len(listener.lines("app")) >= 600

        wait_for(write_on, "lines after the kill")
        stored = messages(listener)[500:]
        assert all(text.startswith("again ") for text in stored)
        arrived = [int(text.split()[1]) for text in stored]
        assert arrived == sorted(set(arrived))
        listener.ingest("verify")


@needs(shutil.which("logger"), "logger")
@pytest.mark.parametrize(
    "options",
    [["--rfc3164"], ["--rfc3164", "--octet-count"], ["--rfc5424"], ["--rfc5424", "--octet-count"],
     ["--rfc5424", "--sd-id", "a@1", "--sd-param", 'b="c\\"d"', "--msgid", "m"]],
)  # fmt: skip
def test_logger(tmp_path: Path, options: list[str]) -> None:
    by_host = ("--listen", "syslog=tcp:0:interface=127.0.0.1", "--listen-option",
               "unregistered=accept")  # fmt: skip
    with Listener(tmp_path / "data", *by_host, listen=()) as listener:
        for number in range(3):
            subprocess.run(
                ["logger", "-T", "-n", "127.0.0.1", "-P", str(port_of(listener)), "-t", "job",
                 "-p", "local3.err", *options, f"message {number}"],
                check=True, timeout=PATIENCE,
            )  # fmt: skip
        wait_for(lambda: len(listener.lines("host-127.0.0.1")) == 3, "the messages")
        assert sorted(messages(listener, "host-127.0.0.1")) == [f"message {n}" for n in range(3)]
        data = records(listener, "host-127.0.0.1")[0]["data"]
        assert (data["app"], data["facility"], data["severity"]) == ("job", 19, 3)
        if "--sd-id" in options:
            assert data["structured"]["a@1"] == {"b": 'c"d'} and data["msgid"] == "m"


def test_the_handler_of_python(tmp_path: Path) -> None:
    """It ends a message with NUL, and neither with LF nor with a count."""
    with Listener(tmp_path / "data", *listen("syslog"), listen=()) as listener:
        listener.add("app")
        handler = SysLogHandler(("127.0.0.1", port_of(listener)), socktype=socket.SOCK_STREAM)
        handler.ident = "app: "
        for number in range(3):
            handler.handle(logging.makeLogRecord({"msg": f"message {number}", "levelno": 30}))
        handler.close()
        wait_for(lambda: len(listener.lines("app")) == 3, "the messages")
        assert [record["data"]["raw"] for record in records(listener)] == [
            f"<12>app: message {number}" for number in range(3)
        ]


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
