"""A disk that is slow and devices that do not read: memory stays bounded, and all are served."""

import resource
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.journal.file import BACKLOG
from tests.endtoend.evidence import check_lines, lines_of, log_pieces
from tests.endtoend.load import Device, Fleet, Kind
from tests.support.devices import TOKEN
from tests.support.listeners import SteadyListener, injected
from tests.support.waiting import wait_for

_MIB = 1 << 20
_BOUND = 96 * _MIB
"""Resident memory that a slow disk may cost: 32 MiB of records wait, and what the reads of all
devices bring before they are paused comes on top, in pieces that malloc does not give back."""

_UNBOUNDED = 10**9
_DEAF = 1000
_ROUNDS = 24
_PER_ROUND = 100


def test_a_slow_disk_slows_all_devices_alike(tmp_path: Path) -> None:
    kinds = [Kind("text", 100), Kind("msgpack", 1000)]
    devices = [Device(f"device-{index}", kinds[index % 2], _UNBOUNDED) for index in range(50)]
    listener = SteadyListener(tmp_path / "data", "--rotate-size", "0")
    listener.add(*(device.name for device in devices))
    with listener:
        idle = listener.resident
        with (
            injected(listener.pid, "fdatasync:delay_enter=200000"),
            Fleet(listener.port, devices) as fleet,
        ):
            wait_for(lambda: fleet.connected() == len(devices), "all are in")
            residents, waiting = [idle], [0]

            def has_had_its_turns() -> bool:
                residents.append(listener.resident)
                waiting.append(listener.status()["waiting_bytes"])
                return fleet.check() and min(_bytes(device) for device in devices) > _MIB

            wait_for(has_had_its_turns, "each has brought 1 MiB")
            progress = sorted(map(_bytes, devices))
            assert max(waiting) > BACKLOG, "the disk was not slow enough"
            assert not any(device.errors for device in devices)
            fleet.hold()
        cost = max(residents) - idle
        assert cost < _BOUND, f"{cost // _MIB} MiB"
        assert progress[-1] < 8 * progress[0], progress
    counts = check_lines(lines_of(log_pieces(listener.layout.log_folder)), devices)
    assert counts.total() > 0


def _bytes(device: Device) -> int:
    return device.acknowledged * device.kind.size


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[tuple[SteadyListener, list[socket.socket]]]:
    """A listener, and the sockets of devices that never read, as small as the kernel makes them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > 2 * _DEAF, "too few open files are allowed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = [f"deaf-{index}" for index in range(_DEAF)]
    listener = SteadyListener(tmp_path / "data", "--rotate-size", "0")
    listener.add(*names, "hearing")
    with listener:
        sockets = [_connect(listener.port, name) for name in names]
        yield listener, sockets
        for connection in sockets:
            connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connect(port: int, name: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.connect(("127.0.0.1", port))
    plain = b64encode(f"\0{name}\0{TOKEN}".encode())
    connection.sendall(b"AUTH PLAIN " + plain + b"\n")
    return connection


def test_devices_that_never_read_cost_a_constant(
    deaf: tuple[SteadyListener, list[socket.socket]],
) -> None:
    listener, sockets = deaf
    hearing = Device("hearing", Kind("text", 100), 1000)
    with Fleet(listener.port, [hearing]) as fleet:
        residents = []
        for turn in range(1, _ROUNDS + 1):
            for connection in sockets:
                connection.sendall(b"x\n" * _PER_ROUND)
            heard = hearing.acknowledged
            wait_for(lambda: fleet.acknowledged() > heard, "the other is served")  # noqa: B023
            wait_for(lambda: _written(listener, turn), "all is written")  # noqa: B023
            residents.append(listener.resident)
        fleet.check()
    half = _ROUNDS // 2
    growth = max(residents[half:]) - max(residents[:half])
    assert growth < 8 * _MIB, [resident // _MIB for resident in residents]


def _written(listener: SteadyListener, turn: int) -> bool:
    devices = listener.status()["devices"]
    return all(
        devices.get(f"deaf-{index}", {}).get("written_frames") == turn * _PER_ROUND
        for index in range(0, _DEAF, 97)
    )
