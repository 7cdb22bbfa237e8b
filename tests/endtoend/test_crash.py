"""`kill -9` at any instant: the log is what was sent, and so is what `tail -F` printed."""

from collections import Counter
from pathlib import Path

from tests.endtoend.crash import crash, fleet_of_all_kinds
from tests.endtoend.evidence import check_lines, lines_of, log_pieces
from tests.endtoend.load import Fleet
from tests.support.listeners import SteadyListener
from tests.support.waiting import wait_for


def test_a_log_survives_being_killed(tmp_path: Path) -> None:
    outcome = crash(tmp_path, kills=30, seed=20261122)
    assert outcome.rotated > 5
    assert outcome.completed > 0, "no kill hit a write: the test has lost its aim"


def test_a_stop_under_load_tells_all_devices_and_loses_nothing(tmp_path: Path) -> None:
    devices = fleet_of_all_kinds()
    listener = SteadyListener(tmp_path / "data")
    listener.add(*(device.name for device in devices))
    with Fleet(listener.port, devices) as fleet, listener:
        for stops in (1, 2):
            before = fleet.acknowledged()
            wait_for(lambda: fleet.acknowledged() > before + 50_000, "all make progress")  # noqa: B023
            wait_for(lambda: fleet.connected() == len(devices), "all are in")
            listener.stop()
            wait_for(lambda: fleet.connected() == 0, "all have heard")
            assert {tuple(device.errors) for device in devices} == {("shutting-down",) * stops}
            counts = check_lines(lines_of(log_pieces(listener.layout.log_folder)), devices)
            assert counts == +Counter({device.name: device.acknowledged for device in devices})
            listener.start()
    assert not listener.said("is completed")
    assert not listener.said("rebuilt")
