"""The data folder under a running listener: planted, moved, damaged, out of descriptors."""

import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingest.layout import Layout
from tests.support.devices import TextDevice
from tests.support.listeners import ANY_PORT, Listener
from tests.support.processes import TWISTD
from tests.support.waiting import PATIENCE, wait_for


@pytest.mark.parametrize(
    "name", ["state/intent", "state/lock", "log/ingest.log", "log/.ingest-log"]
)
def test_a_planted_link_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    victim = tmp_path / "victim"
    victim.write_text("not ours")
    (layout.data / name).symlink_to(victim)
    command: list[str | Path]
    command = [TWISTD, "-n", "--pidfile=", "ingest", "--data", layout.data, "--listen", ANY_PORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("ingest: can't start: ")]
    assert len(said) == 1
    assert said[0].startswith(f"ingest: can't start: {layout.data / name}: is a symbolic link")
    assert "Traceback" not in done.stdout + done.stderr
    assert victim.read_text() == "not ours"


def test_a_start_without_room_names_the_folder(tmp_path: Path) -> None:
    data, limit = tmp_path / "data", "--fsize=1000000"  # bytes; less than the intent reserves
    command: list[str | Path]
    command = ["prlimit", limit, TWISTD, "-n", "--pidfile=", "ingest", "--data", data]
    command += ["--listen", ANY_PORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ingest: can't start: {data}: File too large"


def test_without_a_umask_nothing_is_for_everyone(tmp_path: Path) -> None:
    under = ("sh", "-c", 'umask 000; exec "$@"', "sh")
    with Listener(tmp_path / "new" / "data", under=under) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            device.push_all("x", last=1)
        paths = [listener.data.parent, listener.data, *listener.data.rglob("*")]
        assert [
            path for path in paths if path.stat().st_mode & 0o022 and not path.is_socket()
        ] == []
        assert listener.layout.state_folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_moved_away_has_one_writer(tmp_path: Path) -> None:
    data, moved = tmp_path / "data", tmp_path / "moved"
    with Listener(data) as first:
        first.add("a")
        with TextDevice(first.addresses[0]) as device:
            device.log_in("a")
            device.push_all("x", last=1)
            data.rename(moved)
            first.layout = Layout(moved)
            with Listener(data, output=tmp_path / "second.out") as second:
                second.add("b")
                wait_for(lambda: first.status()["health"] == "folder-replaced", "it is noticed")
                device.push("lost to nobody, for it is never acknowledged")
                with TextDevice(second.addresses[0]) as other:
                    other.log_in("b")
                    for last in range(1, 50):
                        other.push_all("y", last=last)
                assert second.frames("a") == []
            shutil.rmtree(data)
            moved.rename(data)
            first.layout = Layout(data)
            device.wait_for_ack(2)
    assert first.output.count("takes no records") == 1
    assert first.output.count("takes records again") == 1
    assert len(first.frames("a")) == 2
    assert first.frames("b") == []


def test_status_while_the_log_is_moved_away(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            log = listener.layout.log_folder
            log.rename(tmp_path / "moved")
            wait_for(lambda: listener.status()["health"] == "folder-replaced", "it is noticed")
            device.push("x")
            (tmp_path / "moved").rename(log)
            device.wait_for_ack(1)


def test_damaged_positions_are_made_anew_and_nobody_waits(tmp_path: Path) -> None:
    names = [f"device-{number}" for number in range(20)]
    with Listener(tmp_path / "data") as listener:
        listener.add(*names)
        with TextDevice(listener.addresses[0]) as device:
            device.log_in(names[0])
            device.push_all("x", last=1)
            for suffix in ("", "-wal", "-shm"):
                path = listener.layout.positions.with_name(f"positions.db{suffix}")
                with path.open("r+b") as stream:
                    stream.write(b"\xff" * path.stat().st_size)
            for name in names[1:]:
                with TextDevice(listener.addresses[0]) as other:
                    assert other.log_in(name) == 1
            device.push_all("y", last=2)
        wait_for(lambda: "it is made anew" in listener.output, "it is noticed")
        assert listener.status()["health"] == "ok"
        listener.kill()
    assert listener.output.count("it is made anew") == 1
    with Listener(tmp_path / "data") as listener:
        for name, following in ((names[0], 3), (names[1], 1)):
            with TextDevice(listener.addresses[0]) as device:
                assert device.log_in(name) == following
        assert listener.status()["health"] == "ok"


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "killed before"])
def test_positions_that_are_removed_while_it_runs_give_no_number_twice(
    is_noticed: bool, tmp_path: Path
) -> None:
    """Where retention has removed all that the log told of a device, only its position does."""
    data = tmp_path / "data"
    with Listener(data, "--rotate-size", "4KiB", "--keep-files", "2") as listener:
        listener.add("a", "b")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            device.push_all(*["x"] * 10, last=10)
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("b")
            last = 0
            while listener.lines("a"):
                last += 10
                device.push_all(*["y" * 100] * 10, last=last)
        for path in listener.layout.state_folder.glob("positions.db*"):
            path.unlink(missing_ok=True)
        if is_noticed:
            wait_for(lambda: "it is made anew" in listener.output, "it is noticed")
        listener.kill()
    with Listener(data) as listener:
        following = []
        for name in "ab":
            with TextDevice(listener.addresses[0]) as device:
                following.append(device.log_in(name))
        is_exact = following == [11, last + 1]
        assert is_exact or following == [10_000_001 + last] * 2
        assert is_exact or not is_noticed
        skips = listener.output.count("numbers go on 10,000,000 higher, so that none is given")
        assert skips == (not is_exact)
        assert listener.status()["health"] == "ok"


@contextmanager
def _silent(address: tuple[str, int], count: int) -> Iterator[None]:
    """Hold connections that say nothing."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(address))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_rotations_need_no_descriptor_that_connections_have_taken(tmp_path: Path) -> None:
    limited = ("prlimit", "--nofile=256:256")
    options = ("--rotate-size", "4KiB", "--handshake-timeout", "60s")
    with Listener(tmp_path / "data", *options, under=limited) as listener:
        listener.add("a")
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        with TextDevice(address) as device:
            device.log_in("a")
            with _silent(address, 400):
                for last in range(1, 301):
                    device.push_all("x" * 100, last=last)
                assert listener.output.count("takes no records") == 0
            assert len(listener.files()) > 10
            assert max(path.stat().st_size for path in listener.files()) <= 4096
    assert len(listener.frames("a")) == 300
