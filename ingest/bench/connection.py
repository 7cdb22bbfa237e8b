"""One device's connection: how it comes about, what it sends, and what it hears."""

import select
import socket
import ssl
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Generator

import msgpack

from ingest.bench import scram
from ingest.bench.plan import LATENCY_UNIT, Device, Plan
from ingest.bench.replies import hear_for
from ingest.client import Challenge, Ok, Packed, ProtocolError, Reply, ServerError, Text

Waiting = Generator[int, None, None]
"""Yields the epoll events that it waits for."""

_CHUNK = 65536  # bytes to read at once
_BUFFERS = 64 << 20  # bytes that the kernel may hold for all connections of a load together
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A socket of the load.

    Attributes:
        socket: it never blocks.
        fd: its descriptor.
        opened: whether the connection is open.
        written: bytes of frames that the socket took.
        quota: bytes of frames that it is to take, a whole number of frames.
        acked: how many frames the listener said are on disk.
        timed: whether to count how long ACKs take.
        closed: whether the other side has closed.
    """

    __slots__ = (
        "_ack_base",
        "_device",
        "_hear",
        "_marks",
        "_plan",
        "_rest",
        "_stride",
        "acked",
        "closed",
        "fd",
        "opened",
        "quota",
        "socket",
        "timed",
        "written",
    )

    def __init__(self, plan: Plan, device: Device, stride: int, tls: ssl.SSLContext | None) -> None:
        """Begin to connect.

        Args:
            plan: what to do.
            device: as whom.
            stride: bytes of each frame on the wire.
            tls: by which to speak TLS.

        Raises:
            OSError: the system has no more sockets.
        """
        self._plan = plan
        self._device = device
        self._stride = stride
        self._hear = hear_for(plan.dialect)
        self._marks: deque[tuple[int, float]] = deque()
        self._rest = b""
        self._ack_base = 0
        self.opened = self.closed = False
        self.timed = plan.acks
        self.written = self.quota = self.acked = 0
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, min(1 << 20, _BUFFERS // len(plan.devices))
        )
        plain.connect_ex((plan.host, plan.port))
        self.socket = plain
        if tls is not None:
            self.socket = tls.wrap_socket(
                plain, server_hostname=plan.host, do_handshake_on_connect=False
            )
        self.fd = self.socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    # Before the frames.

    def shake_hands(self) -> Waiting:
        """Open the connection and prove who it is.

        Raises:
            OSError: the connection can't be made, or breaks.
            ClientError: the listener refuses, or does not follow the protocol.
        """
        yield select.EPOLLOUT
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        if isinstance(self.socket, ssl.SSLSocket):
            yield from _shake_tls(self.socket)
        self.opened = True
        if self._plan.mechanism is not None:
            yield from self._authenticate()

    def _authenticate(self) -> Waiting:
        name, token = self._device
        if self._plan.mechanism == "PLAIN":
            self._say_auth(f"\0{name}\0{token}".encode())
        else:
            bare = scram.first(name)
            self._say_auth(b"n,," + bare)
            challenge = yield from self._reply()
            if not isinstance(challenge, Challenge):
                raise ProtocolError(f"the listener answered with {challenge}")
            self._say_response(scram.final(bare, challenge.data, token))
        ok = yield from self._reply()
        if not isinstance(ok, Ok):
            raise ProtocolError(f"the listener answered with {ok}")
        self._ack_base = ok.following - 1

    def _say_auth(self, data: bytes) -> None:
        mechanism, ack = self._plan.mechanism, "durable" if self._plan.acks else "none"
        if self._plan.dialect == "text":
            self.socket.send(f"AUTH {mechanism} {b64encode(data).decode()} ack={ack}\n".encode())
        else:
            self.socket.send(msgpack.packb({"auth": mechanism, "data": data, "ack": ack}))

    def _say_response(self, data: bytes) -> None:
        text = self._plan.dialect == "text"
        self.socket.send(b64encode(data) + b"\n" if text else msgpack.packb({"data": data}))

    def _reply(self) -> Generator[int, None, Reply]:
        """Wait for one whole reply: during the handshake there is never more than one."""
        received = b""
        while True:
            yield select.EPOLLIN
            try:
                data = self.socket.recv(_CHUNK)
            except _WOULD_BLOCK:
                continue
            if not data:
                raise ConnectionResetError("the listener closed the connection")
            received += data
            parser = Text() if self._plan.dialect == "text" else Packed()
            reply = next(iter(parser.feed(received)), None)
            if isinstance(reply, ServerError):
                raise reply
            if reply is not None:
                return reply

    # The frames.

    @property
    def frames(self) -> int:
        """How many frames the socket took, whole."""
        return self.written // self._stride

    @property
    def is_settled(self) -> bool:
        """Whether all it was to send is sent and, as far as it wants ACKs, acknowledged."""
        if self.written < self.quota:
            return False
        return self.frames <= self.acked if self._plan.acks else self.closed

    def send(self, view: memoryview, most: int, now: float) -> None:
        """Send the bytes that come next, as many as the socket takes at once.

        Args:
            view: the block of frames, which is sent again and again.
            most: send so many bytes at most.
            now: the time of `time.monotonic`.

        Raises:
            OSError: the connection is broken.
        """
        start = self.written % len(view)
        try:
            self.written += self.socket.send(view[start : start + most])
        except _WOULD_BLOCK:
            return
        if self.timed:
            self._marks.append((self.written // self._stride, now))

    def send_frame(self, view: memoryview, now: float) -> None:
        """Send one frame, or the rest of one; see `send`."""
        self.send(view, self._stride - self.written % self._stride, now)

    def finish_frame(self) -> None:
        """Send no more than what is left of the frame at hand."""
        self.quota = min(self.quota, -(-self.written // self._stride) * self._stride)

    def finish(self) -> None:
        """Close the sending side, so that the other side closes when it has all.

        Raises:
            OSError: the connection is broken.
        """
        if isinstance(self.socket, ssl.SSLSocket):
            try:
                self.socket.unwrap()
            except _WOULD_BLOCK:
                return
            self.closed = True
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def hear(self, now: float, latencies: Counter[int]) -> None:
        """Read what the listener says.

        Args:
            now: the time of `time.monotonic`.
            latencies: where to count how long ACKs took.

        Raises:
            OSError: the connection is broken.
            ClientError: the listener said why it closes, or what is no reply.
        """
        try:
            data = self.socket.recv(_CHUNK)
        except _WOULD_BLOCK:
            return
        except ssl.SSLZeroReturnError:  # both sides have said that they send no more
            data = b""
        if not data:
            self.closed = True
        elif self._plan.mechanism is not None:
            acked, self._rest, error = self._hear(self._rest + data)
            if acked:
                self._acknowledge(acked - self._ack_base, now, latencies)
            if error is not None:
                raise error

    def _acknowledge(self, acked: int, now: float, latencies: Counter[int]) -> None:
        self.acked = acked
        marks = self._marks
        while marks and marks[0][0] <= acked:
            latencies[int((now - marks.popleft()[1]) / LATENCY_UNIT)] += 1


def _shake_tls(tls: ssl.SSLSocket) -> Waiting:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            yield select.EPOLLIN
        except ssl.SSLWantWriteError:
            yield select.EPOLLOUT
        else:
            return
