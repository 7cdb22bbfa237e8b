"""The books balance: at any instant, under load, and with what is on the disk in the end."""

import json
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.endtoend.evidence import check_lines, lines_of, log_pieces
from tests.endtoend.load import Device, Fleet, Kind
from tests.support.devices import TextDevice
from tests.support.listeners import SteadyListener
from tests.support.processes import INGEST
from tests.support.waiting import wait_for

_SAMPLES = 4
_RATE = 10 << 20  # bytes a second: full speed would take long to read afterwards
_COUNTS = (
    "received_frames",
    "received_bytes",
    "written_frames",
    "written_bytes",
    "acknowledged_frames",
    "waiting_frames",
)


def _sample(listener: SteadyListener) -> dict[str, Any]:
    """Ask for the books and check that they balance."""
    command = [str(INGEST), "--data", str(listener.layout.data), "status", "--json"]
    books = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    for account in (books["total"], *books["devices"].values()):
        refused = sum(account["refused_frames"].values())
        assert account["waiting_frames"] >= 0
        assert account["received_frames"] == (
            account["written_frames"] + account["waiting_frames"] + refused
        )
        assert account["acknowledged_frames"] <= account["written_frames"]
    for count in _COUNTS:
        assert books["total"][count] == sum(one[count] for one in books["devices"].values())
    return dict(books)


def test_they_balance_under_load_and_after_a_crash(tmp_path: Path) -> None:
    kinds = [Kind("text", 100), Kind("msgpack", 1000), Kind("msgpack", 60_000)]
    devices = [
        Device(f"device-{index}", kinds[index % 3], 500_000 // kinds[index % 3].size)
        for index in range(9)
    ]
    listener = SteadyListener(tmp_path / "data", "--rotate-size", "8MiB")
    listener.add(*(device.name for device in devices), "clumsy")
    begun = time.monotonic()
    with Fleet(listener.port, devices) as fleet, listener:
        fleet.throttle = lambda: _sent(devices) > _RATE * (time.monotonic() - begun)
        _take_samples(listener, fleet)
        _refused(listener, "clumsy", 3)
        listener.kill()
        fleet.hold()
        listener.start()
        wait_for(lambda: fleet.connected() == len(devices), "all are in again")
        held = Counter(_lines(listener))
        fleet.resume()
        _take_samples(listener, fleet)
        _refused(listener, "clumsy", 2)
        wait_for(fleet.finish, "all frames are acknowledged")
        books = _sample(listener)
        listener.stop()
    log = listener.layout.log_folder
    written = Counter(_lines(listener))
    new = written - held
    assert {name: one["written_frames"] for name, one in books["devices"].items()} == new
    assert books["total"]["written_frames"] == new.total()
    assert books["total"]["waiting_frames"] == 0
    assert books["devices"]["clumsy"]["refused_frames"] == {"frame-too-long": 2}
    assert books["errors"] == {"frame-too-long": 2}
    check_lines(
        (line for line in lines_of(log_pieces(log)) if b'"device":"clumsy"' not in line), devices
    )


def _sent(devices: list[Device]) -> int:
    return sum(device.following * device.kind.size for device in devices)


def _take_samples(listener: SteadyListener, fleet: Fleet) -> None:
    """Take samples while frames come."""
    received = 0
    for _ in range(_SAMPLES):
        acknowledged = fleet.acknowledged()
        books = _sample(listener)
        assert books["total"]["received_frames"] >= received
        received = books["total"]["received_frames"]
        wait_for(lambda: fleet.acknowledged() > acknowledged, "frames come")  # noqa: B023


def _refused(listener: SteadyListener, name: str, times: int) -> None:
    """Let a device send a frame, and then one that is too long, some times."""
    for _ in range(times):
        with TextDevice(("127.0.0.1", listener.port)) as device:
            device.log_in(name)
            device.push("good", "x" * 70_000)
            assert device.last_words() == "frame-too-long"


def _lines(listener: SteadyListener) -> list[str]:
    """Name the device of each line of the log."""
    lines = lines_of(log_pieces(listener.layout.log_folder))
    return [line.split(b'"', 8)[7].decode() for line in lines]
