"""Kill devices, the listener and connections at random, with full disks on both sides.

The test suite does it 30 times. For a longer run, as root:

    python -m tests.client.kill --blows 300
"""

import argparse
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

from tests.client.device import frame
from tests.endtoend.evidence import lines_of, log_pieces
from tests.support.listeners import SteadyListener
from tests.support.processes import run_tool
from tests.support.waiting import PATIENCE, wait_for

_ROOT = Path(__file__).parents[2]
_SHELLS = (("blocking", "text"), ("asyncio", "msgpack"))
_ROOM = 600 << 10  # bytes of a device's disk that its spool may come to fill


class Outcome(NamedTuple):
    """What a run brought: how often each thing was done, and how many frames are in the log."""

    blows: Counter[str]
    frames: int
    in_doubt: int

    def __str__(self) -> str:
        blows = ", ".join(f"{name} {count}" for name, count in sorted(self.blows.items()))
        return (
            f"{self.blows.total()} blows ({blows}); {self.frames:,} frames, each once and in order;"
            f" a device did not live to know of {self.in_doubt} that they were taken"
        )


class Proxy:
    """Passes bytes between devices and the listener, and cuts connections when told to."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; what is on its way is lost."""
        with self._lock:
            for connection in self._open:
                reset = struct.pack("ii", 1, 0)
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                device, _ = self._listening.accept()
            except OSError:
                return
            try:
                listener = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                device.close()
                continue
            with self._lock:
                self._open |= {device, listener}
            for source, sink in ((device, listener), (listener, device)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        for connection in (source, sink):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        source.close()


class Device:
    """A process of `tests.client.device` with a disk of its own, killed and started again."""

    def __init__(self, folder: Path, disk: Path, shell: str, dialect: str, port: int) -> None:
        self.name = f"{shell}-{dialect}"
        self.dialect = dialect
        self.disk = disk
        self.diary = folder / f"{self.name}.diary"
        self.ending = folder / "ending"
        self.diary.touch()
        arguments = [shell, dialect, port, self.name, disk / "spool", self.diary, self.ending]
        self._command = [sys.executable, "-m", "tests.client.device", *map(str, arguments)]
        self._output = folder / f"{self.name}.output"
        self.start()

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=_ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        assert self._process.wait(PATIENCE) == 0, self._output.read_text()[-3000:]

    def lines(self, word: str) -> list[list[str]]:
        """Return the diary's lines that begin with this word."""
        lines = self.diary.read_text().splitlines()
        return [line.split(" ") for line in lines if line.startswith(word + " ")]


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Make a file system of so many bytes; it needs root."""
    folder.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        run_tool("umount", "--lazy", folder)


@contextmanager
def full(disk: Path, spare: int = 0) -> Iterator[None]:
    """Leave no more than `spare` bytes of a disk while the block runs."""
    ballast = disk / "ballast"
    piece = bytes(1 << 12)
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(piece) == len(piece):
            pass
    if spare:
        with ballast.open("ab") as file:
            file.truncate(max(0, ballast.stat().st_size - spare))
    try:
        yield
    finally:
        ballast.unlink()


class Blows:
    """What can go wrong, each as a method; together they are tried in a random order."""

    def __init__(
        self, listener: SteadyListener, disk: Path, devices: list[Device], proxy: Proxy, seed: int
    ) -> None:
        self._listener, self._disk, self._devices, self._proxy = listener, disk, devices, proxy
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """Let the devices work for a moment, then do one of the things below."""
        self._pause()
        blow: Callable[[], None] = self._chance.choice(
            [self.device, self.listener, self.connections, self.both, self.listener_disk,
             self.device_disk, self.device_on_full_disk, self.listener_on_full_disk]
        )  # fmt: skip
        self.done[blow.__name__.replace("_", " ")] += 1
        blow()

    def _pause(self, most: float = 0.3) -> None:
        time.sleep(self._chance.uniform(0, most))

    def device(self) -> None:
        device = self._chance.choice(self._devices)
        device.kill()
        device.start()

    def listener(self) -> None:
        self._listener.kill()
        self._pause()
        self._listener.start()

    def connections(self) -> None:
        self._proxy.cut()

    def both(self) -> None:
        device = self._chance.choice(self._devices)
        device.kill()
        self._listener.kill()
        device.start()
        self._pause()
        self._listener.start()

    def listener_disk(self) -> None:
        with full(self._disk):
            self._pause(1)

    def device_disk(self) -> None:
        with full(self._chance.choice(self._devices).disk, self._chance.choice([0, 5000])):
            self._pause(1)

    def device_on_full_disk(self) -> None:
        device = self._chance.choice(self._devices)
        with full(device.disk):
            self._pause()
            device.kill()
            device.start()
            self._pause(1)

    def listener_on_full_disk(self) -> None:
        with full(self._disk):
            self._pause()
            self._listener.kill()  # on a full disk it does not start
        self._listener.start()


def kill(folder: Path, blows: int, seed: int) -> Outcome:
    """Strike so many times, let the devices finish, and compare the log with their diaries.

    Raises:
        AssertionError: a frame is missing, repeated, out of order or not what was sent.
    """
    with small_disk(folder / "listener", 192 << 20) as disk:
        listener = SteadyListener(disk / "data", output=folder / "listener.output")
        listener.add(*(f"{shell}-{dialect}" for shell, dialect in _SHELLS))
        with listener, Proxy(listener.port) as proxy:
            with _devices(folder, proxy.port) as devices:
                trouble = Blows(listener, disk, devices, proxy, seed)
                for _ in range(blows):
                    trouble.strike()
                (folder / "ending").touch()
                for device in devices:
                    device.wait()
            listener.stop()
            counts = _check(listener, devices)
    tried = sum(int(words[2]) for device in devices for words in device.lines("try")[-1:])
    took = sum(
        int(words[2]) - int(words[1]) + 1 for device in devices for words in device.lines("took")
    )
    return Outcome(trouble.done, counts.total(), tried - took)


@contextmanager
def _devices(folder: Path, port: int) -> Iterator[list[Device]]:
    with (
        small_disk(folder / "disk-0", _ROOM) as first,
        small_disk(folder / "disk-1", _ROOM) as second,
    ):
        devices = [
            Device(folder, disk, shell, dialect, port)
            for disk, (shell, dialect) in zip((first, second), _SHELLS, strict=True)
        ]
        try:
            wait_for(lambda: all(device.lines("took") for device in devices), "they push")
            yield devices
        finally:
            for device in devices:
                device.kill()


def _check(listener: SteadyListener, devices: list[Device]) -> Counter[str]:
    logged: dict[str, list[int]] = {device.name: [] for device in devices}
    for line in lines_of(log_pieces(listener.layout.log_folder)):
        record = json.loads(line)
        numbers = logged[record["device"]]
        text = record["text"] if "text" in record else record["data"]["n"]
        numbers.append(int(text.partition(" ")[0]))
        assert text == frame("text", numbers[-1]), (
            f"{record['device']}: not what it sent as {numbers[-1]}"
        )
        assert record["seq"] == len(numbers)
    for device in devices:
        numbers = logged[device.name]
        events = [" ".join(words) for words in device.lines("event")]
        assert events == [], f"{device.name}: {events}"
        assert numbers == sorted(set(numbers)), f"{device.name}: repeated, or out of order"
        taken = {
            n for words in device.lines("took") for n in range(int(words[1]), int(words[2]) + 1)
        }
        tried = {
            n for words in device.lines("try") for n in range(int(words[1]), int(words[2]) + 1)
        }
        missing = sorted(taken - set(numbers))
        assert not missing, (
            f"{device.name}: {len(missing)} frames are missing, from {missing[0]} on"
        )
        assert set(numbers) <= tried
    return Counter({name: len(numbers) for name, numbers in logged.items()})


def main() -> None:
    """Run it for as long as asked, and say what it brought."""
    parser = argparse.ArgumentParser(prog="python -m tests.client.kill", description=main.__doc__)
    parser.add_argument("--blows", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with TemporaryDirectory() as folder:
        print(kill(Path(folder), arguments.blows, arguments.seed))


if __name__ == "__main__":
    main()
