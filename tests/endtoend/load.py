"""Devices that push as fast as they may, reconnect when cut off, and resume by `next`.

What a device sends as its frame number n is a function of its name and n. So a test that reads
the log afterwards knows each line to the byte, and nothing need be remembered meanwhile.
"""

import contextlib
import random
import selectors
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Self

import msgpack

from tests.support.devices import TOKEN

_READ = 1 << 16
_RETRY = 0.02  # seconds between two attempts to connect
_PIECE = 1 << 17  # bytes made at once
_LINE = '{"time":"2026-11-22T11:39:00.123456Z","device":"","seq":,\n'
"""What a line of the log has besides the device's name, the number and what follows it."""


_POWERS_OF_TEN: list[int] = [10**exponent for exponent in range(12)]


class Kind:
    """What a device sends: its dialect and the size of its frames."""

    def __init__(self, dialect: str, size: int) -> None:
        """Describe it; `size` is the bytes of a frame's payload."""
        assert b"%" not in size.to_bytes(2), "a length that a template can't hold"
        self.dialect = dialect
        self.size = size
        self.batch = max(1, _PIECE // size)

    def payload(self, name: str) -> bytes:
        """Return the template of a device's payloads: `payload % number` is one."""
        start = name.encode() + b":%010d:"
        return start + b"x" * (self.size - len(start % 0))

    def frame(self, name: str) -> bytes:
        """Return the template of what goes over the wire."""
        payload = self.payload(name)
        if self.dialect == "text":
            return payload + b"\n"
        return b"\x81\xa1n" + b"\xda" + self.size.to_bytes(2) + payload

    def record(self, name: str) -> bytes:
        """Return the template of what follows a record's number in the log."""
        if self.dialect == "text":
            return b'"text":"' + self.payload(name) + b'"}'
        return b'"data":{"n":"' + self.payload(name) + b'"}}'


class Device:
    """One device.

    Attributes:
        acknowledged: the newest number that it was told is on disk.
        following: the number of the frame that it sends next.
        sent: the newest number that it ever sent.
        errors: the codes of the errors that it was told.
    """

    def __init__(self, name: str, kind: Kind, window: int) -> None:
        """Describe it.

        Args:
            name: its name.
            kind: what it sends.
            window: frames that it sends ahead of their acknowledgement.
        """
        self.name = name
        self.kind = kind
        self.window = window
        self.acknowledged = 0
        self.sent = 0
        self.socket: socket.socket | None = None
        self.ready = False
        self.following = 1
        self._template = kind.frame(name)
        self._line_size = len(_LINE) + len(name) + len(kind.record(name) % 0)
        self._unsent = b""
        self._rest = b""
        self._unpacker: Any = None
        self.retry_at = 0.0
        self.errors: list[str] = []

    def connect(self, port: int) -> bool:
        """Connect and send the handshake; return False if nobody listens."""
        connection = socket.socket()
        try:
            connection.connect(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self._greeting())
        except OSError:
            connection.close()
            return False
        connection.setblocking(False)
        self.socket, self.ready, self._unsent, self._rest = connection, False, b"", b""
        self._unpacker = msgpack.Unpacker()
        return True

    def disconnect(self) -> None:
        """Forget the connection and what was not sent yet."""
        if self.socket is not None:
            self.socket.close()
        self.socket, self.ready = None, False

    def read(self) -> bool:
        """Take what the listener says; return False when it has closed."""
        assert self.socket is not None
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for word, value in self._replies(data):
            self._take(word, value)
        return bool(data)

    def write(self) -> bool:
        """Send what the socket takes; return False when the connection is broken."""
        assert self.socket is not None
        if not self._unsent:
            self._make()
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._unsent = self._unsent[sent:]
        return True

    def log_size(self) -> int:
        """Return the bytes of the log that its frames take or will take, to the byte."""
        last = self.following - 1
        digits = sum(last - power + 1 for power in _POWERS_OF_TEN if power <= last)
        return last * self._line_size + digits

    def may_write(self, *, begin: bool) -> bool:
        """Tell whether it has frames that it began to send or, if it may `begin`, could send."""
        return self.ready and (bool(self._unsent) or (begin and self._room() > 0))

    @property
    def is_settled(self) -> bool:
        """Whether all that it sent is acknowledged."""
        return self.ready and not self._unsent and self.acknowledged == self.following - 1

    def _room(self) -> int:
        return min(self.kind.batch, self.acknowledged + self.window - self.following + 1)

    def _make(self) -> None:
        count = self._room()
        numbers = range(self.following, self.following + count)
        self._unsent = b"".join(map(self._template.__mod__, numbers))
        self.following += count
        self.sent = max(self.sent, self.following - 1)

    def _greeting(self) -> bytes:
        plain = b"\0%b\0%b" % (self.name.encode(), TOKEN.encode())
        if self.kind.dialect == "text":
            return b"AUTH PLAIN " + b64encode(plain) + b"\n"
        packed = msgpack.packb({"auth": "PLAIN", "data": plain})
        assert isinstance(packed, bytes)
        return packed

    def _replies(self, data: bytes) -> list[tuple[str, Any]]:
        if self.kind.dialect == "msgpack":
            self._unpacker.feed(data)
            return [(word, reply) for reply in self._unpacker for word in list(reply)[:1]]
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [(line.split()[0].decode().lower(), line.decode()) for line in lines]

    def _take(self, word: str, reply: Any) -> None:
        is_text = isinstance(reply, str)
        if word == "ack":
            self._acknowledge(int(reply.split()[1]) if is_text else reply["ack"])
        elif word == "ok":
            fields = dict(pair.split("=") for pair in reply.split()[1:]) if is_text else reply["ok"]
            self._resume(int(fields["next"]))
        else:
            self.errors.append(reply.split()[1] if is_text else reply["err"])

    def _acknowledge(self, seq: int) -> None:
        assert self.acknowledged < seq < self.following, (
            f"{self.name}: ACK {seq}, next is {self.following}"
        )
        self.acknowledged = seq

    def _resume(self, following: int) -> None:
        held = following - 1
        assert held >= self.acknowledged, f"{self.name}: lost {held + 1} to {self.acknowledged}"
        assert held <= self.sent, f"{self.name}: has {held}, was sent {self.sent}"
        self.acknowledged, self.following, self.ready = held, following, True


class Fleet:
    """Many devices, run by one thread of this process.

    Attributes:
        devices: all of them.
        throttle: whether they hold back now; replaced by who must not be overrun.
    """

    def __init__(self, port: int, devices: Sequence[Device]) -> None:
        self.devices = devices
        self.throttle: Callable[[], bool] = lambda: False
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._sending = True
        self._running = True
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running = False
        self._thread.join()
        for device in self.devices:
            device.disconnect()
        self._selector.close()

    def check(self) -> bool:
        """Raise what went wrong in the thread; return True.

        Raises:
            AssertionError: the listener broke its promise to a device.
        """
        if self._failure is not None:
            raise AssertionError(f"the fleet: {self._failure!r}") from self._failure
        return True

    def finish(self) -> bool:
        """Begin nothing new; return whether all devices know that all they sent is on disk."""
        self._sending = False
        return self.check() and all(device.is_settled for device in self.devices)

    def hold(self) -> None:
        """Begin nothing new until `resume`."""
        self._sending = False

    def resume(self) -> None:
        """Send again."""
        self._sending = True

    def acknowledged(self) -> int:
        """Return how many frames of all devices are acknowledged."""
        return self.check() and sum(device.acknowledged for device in self.devices)

    def connected(self) -> int:
        """Return how many devices are let in."""
        return self.check() and sum(device.ready for device in self.devices)

    def _guarded(self) -> None:
        try:
            while self._running:
                self._turn()
        except BaseException as error:
            self._failure = error

    def _turn(self) -> None:
        now = time.monotonic()
        begin = self._sending and not self.throttle()
        for device in self.devices:
            if device.socket is None:
                self._connect(device, now)
            elif device.ready:
                self._watch(device, write=device.may_write(begin=begin))
        for key, events in self._selector.select(0.01):
            device = key.data
            alive = not events & selectors.EVENT_READ or device.read()
            if alive and events & selectors.EVENT_WRITE and device.may_write(begin=begin):
                alive = device.write()
            if not alive:
                self._drop(device, now)

    def _connect(self, device: Device, now: float) -> None:
        if now < device.retry_at:
            return
        if device.connect(self._port):
            assert device.socket is not None
            self._selector.register(device.socket, selectors.EVENT_READ, device)
        else:
            device.retry_at = now + _RETRY

    def _watch(self, device: Device, *, write: bool) -> None:
        assert device.socket is not None
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        if self._selector.get_key(device.socket).events != wanted:
            self._selector.modify(device.socket, wanted, device)

    def _drop(self, device: Device, now: float) -> None:
        assert device.socket is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(device.socket)
        device.disconnect()
        device.retry_at = now + random.uniform(0, _RETRY)
