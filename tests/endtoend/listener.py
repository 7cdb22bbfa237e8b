"""A listener as an operator starts it, and devices that know the protocol and nothing else."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import msgpack
from scramp import ScramClient

from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from ingest.ops.control import ask

TWISTD = Path(sys.executable).with_name("twistd")
INGEST = Path(sys.executable).with_name("ingest")

TOKEN = "s3cr3t"
_VERIFIER = derive(TOKEN)  # one for all: each costs a millisecond

ANY_PORT = "tcp:0:interface=127.0.0.1"
PATIENCE = 20.0
"""Seconds after which a test gives up waiting; nothing takes nearly as long."""

TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
"""A time of the listener, as a pattern."""

Address = tuple[str, int] | str
Reply = tuple[str, Any]


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Look until `condition` holds.

    Raises:
        AssertionError: it did not in `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, without the settings of whoever runs the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "INGEST_DATA"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


class Listener:
    """A `twistd -n ingest` process; leaving it stops it in good order, and checks that it did.

    Attributes:
        data: its data folder.
        pid: its process.
        addresses: where it listens, in the order of its endpoints.
    """

    def __init__(
        self, data: Path, *options: str | Path, listen: tuple[str, ...] = (ANY_PORT,),
        under: tuple[str | Path, ...] = (), cwd: Path | None = None, output: Path | None = None,
    ) -> None:  # fmt: skip
        """Start it and wait until it listens.

        Args:
            data: its data folder.
            options: of `twistd ingest`, besides the next.
            listen: its endpoints.
            under: a command that runs it as its own process, such as strace.
            cwd: where it is started.
            output: where what it says goes; beside `data` by default.
        """
        self.data = data
        self.layout = Layout(data)
        self._output = output or data.with_name(data.name + ".out")
        self._output.parent.mkdir(parents=True, exist_ok=True)
        command = [*under, TWISTD, "-n", "--pidfile=", "ingest", "--data", data, *options]
        command += [part for endpoint in listen for part in ("--listen", endpoint)]
        with self._output.open("wb") as stream:
            self._process = subprocess.Popen(
                command, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid
        wait_for(self._has_started, "the listener's start")
        self.addresses = [
            _address(text) for text in re.findall(r"listening on (\S+)\n", self.output)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.kill()

    def _has_started(self) -> bool:
        assert self._process.poll() is None, self.output
        return "may connect\n" in self.output

    def stop(self) -> None:
        """Stop it as an operator does."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        # A program that a signal ended says so to whoever waits for it; twistd does.
        assert self._process.returncode == -signal.SIGTERM, self.output
        for word in ("Traceback", "Unhandled", "Error"):
            assert word not in self.output

    def kill(self) -> None:
        """End it as a lack of memory does; there is nothing left to stop."""
        self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        """What it has written to standard output and standard error."""
        return self._output.read_text()

    @property
    def resident(self) -> int:
        """The memory that it uses now, in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def add(self, *names: str) -> None:
        """Register devices; `TOKEN` is the token of each."""
        with Registry(self.layout.devices) as registry:
            assert registry.add_many((name, _VERIFIER, "") for name in names) == len(names)

    def ingest(self, *arguments: str) -> str:
        """Run an `ingest` command on its data folder, with success; return what it says."""
        result = run(INGEST, "--data", self.data, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def status(self) -> dict[str, Any]:
        """Return what `ingest status --json` prints."""
        answer: dict[str, Any] = ask(self.layout.control, "status")
        return answer

    def files(self) -> list[Path]:
        """List the log's files that are not compressed, oldest first."""
        folder = self.layout.log_folder
        return [*sorted(folder.glob("ingest-*.log")), folder / "ingest.log"]

    def lines(self, device: str) -> list[str]:
        """Return the lines of a device, as they stand in the log."""
        key = f'"device":"{device}"'.encode()
        return [line.decode() for line in self._content().split(b"\n") if key in line]

    def frames(self, device: str) -> list[Any]:
        """Return the content of a device's frames, after a look at the numbers."""
        return _frames(self.lines(device)).get(device, [])

    def all_frames(self) -> dict[str, list[Any]]:
        """Return the content of all devices' frames, after a look at the numbers."""
        return _frames(self._content().decode().splitlines())

    def _content(self) -> bytes:
        return b"".join(map(_read, self.files()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # retention has just removed it
        return b""


def _frames(lines: list[str]) -> dict[str, list[Any]]:
    frames: dict[str, list[Any]] = {}
    for line in lines:
        _, device, seq, content = json.loads(line).values()
        frames.setdefault(device, []).append(content)
        assert seq == len(frames[device]), line
    return frames


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon else text


class Device:
    """One connection of a device. Replies are read as (kind, content).

    Kinds: `ok` (its pairs), `challenge` (bytes), `ack` (a number), `err` (the code), `end` when
    the listener has closed its side, `reset` when it has cut the connection.
    """

    field: ClassVar[str]
    """The key under which the record of a frame keeps it."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    # What each dialect writes in its own way.

    def auth(self, mechanism: str, data: bytes, ack: str = "") -> bytes:
        """Write the first message."""
        raise NotImplementedError

    def response(self, data: bytes) -> bytes:
        """Write the answer to a challenge."""
        raise NotImplementedError

    def frame(self, text: str) -> bytes:
        """Write a frame."""
        raise NotImplementedError

    keep_alive: ClassVar[bytes]

    def _cut_reply(self) -> bytes | None:
        raise NotImplementedError

    def _parse(self, reply: bytes) -> Reply:
        raise NotImplementedError

    # What a device does.

    def plain(self, name: str, token: str = TOKEN, ack: str = "") -> bytes:
        """Write the whole handshake of PLAIN."""
        return self.auth("PLAIN", f"\0{name}\0{token}".encode(), ack)

    def send(self, *data: bytes) -> None:
        """Send bytes, in one segment if they are few."""
        self.socket.sendall(b"".join(data))

    def log_in(self, name: str, ack: str = "") -> int:
        """Prove the name with PLAIN; return the number of the next frame."""
        self.send(self.plain(name, ack=ack))
        kind, pairs = self.reply()
        assert (kind, pairs["device"]) == ("ok", name), pairs
        following: int = pairs["next"]
        return following

    def begin_scram(self, name: str, token: str = TOKEN) -> ScramClient:
        """Go through SCRAM up to the listener's challenge."""
        client = ScramClient(["SCRAM-SHA-256"], name, token)
        self.send(self.auth("SCRAM-SHA-256", client.get_client_first().encode()))
        kind, challenge = self.reply()
        assert kind == "challenge", challenge
        client.set_server_first(challenge.decode())
        return client

    def push(self, *texts: str) -> None:
        """Send frames."""
        self.send(*map(self.frame, texts))

    def push_all(self, *texts: str, last: int) -> None:
        """Send frames, and wait until number `last` is acknowledged."""
        self.push(*texts)
        self.wait_for_ack(last)

    def wait_for_ack(self, last: int) -> None:
        """Read acknowledgements, which rise, up to `last`."""
        seen = 0
        while seen < last:
            kind, seq = self.reply()
            assert kind == "ack" and seen < seq <= last, (kind, seq)
            seen = seq

    def close_side(self) -> None:
        """Close the sending side only."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the listener gets a reset, as when a device loses its power."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def reply(self) -> Reply:
        """Read the listener's next message."""
        while (reply := self._cut_reply()) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return "reset", None
            if not data:
                assert not self._buffer, self._buffer
                return "end", None
            self._buffer += data
        return self._parse(reply)

    def replies(self) -> list[Reply]:
        """Read all that the listener says until it closes its side."""
        replies = [self.reply()]
        while replies[-1][1] is not None:
            replies.append(self.reply())
        return replies

    def last_words(self) -> str:
        """Read up to the end; return the error code that the listener closed with."""
        *_, (kind, code), end = [("", None), *self.replies()]
        assert (kind, end) == ("err", ("end", None)), (kind, code, end)
        return str(code)


class TextDevice(Device):
    """Lines that end in LF."""

    field = "text"
    keep_alive = b"\n"

    def auth(self, mechanism: str, data: bytes, ack: str = "") -> bytes:
        option = f" ack={ack}" if ack else ""
        return f"AUTH {mechanism} {b64encode(data).decode()}{option}\n".encode()

    def response(self, data: bytes) -> bytes:
        return b64encode(data) + b"\n"

    def frame(self, text: str) -> bytes:
        return text.encode() + b"\n"

    def _cut_reply(self) -> bytes | None:
        if b"\n" not in self._buffer:
            return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _parse(self, reply: bytes) -> Reply:
        word, content = reply.decode().split(" ", 1)
        if word == "OK":
            pairs: dict[str, Any] = dict(pair.split("=", 1) for pair in content.split(" "))
            for name in ("next", "max_frame"):
                pairs[name] = int(pairs[name])
            if "data" in pairs:
                pairs["data"] = b64decode(pairs["data"])
            return "ok", _without_time(pairs)
        if word == "+":
            return "challenge", b64decode(content)
        if word == "ACK":
            return "ack", int(content)
        code, text = content.split(" ", 1)
        assert word == "ERR" and text, reply
        return "err", code


class PackedDevice(Device):
    """msgpack objects."""

    field = "data"
    keep_alive = b"\xc0"

    def auth(self, mechanism: str, data: bytes, ack: str = "") -> bytes:
        return pack({"auth": mechanism, "data": data} | ({"ack": ack} if ack else {}))

    def response(self, data: bytes) -> bytes:
        return pack({"data": data})

    def frame(self, text: str) -> bytes:
        return pack(text)

    def _cut_reply(self) -> bytes | None:
        unpacker = msgpack.Unpacker()
        unpacker.feed(self._buffer)
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            return None
        end = unpacker.tell()
        reply, self._buffer = self._buffer[:end], self._buffer[end:]
        return reply

    def _parse(self, reply: bytes) -> Reply:
        message = msgpack.unpackb(reply)
        if "err" in message:
            assert message.keys() == {"err", "text"} and message["text"], message
            return "err", message["err"]
        ((kind, content),) = message.items()
        return kind, _without_time(content) if kind == "ok" else content


def _without_time(ok: dict[str, Any]) -> dict[str, Any]:
    """Check that an `OK` ends with the listener's time, and leave it out."""
    *_, last = ok
    assert last == "time" and re.fullmatch(TIME, ok.pop("time")), ok
    return ok


def pack(value: object) -> bytes:
    """Write a msgpack object."""
    packed: bytes = msgpack.packb(value)
    return packed
