"""A disk that is full or fails: nothing is acknowledged, lost, torn or repeated.

Real small file systems, which need root; errors that a real disk gives seldom come from strace.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.endtoend.evidence import check_lines, digest, file_pieces, lines_of, log_pieces
from tests.endtoend.load import Device, Fleet, Kind
from tests.support.listeners import SteadyListener, Tail, injected
from tests.support.processes import INGEST, USUAL, run_tool
from tests.support.waiting import wait_for

_BALLAST = 5 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of some 12 MB, of which a file named `ballast` takes 5."""
    with _mounted(tmp_path, request.param) as mount:
        yield mount


@contextmanager
def _mounted(folder: Path, kind: str) -> Iterator[Path]:
    mount = folder / "disk"
    mount.mkdir()
    if kind == "tmpfs":
        run_tool("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", mount)
    else:
        image = folder / "image"
        run_tool("truncate", "--size", "16M", image)
        run_tool("mkfs.ext4", "-q", "-m", "0", image)
        run_tool("mount", "-o", "loop,errors=remount-ro", image, mount)
    try:
        (mount / "ballast").write_bytes(bytes(_BALLAST))
        yield mount
    finally:
        run_tool("umount", "--lazy", mount)


def _devices() -> list[Device]:
    """Make devices whose unacknowledged frames take less room than the ballast."""
    small = [Device(f"small-{index}", Kind("text", 100), 1000) for index in range(6)]
    large = [Device(f"large-{index}", Kind("msgpack", 60_000), 4) for index in range(3)]
    return small + large


@contextmanager
def _running(
    folder: Path, disk: Path, *, pauses: Mapping[str, float] = USUAL
) -> Iterator[tuple[SteadyListener, Fleet, list[Device], Tail]]:
    devices = _devices()
    listener = SteadyListener(disk / "data", pauses=pauses, output=folder / "output")
    listener.add(*(device.name for device in devices))
    with (
        Tail(listener.log_file, folder / "tail") as tail,
        Fleet(listener.port, devices) as fleet,
        listener,
    ):
        yield listener, fleet, devices, tail


def _is_failing(listener: SteadyListener) -> bool:
    health: str = listener.status()["health"]
    return health == "disk-failing"


def _check(
    listener: SteadyListener, fleet: Fleet, devices: list[Device], tail: Tail | None
) -> None:
    """Let the fleet finish, stop the listener, and compare what was sent with what is there."""
    wait_for(fleet.finish, "all frames are acknowledged")
    listener.stop()
    folder = listener.layout.log_folder
    counts = check_lines(lines_of(log_pieces(folder)), devices)
    assert counts == {device.name: device.acknowledged for device in devices}
    if tail is not None:
        size = sum(map(len, log_pieces(folder)))
        wait_for(lambda: tail.printed() >= size, "tail has printed all")
        assert digest(file_pieces(tail.output)) == digest(log_pieces(folder))


def test_full(disk: Path, tmp_path: Path) -> None:
    with _running(tmp_path, disk) as (listener, fleet, devices, tail):
        wait_for(lambda: _is_failing(listener), "the disk is full")
        command = [str(INGEST), "--data", str(listener.layout.data), "status"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 2
        assert "disk-failing (No space left on device)" in told.stdout
        wait_for(lambda: fleet.connected() == len(devices), "all are heard")
        acknowledged, resident = fleet.acknowledged(), listener.resident
        time.sleep(1.5)  # to see that nothing happens
        assert fleet.acknowledged() == acknowledged
        assert fleet.connected() == len(devices)
        assert not any(device.errors for device in devices)
        assert listener.resident < resident + (1 << 20)
        assert listener.said("takes no records: No space left on device") == 1
        fleet.finish()
        (disk / "ballast").unlink()
        wait_for(lambda: fleet.acknowledged() > acknowledged, "it goes on")
        wait_for(lambda: listener.status()["health"] == "ok", "it is well")
        _check(listener, fleet, devices, tail)
        assert listener.said("takes no records") == 1
        assert listener.said("takes records again, after") == 1


def test_killed_while_full(disk: Path, tmp_path: Path) -> None:
    with _running(tmp_path, disk) as (listener, fleet, devices, tail):
        wait_for(lambda: _is_failing(listener), "the disk is full")
        listener.kill()
        fleet.finish()
        listener.launch()
        assert listener.wait() != 0
        assert listener.said("can't start: ") == 1
        assert not listener.said("Traceback")
        (disk / "ballast").unlink()
        listener.start()
        assert listener.said("is completed") == 1
        assert not listener.said("set aside")
        _check(listener, fleet, devices, tail)


def test_stopped_while_full(tmp_path: Path) -> None:
    with (
        _mounted(tmp_path, "ext4") as disk,
        _running(tmp_path, disk, pauses={"ingest.service.parts.DRAIN": 1.0}) as running,
    ):
        listener, fleet, devices, tail = running
        wait_for(lambda: _is_failing(listener), "the disk is full")
        fleet.finish()
        listener.stop()
        (disk / "ballast").unlink()
        listener.start()
        _check(listener, fleet, devices, tail)


@pytest.mark.parametrize("call", ["writev", "fdatasync"])
@pytest.mark.parametrize("error", ["EDQUOT", "EIO", "EROFS"])
def test_failing(call: str, error: str, tmp_path: Path) -> None:
    with _running(tmp_path, tmp_path) as (listener, fleet, devices, tail):
        wait_for(fleet.acknowledged, "it runs")
        with injected(listener.pid, f"{call}:error={error}:when=3..8"):
            wait_for(lambda: listener.said("takes no records"), "it fails")
            wait_for(lambda: listener.said("takes records again"), "it goes on")
        # What could not be synced stands in a new file, and `tail` has printed it from the old.
        renewed = call == "fdatasync"
        _check(listener, fleet, devices, None if renewed else tail)
        closed = list(listener.layout.log_folder.glob("ingest-*.log"))
        assert bool(closed) == renewed
        assert listener.said("takes no records") == 1


def test_a_file_system_that_turns_read_only(tmp_path: Path) -> None:
    """As ext4 does when its journal can't be written; what is on the disk then is what counts."""
    with _mounted(tmp_path, "ext4") as disk:
        with _running(tmp_path, disk) as (listener, fleet, devices, _):
            wait_for(lambda: fleet.acknowledged() > 100, "it runs")
            device = Path(
                run_tool("findmnt", "--noheadings", "--output", "SOURCE", disk).strip()
            ).name
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("by the test\n")
            wait_for(lambda: _is_failing(listener), "it fails")
            fleet.finish()
            assert fleet.connected() == len(devices)
            listener.kill()
            acknowledged = fleet.acknowledged()
        run_tool("umount", disk)
        subprocess.run(["e2fsck", "-fy", tmp_path / "image"], capture_output=True, check=False)
        run_tool("mount", "-o", "loop", tmp_path / "image", disk)
        with listener:
            counts = check_lines(lines_of(log_pieces(listener.layout.log_folder)), devices)
            assert counts.total() >= acknowledged
