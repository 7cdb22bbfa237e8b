"""The `ingest` command beside a running listener."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from ingest.devices.registry import Registry
from ingest.ops.control import ask
from tests.support.devices import TOKEN, Device, PackedDevice, TextDevice
from tests.support.listeners import Listener, injected
from tests.support.processes import INGEST, run
from tests.support.waiting import PATIENCE, wait_for

Dialect = type[Device]


def test_add_prints_what_a_device_needs(listener: Listener) -> None:
    token, auth, command = listener.ingest("device", "add", "sensor-1").splitlines()
    assert len(token) == 43
    with TextDevice(listener.addresses[0]) as device:
        device.send(auth.encode() + b"\n")
        assert device.reply() == ("ok", {"device": "sensor-1", "next": 1, "max_frame": 65536})
    with PackedDevice(listener.addresses[0]) as packed:
        packed.send(packed.plain("sensor-1", token))
        assert packed.reply()[0] == "ok"
    address = " ".join(map(str, listener.addresses[0]))
    assert command.startswith("printf ") and command.endswith(f" | nc -N {address}")


def test_the_line_with_printf_pushes_a_frame(listener: Listener) -> None:
    *_, command = listener.ingest("device", "add", "sensor-2").splitlines()
    said = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout
    assert [line.split()[0] for line in said.splitlines()] == ["OK", "ACK"]
    assert listener.frames("sensor-2") == ["temp=20.5"]


def test_an_import_counts_at_once(listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text("name,token,note\nimported,pass word,a note\n")
    listener.ingest("device", "import", str(tmp_path / "devices.csv"))
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain("imported", "pass word"))
        assert device.reply()[0] == "ok"


def test_a_new_token(listener: Listener, name: str) -> None:
    token, *_ = listener.ingest("device", "new-token", name).splitlines()
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain(name))
        assert device.last_words() == "auth-failed"
    with TextDevice(listener.addresses[0]) as device:
        device.send(device.plain(name, token))
        assert device.reply()[0] == "ok"


def test_the_list_knows_the_next_number(listener: Listener, name: str) -> None:
    def following() -> int:
        listed = json.loads(listener.ingest("device", "list", "--json"))
        (number,) = [each["next"] for each in listed if each["name"] == name]
        return int(number)

    assert following() == 1
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all("a", "b", "c", last=3)
    wait_for(lambda: following() == 4, "the number in the list")


def test_status_balances(listener: Listener, name: str, dialect: Dialect) -> None:
    before = json.loads(listener.ingest("status", "--json"))["total"]
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all(*["x"] * 100, last=100)
        device.push("x" * 70_000)
        assert device.last_words() == "frame-too-long"
    with dialect(listener.addresses[0]) as device:
        device.log_in(name, ack="none")
        device.push("y")
        device.close_side()
        assert device.replies() == [("end", None)]
    status = json.loads(listener.ingest("status", "--json"))
    assert status["health"] == "ok"
    account = status["devices"][name]
    assert account["refused_frames"] == {"frame-too-long": 1}
    assert account["received_frames"] == 102
    assert account["written_frames"] == 101
    assert account["acknowledged_frames"] == 100
    assert account["waiting_frames"] == 0
    assert account["written_bytes"] == sum(len(line) + 1 for line in listener.lines(name))
    grown = {key: status["total"][key] - before[key] for key in before if key != "refused_frames"}
    assert grown == {key: account[key] for key in grown}


def test_status_for_people(listener: Listener) -> None:
    text = listener.ingest("status")
    assert text.startswith("health: ok; ")
    assert "1 devices" not in text and "1 connections" not in text
    for word in ("received", "written", "waiting", "acknowledged"):
        assert word in text


_TO_A_LISTENER = ("status", "rotate", "hold", "release")


class Frozen(NamedTuple):
    """What came of commands to a listener that was frozen, while the log was held.

    Attributes:
        told: how each of them ended.
        held: for how many seconds the log was still held when the listener went on, asked twice.
    """

    told: Mapping[str, subprocess.CompletedProcess[str]]
    held: Sequence[float]


@pytest.fixture(scope="module")
def frozen(listener: Listener) -> Frozen:
    """Run the commands all at once, since each waits for 5 s."""
    listener.ingest("hold")
    os.kill(listener.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(_TO_A_LISTENER)) as pool:
            told = pool.map(partial(run, INGEST, "--data", listener.data), _TO_A_LISTENER)
            results = dict(zip(_TO_A_LISTENER, told, strict=True))
    finally:
        os.kill(listener.pid, signal.SIGCONT)
    held = [listener.status()["holding_until_s"] for _ in range(2)]
    listener.ingest("release")
    return Frozen(results, held)


@pytest.mark.parametrize("command", _TO_A_LISTENER)
def test_a_frozen_listener_is_told_so(listener: Listener, frozen: Frozen, command: str) -> None:
    result = frozen.told[command]
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: the listener at {listener.layout.control} does not answer within 5 s:"
        f" it is frozen or overloaded; pid {listener.pid} was stopped, and goes on by:"
        f" kill -CONT {listener.pid}\n"
    )


def test_a_command_that_failed_is_not_carried_out_later(frozen: Frozen) -> None:
    assert all(seconds > 0 for seconds in frozen.held), "`release` had failed, and yet it came"


def test_a_command_that_waits_for_the_disk_says_so(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        command = list(map(str, [INGEST, "--data", listener.data, "rotate"]))
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            with injected(listener.pid, "fdatasync:delay_enter=60000000"):  # microseconds
                device.push("x")
                rotate = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                assert rotate.stderr is not None
                said = rotate.stderr.readline()
            # The disk goes on as soon as nobody slows it any more.
            printed, rest = rotate.communicate(timeout=PATIENCE)
            device.wait_for_ack(1)
    assert rotate.returncode == 0, rest
    assert said == "the listener is there, and waits for its disk; waiting for rotate ...\n"
    assert rest == ""
    assert printed.startswith("rotated to ")


_COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("rotate",),
    ("hold",),
    ("device", "list"),
    ("device", "list", "--json"),
    ("device", "export"),
    ("device", "add", "unprinted"),
    ("--help",),
    ("run", "--help"),
)


@pytest.mark.parametrize("arguments", _COMMANDS, ids=" ".join)
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_output_that_can_not_be_written(
    listener: Listener, arguments: tuple[str, ...], redirection: str
) -> None:
    words = shlex.join([str(INGEST), "--data", str(listener.data), *arguments])
    result = run("sh", "-c", f"{words} {redirection}")
    ask(listener.layout.control, "release")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert (
        last
        == {
            ">/dev/full": "Error: can't write to standard output: No space left on device",
            ">&-": "Error: standard output is closed; send it to /dev/null instead",
        }[redirection]
    )
    assert "Traceback" not in result.stderr
    with Registry(listener.layout.devices) as registry:
        assert registry.get("unprinted") is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("restore {file} | true", 1),  # it writes when the reader has gone
        ("page-password a <&-", 1),
        ("send a --to {to} <&-", 0),
        ("status 2>&-", 0),
    ],
)
def test_streams_that_are_closed(
    listener: Listener, name: str, tmp_path: Path, words: str, code: int
) -> None:
    address = listener.addresses[0]
    assert isinstance(address, tuple)
    host, port = address
    file = tmp_path / "backup.tar"
    listener.ingest("backup", str(file))
    token = f"INGEST_TOKEN={TOKEN}"
    words = words.format(file=file, to=f"{host}:{port}").replace(" a ", f" {name} ")
    result = run(
        "env", token, "bash", "-c", f"set -o pipefail; {INGEST} --data {listener.data} {words}"
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr


def test_the_connected_are_listed(listener: Listener, name: str) -> None:
    def connected(*options: str) -> list[str]:
        listed = json.loads(listener.ingest("device", "list", "--connected", "--json", *options))
        return [each["name"] for each in listed]

    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        assert connected() == [name]
        assert connected("--silent", "1h") == []
        assert connected("--silent", "0") == [name]
        device.close_side()
        assert device.replies() == [("end", None)]
    wait_for(lambda: connected() == [], "its end")


@pytest.mark.parametrize("command", ["rotate", "hold"])
def test_what_can_not_be_while_the_log_is_held(listener: Listener, command: str) -> None:
    listener.ingest("hold")
    result = run(INGEST, "--data", listener.data, command)
    listener.ingest("release")
    assert result.returncode == 1
    assert "ingest release" in result.stderr
    assert result.stderr.count("\n") == 1


def test_only_the_owner_may_command(listener: Listener) -> None:
    assert listener.layout.control.stat().st_mode & 0o777 == 0o600
    assert listener.layout.devices.stat().st_mode & 0o777 == 0o600
    assert listener.layout.state_folder.stat().st_mode & 0o777 == 0o700
