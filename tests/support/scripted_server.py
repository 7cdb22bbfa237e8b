"""A server that does as a test says, one connection after the other."""

import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import msgpack

from ingest.client import Client
from tests.support.waiting import PATIENCE

IMPATIENT: dict[str, Any] = {"pause": (0.01, 0.05)}
"""Options of a client for tests: it does not wait for seconds."""


def pack(*objects: object) -> bytes:
    return b"".join(map(msgpack.packb, objects))


@dataclass
class Plan:
    """What the server does with one connection.

    Attributes:
        take: how many frames it stores before it ends the connection.
        acks: whether it tells of them.
        farewell: what it says at the end.
        following: the `next` that it claims, where it is not the truth.
        refuse: what it says instead of OK.
        time: what it says of its clock.
    """

    take: float = math.inf
    acks: bool = True
    farewell: bytes = b""
    following: int | None = None
    refuse: bytes = b""
    time: str = ""


@dataclass
class Server:
    """Stores lines and acknowledges them; breaks its connections as planned.

    After the last plan it behaves. It resets a connection with bytes it did not read.
    """

    plans: list[Plan] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    max_frame: int = 100

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listening.close()

    def client(self, **options: Any) -> Client:
        return Client("127.0.0.1", self.port, "sensor-1", "secret", **IMPATIENT | options)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                self.connections += 1
                plan = self.plans.pop(0) if self.plans else Plan()
                try:
                    self._converse(connection, iter(lines.readline, b""), plan)
                    connection.sendall(plan.farewell)
                except OSError:
                    continue
                if plan.take != math.inf and not plan.farewell:
                    reset = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    def _converse(self, connection: socket.socket, lines: Iterator[bytes], plan: Plan) -> None:
        if not next(lines, b"").startswith(b"AUTH PLAIN AHNlbnNvci0xAHNlY3JldA== ack="):
            return
        if plan.refuse:
            connection.sendall(plan.refuse)
            return
        following = plan.following or len(self.stored) + 1
        clock = f" time={plan.time}" if plan.time else ""
        ok = f"OK device=sensor-1 next={following} max_frame={self.max_frame}{clock}\n"
        connection.sendall(ok.encode())
        for seq, line in enumerate(lines if plan.take else (), following):
            self.stored.append(line[:-1])
            if plan.acks:
                connection.sendall(b"ACK %d\n" % seq)
            plan.take -= 1
            if plan.take == 0:
                return


@contextmanager
def serve_once(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Let `serve` have one connection; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(PATIENCE)
