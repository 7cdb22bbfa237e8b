"""A listener that says what a test wants it to say, one connection after the other."""

import socket
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.waiting import PATIENCE


class Connection:
    """The listener's side of one connection, in the text dialect."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(PATIENCE)
        self._buffer = b""

    def line(self) -> bytes:
        """Read the device's next line.

        Raises:
            AssertionError: it ends the connection instead.
        """
        while b"\n" not in self._buffer:
            data = self._socket.recv(4096)
            assert data, f"the device closed the connection after {self._buffer!r}"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def frame(self) -> bytes:
        """Read the device's next line that is not a keep-alive."""
        while not (line := self.line()):
            pass
        return line

    def lines(self, count: int) -> list[bytes]:
        """Read so many lines."""
        return [self.line() for _ in range(count)]

    def say(self, *lines: str) -> None:
        """Send lines, a byte at a time: a device must not expect them in one piece."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in "".join(line + "\n" for line in lines).encode():
            self._socket.sendall(bytes([byte]))

    def log_in(self, following: int) -> None:
        """Take PLAIN, and let the device in; with keys of OK that it can't know."""
        assert self.line().startswith(b"AUTH PLAIN ")
        self.say(f"OK device=d x=next=9 next={following} max_frame=65536 time=2026-11-22T11:39:00Z")

    def challenge(self, answer: str = "r={nonce}more,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096") -> None:
        """Take the first message of SCRAM, and answer it."""
        word, mechanism, data = self.line().split(b" ")
        assert (word, mechanism) == (b"AUTH", b"SCRAM-SHA-256")
        nonce = b64decode(data).decode().partition(",r=")[2]
        self.say("+ " + b64encode(answer.format(nonce=nonce).encode()).decode())

    def expect_end(self) -> None:
        """Wait until the device ends the connection; it must say nothing more before."""
        try:
            data = self._socket.recv(4096)
        except ConnectionResetError:
            data = b""
        assert self._buffer + data == b"", "the device went on talking"

    def reset(self) -> None:
        """Break the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Script = Callable[[Connection], None]


@contextmanager
def listening(*scripts: Script, port: int = 0) -> Iterator[tuple[str, int]]:
    """Serve one connection for each script; give the address.

    Raises:
        AssertionError: a script did, or there were fewer connections.
    """
    failures: list[BaseException] = []

    def serve() -> None:
        for number, script in enumerate(scripts, 1):
            try:
                connected, _ = server.accept()
            except TimeoutError:
                failures.append(AssertionError(f"connection {number} was waited for in vain"))
                return
            with connected:
                try:
                    script(Connection(connected))
                except (AssertionError, OSError, ValueError) as error:
                    failures.append(error)
                    return

    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            thread.join(PATIENCE + 1)
    if failures:
        raise failures[0]
