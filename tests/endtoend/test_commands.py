"""The `ingest` command beside a running listener."""

import json
import subprocess
from pathlib import Path

from tests.endtoend.listener import Device, Listener, PackedDevice, TextDevice, wait_for

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
    assert command.startswith("printf ") and command.endswith(" | nc -N 127.0.0.1 7650")


def test_the_line_with_printf_pushes_a_frame(listener: Listener) -> None:
    *_, command = listener.ingest("device", "add", "sensor-2").splitlines()
    printf, _, _ = command.partition(" | ")
    said = subprocess.run(["sh", "-c", printf], capture_output=True, check=True).stdout
    with TextDevice(listener.addresses[0]) as device:
        device.send(said)
        device.close_side()
        kinds = [reply[0] for reply in device.replies()]
    assert kinds == ["ok", "ack", "end"]
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
    for word in ("received", "written", "waiting", "acknowledged"):
        assert word in text


def test_only_the_owner_may_command(listener: Listener) -> None:
    assert listener.layout.control.stat().st_mode & 0o777 == 0o600
    assert listener.layout.devices.stat().st_mode & 0o777 == 0o600
    assert listener.layout.state_folder.stat().st_mode & 0o777 == 0o700
