"""What a program may do to a client that it should not, and what it then hears."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.client import AsyncClient, Client, ClientError, SpoolError
from tests.client.test_shells import Shell, shell
from tests.support.processes import free_port
from tests.support.scripted_server import IMPATIENT, Server
from tests.support.waiting import PATIENCE

__all__ = ["shell"]


def test_a_child_after_a_fork_is_told_and_disturbs_nothing(tmp_path: Path) -> None:
    with Server() as server, server.client(spool=tmp_path) as client:
        client.send("a")
        child = os.fork()
        if child == 0:
            try:
                client.send("of the child")
            except ClientError as error:
                client.close()
                os._exit(7 if "before a fork" in str(error) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        client.send("b")
        client.wait(PATIENCE)
        assert server.stored == [b"a", b"b"]


def test_a_send_within_a_send_is_an_error_and_no_deadlock() -> None:
    with Server() as server, server.client() as client:

        def frames() -> Iterator[str]:
            yield "a"
            client.send("nested")

        with pytest.raises(ClientError, match="called from within itself"):
            client.send_many(frames())
        client.send("b")
        client.wait(PATIENCE)
        assert server.stored == [b"a", b"b"]


def test_a_handler_of_a_signal_never_hangs() -> None:
    """It may be refused, where it has interrupted the client itself."""
    program = """
import signal, sys, threading
from ingest.client import Client, ClientError
client = Client("127.0.0.1", int(sys.argv[1]), "sensor-1", "secret", queue=100_000)
refused = taken = 0
def handle(number, frame):
    global refused, taken
    try:
        client.send("from the handler")
        taken += 1
    except ClientError:
        refused += 1
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
with client:
    for i in range(3000):
        client.send(str(i))
    signal.setitimer(signal.ITIMER_REAL, 0)
    client.wait(20)
print(refused + taken > 10, client.taken == 3000 + taken)
"""
    with Server() as server:
        command = [sys.executable, "-c", program, str(server.port)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (told.stdout, told.stderr) == ("True True\n", "")


def test_many_threads_send_at_once(tmp_path: Path) -> None:
    with Server() as server, server.client(spool=tmp_path) as client:

        def work(name: int) -> None:
            for i in range(50):
                client.send(f"{name} {i}")

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        client.wait(PATIENCE)
        for name in range(8):
            mine = [line for line in server.stored if line.startswith(b"%d " % name)]
            assert mine == [b"%d %d" % (name, i) for i in range(50)]
        assert len(server.stored) == 400


def test_an_abort_wakes_whoever_waits() -> None:
    heard: list[BaseException] = []
    client = Client("127.0.0.1", free_port(), "a", "t", pause=(60.0, 60.0))
    client.send("a")

    def wait() -> None:
        try:
            client.wait()
        except ClientError as error:
            heard.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    client.abort()
    thread.join(PATIENCE)
    assert [str(error) for error in heard] == ["this client is closed"]


def test_two_clients_on_one_spool(shell: Shell, tmp_path: Path) -> None:
    first = shell("127.0.0.1", 1, "a", "t", spool=tmp_path)
    with pytest.raises(SpoolError, match="another process or client uses this spool"):
        shell("127.0.0.1", 1, "a", "t", spool=tmp_path)
    first.abort()
    shell("127.0.0.1", 1, "a", "t", spool=tmp_path).abort()


def test_a_spool_in_the_home_folder(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shell("127.0.0.1", 1, "a", "t", spool="~/spool").abort()
    assert (tmp_path / "spool" / "state").exists()


def test_a_program_that_ends_with_frames_unsent_ends_at_once() -> None:
    program = (
        "from ingest.client import Client; import sys;"
        "Client('127.0.0.1', int(sys.argv[1]), 'a', 't').send('a')"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(free_port())]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    "frame",
    ["\ud800", "", "a\nb", "a\r", b"a\nb", "x" * 65_537],
)
def test_frames_that_are_none(shell: Shell, frame: Any) -> None:
    client = shell("127.0.0.1", free_port(), "a", "t")
    with pytest.raises(ValueError, match=r"."):
        client.send(frame)
    assert client.taken == 0
    client.abort()


def test_without_its_package_msgpack_says_what_to_install(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match="pip install msgpack"):
        shell("127.0.0.1", free_port(), "a", "t", dialect="msgpack")


@pytest.mark.parametrize("frame", [None, 1 << 64, "\ud800", b"x" * 65_600])
def test_objects_that_msgpack_can_not_hold(shell: Shell, frame: Any) -> None:
    client = shell("127.0.0.1", free_port(), "a", "t", dialect="msgpack")
    with pytest.raises(ValueError, match=r"."):
        client.send({"a": frame} if frame is not None else None)
    assert client.taken == 0
    client.abort()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own Ctrl-C, whatever this process has done with it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_keyboard_interrupt_while_the_queue_is_full() -> None:
    """The frame that waited was not taken, and the client goes on."""
    port = free_port()
    client = Client("127.0.0.1", port, "sensor-1", "secret", queue=2, **IMPATIENT)
    client.send_many("ab")
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    threading.Thread(target=timer.run).start()
    with pytest.raises(KeyboardInterrupt):
        client.send("c")
    assert client.taken == 2
    with Server(port=port) as server:
        client.send("d")
        client.close()
        assert server.stored == [b"a", b"b", b"d"]


@pytest.mark.parametrize("way", ["send", "wait", "connect", "close", "reconnect"])
def test_cancelling_each_method_leaves_a_client_that_works(way: str, tmp_path: Path) -> None:
    port = free_port()

    async def main() -> list[bytes]:
        client = AsyncClient(
            "127.0.0.1", port, "sensor-1", "secret", spool=tmp_path / "spool", spool_size=4096,
            **IMPATIENT | {"pause": (60.0, 60.0)},
        )  # fmt: skip
        await client.send_many(["x" * 90] * 3)
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        arguments = ("y" * 90,) if way == "send" else ()
        task = asyncio.ensure_future(getattr(client, way)(*arguments))
        await asyncio.wait({task}, timeout=0.2)
        while way == "send" and task.done():  # until the spool is full, and a send waits
            task = asyncio.ensure_future(client.send("y" * 90))
            await asyncio.wait({task}, timeout=0.2)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ConnectionRefusedError)):
            await task
        taken = client.taken
        if way == "close":  # it is closed, and the frames are in the spool
            client = AsyncClient(
                "127.0.0.1", port, "sensor-1", "secret", spool=tmp_path / "spool", **IMPATIENT
            )
        with Server(port=port) as server:
            await client.reconnect(PATIENCE)
            await client.close(PATIENCE)
            assert len(server.stored) == taken
            return server.stored

    assert asyncio.run(main())[:3] == [b"x" * 90] * 3


def test_cancelling_within_the_block_ends_it(tmp_path: Path) -> None:
    async def main() -> None:
        async def work() -> None:
            async with AsyncClient(
                "127.0.0.1", free_port(), "a", "t", spool=tmp_path, **IMPATIENT
            ) as client:
                await client.send("a")
                await asyncio.sleep(60)

        task = asyncio.ensure_future(work())
        while not list(tmp_path.glob("*.frames")):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = AsyncClient("127.0.0.1", 1, "a", "t", spool=tmp_path)  # it is not locked any more
        await again.abort()

    asyncio.run(main())
