"""This device's disk is full: a real small file system, which needs root."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.kill import full, small_disk
from tests.client.test_shells import Shell, shell, to
from tests.support.processes import free_port
from tests.support.scripted_server import Server
from tests.support.waiting import PATIENCE, wait_for

__all__ = ["shell"]

SIZE = 256 << 10  # bytes
COUNT = 400  # frames of 1,000 bytes, which do not fit


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as mount:
        yield mount


def frame(number: int) -> str:
    return f"{number:05d} {'x' * 994}"


def numbers(server: Server) -> list[int]:
    return [int(line[:5]) for line in server.stored]


def spooling(shell: Shell, disk: Path, **options: Any) -> Any:
    port = free_port()
    return shell("127.0.0.1", port, "sensor-1", "secret", spool=disk / "spool", **options), port


def test_a_send_waits_until_there_is_room(shell: Shell, disk: Path) -> None:
    client, port = spooling(shell, disk)
    client.send(frame(0))
    with full(disk):
        sender = threading.Thread(target=client.send_many, args=(map(frame, range(1, 50)),))
        sender.start()
        wait_for(lambda: "No space left" in str(client.last_error))
        assert sender.is_alive()
    sender.join(PATIENCE)
    assert client.unacknowledged == 50
    with Server(port=port, max_frame=1000) as server:
        client.close()
        assert numbers(server) == list(range(50))


def test_acknowledged_frames_make_room(shell: Shell, disk: Path) -> None:
    """Nothing but the spool is on the disk; it must be able to go on by itself."""
    client, port = spooling(shell, disk)
    sender = threading.Thread(target=client.send_many, args=(map(frame, range(COUNT)),))
    sender.start()
    wait_for(lambda: "No space left" in str(client.last_error))
    with Server(port=port, max_frame=1000) as server:
        sender.join(PATIENCE)
        client.close()
        assert numbers(server) == list(range(COUNT))


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
def test_frames_are_dropped_and_counted(shell: Shell, disk: Path, policy: str) -> None:
    client, port = spooling(shell, disk, full=policy, spool_size=1 << 20)
    for number in range(COUNT):
        client.send(frame(number))
    kept = client.unacknowledged
    assert kept + client.dropped == COUNT
    assert client.dropped > 100
    client.abort()
    with Server(port=port, max_frame=1000) as server:
        again = to(server, shell, spool=disk / "spool")
        assert (again.unacknowledged, again.dropped) == (kept, COUNT - kept)
        again.close()
        first = 0 if policy == "drop-newest" else COUNT - kept
        assert numbers(server) == list(range(first, first + kept))


def test_a_spool_that_can_not_be_made(shell: Shell, disk: Path) -> None:
    with full(disk), pytest.raises(OSError, match="No space left"):
        spooling(shell, disk)
