"""What a device runs to push frames to an ingest listener. Needs the standard library only.

The msgpack dialect also needs the `msgpack` package. This file may be copied to a device as it is.

    with Client("logs.example.com", 7651, "sensor-1", token, tls=ssl.create_default_context()) as c:
        c.send("temp=20.5")
        c.wait()  # the frame is on the listener's disk

Each frame that `send` takes is stored exactly once and in order, also when the connection breaks
or the listener restarts, as long as this object lives and no other program uses the device's name.
"""

import contextlib
import errno
import hashlib
import hmac
import math
import random
import re
import secrets
import selectors
import socket
import ssl
import stringprep
import time
import unicodedata
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

Mechanism = Literal["PLAIN", "SCRAM-SHA-256"]
Encoding = Literal["text", "msgpack"]
Ack = Literal["durable", "none"]

_DEVICE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CHUNK = 65536  # bytes to read at once, and to gather before a send waits for the socket
_MAX_REPLY = 8192  # bytes; the longest reply is an ERR line or a SCRAM challenge, under 1 kB
_ITERATIONS = range(4096, 10_000_001)  # RFC 7677 asks for 4,096 and more; PBKDF2 of 10 M takes 5 s
_CHALLENGE = re.compile(r"r=([!-+\--~]+),s=([^,]+),i=([0-9]{1,8})(?:,|$)")
_TEMPORARY = frozenset({"auth-timeout", "busy", "idle-timeout", "shutting-down"})
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class ClientError(Exception):
    """The conversation with the server can't go on."""


class ServerError(ClientError):
    """The server said why it closes the connection.

    Attributes:
        code: the word for a program, such as `auth-failed`.
        text: one line for a person.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class AuthenticationError(ClientError):
    """The server did not prove that it knows the token: it may be an impostor."""


class ProtocolError(ClientError):
    """The server said something that is not `ingest/1`."""


class OutOfStepError(ClientError):
    """The server holds frames of this device that this client did not send.

    Another program uses the same device name, so the numbers no longer tell which of the
    unacknowledged frames are on disk. Only a new client can go on.
    """


class Ok(NamedTuple):
    """The handshake succeeded; `following` is the number that the next frame gets."""

    following: int
    max_frame: int
    data: bytes


class Challenge(NamedTuple):
    """A challenge of the mechanism, decoded."""

    data: bytes


class Acked(NamedTuple):
    """All frames up to `seq` are on disk."""

    seq: int


# An ERR is a reply, too: the exception itself stands for it, to be raised where it is read.
Reply = Ok | Challenge | Acked | ServerError
_Expected = TypeVar("_Expected", Ok, Challenge)


class Text:
    """The text dialect as a device speaks it. An object serves one connection."""

    def __init__(self) -> None:
        self._rest = b""

    def auth(self, mechanism: str, data: bytes, ack: str) -> bytes:
        """Write the first message."""
        return f"AUTH {mechanism} {b64encode(data).decode()} ack={ack}\n".encode()

    def response(self, data: bytes) -> bytes:
        """Write the answer to a challenge."""
        return b64encode(data) + b"\n"

    def frame(self, frame: Any) -> tuple[bytes, int]:
        """Write one line; return its bytes and how many of them count as the frame.

        Raises:
            TypeError: it is neither str nor bytes.
            ValueError: it is empty, which is the keep-alive, or would not arrive as it is.
        """
        if not isinstance(frame, str | bytes):
            raise TypeError(f"a text frame is str or bytes, not {type(frame).__name__}")
        line = frame.encode() if isinstance(frame, str) else frame
        if not line:
            raise ValueError("an empty line is a keep-alive and no frame")
        if b"\n" in line or line.endswith(b"\r"):
            raise ValueError("a text frame can't contain LF or end in CR")
        return line + b"\n", len(line)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Take bytes from the server and give the replies that are whole.

        Raises:
            ProtocolError: a line is no reply.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield _parse_line(line)
        if len(self._rest) > _MAX_REPLY:
            raise ProtocolError(f"the server's line has more than {_MAX_REPLY} bytes")


class Packed:
    """The msgpack dialect as a device speaks it. An object serves one connection."""

    def __init__(self) -> None:
        import msgpack  # noqa: PLC0415 - only the devices that speak this dialect need it

        self._pack: Callable[[Any], bytes] = msgpack.packb
        self._malformed = (ValueError, msgpack.UnpackException)
        self._unpacker = msgpack.Unpacker(max_buffer_size=_CHUNK + _MAX_REPLY)

    def auth(self, mechanism: str, data: bytes, ack: str) -> bytes:
        """Write the first message."""
        return self._pack({"auth": mechanism, "data": data, "ack": ack})

    def response(self, data: bytes) -> bytes:
        """Write the answer to a challenge."""
        return self._pack({"data": data})

    def frame(self, frame: Any) -> tuple[bytes, int]:
        """Write one object; return its bytes and their number.

        Raises:
            TypeError, ValueError: it is None, which is the keep-alive, or msgpack can't hold it.
        """
        if frame is None:
            raise ValueError("None is a keep-alive and no frame")
        try:
            data = self._pack(frame)
        except OverflowError as error:
            raise ValueError(str(error)) from None
        return data, len(data)

    def feed(self, data: bytes) -> Iterator[Reply]:
        """Take bytes from the server and give the replies that are whole.

        Raises:
            ProtocolError: an object is no reply.
        """
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                yield _parse_object(message)
        except self._malformed as error:
            raise ProtocolError(f"the server's bytes are no msgpack reply: {error}") from None


def _parse_line(line: bytes) -> Reply:
    word, _, rest = line.decode(errors="replace").partition(" ")
    try:
        if word == "ACK":
            return Acked(int(rest))
        if word == "ERR":
            code, _, text = rest.partition(" ")
            return ServerError(code, text)
        if word == "+":
            return Challenge(b64decode(rest, validate=True))
        if word == "OK":
            pairs = dict(pair.split("=", 1) for pair in rest.split())
            data = b64decode(pairs.get("data", ""), validate=True)
            return Ok(int(pairs["next"]), int(pairs["max_frame"]), data)
    except (KeyError, ValueError):
        pass
    raise ProtocolError(f"the server's line is no reply: {line[:80]!r}")


def _parse_object(message: Any) -> Reply:
    match message:
        case {"ack": int(seq)}:
            return Acked(seq)
        case {"err": str(code)}:
            return ServerError(code, str(message.get("text", "")))
        case {"challenge": bytes(data)}:
            return Challenge(data)
        case {"ok": {"next": int(following), "max_frame": int(max_frame), "data": bytes(data)}}:
            return Ok(following, max_frame, data)
        case {"ok": {"next": int(following), "max_frame": int(max_frame)}}:
            return Ok(following, max_frame, b"")
    raise ProtocolError(f"the server's object is no reply: {str(message)[:80]}")


class Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

    One object serves many handshakes: it derives the key again only for a new salt.

    Args:
        make_nonce: gives printable ASCII without a comma, another at each call.
    """

    def __init__(
        self,
        name: str,
        password: str,
        make_nonce: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self._password = _saslprep(password).encode()
        self._name = name
        self._make_nonce = make_nonce
        self._nonce = self._first_bare = ""
        self._derived_from = (b"", 0)
        self._salted_password = self._server_signature = b""

    def first(self) -> bytes:
        """Write client-first-message (RFC 5802 section 7) with a new nonce."""
        self._nonce = self._make_nonce()
        self._first_bare = f"n={self._name},r={self._nonce}"
        return f"n,,{self._first_bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """Write client-final-message: the proof that this side knows the password.

        Raises:
            AuthenticationError: the challenge is no answer to `first`.
        """
        nonce, salt, iterations = self._parse_challenge(server_first)
        if (salt, iterations) != self._derived_from:
            self._salted_password = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
            self._derived_from = salt, iterations
        without_proof = f"c=biws,r={nonce}"  # biws is the base64 of `n,,`
        signed = b"%b,%b,%b" % (self._first_bare.encode(), server_first, without_proof.encode())
        client_key = _hmac(self._salted_password, b"Client Key")
        client_signature = _hmac(hashlib.sha256(client_key).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
        self._server_signature = _hmac(_hmac(self._salted_password, b"Server Key"), signed)
        return f"{without_proof},p={b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check server-final-message: the proof that the server knows the password's verifier.

        Raises:
            AuthenticationError: it does not.
        """
        expected = b"v=" + b64encode(self._server_signature)
        if not hmac.compare_digest(server_final.partition(b",")[0], expected):
            raise AuthenticationError("the server's signature is wrong: it does not know the token")

    def _parse_challenge(self, server_first: bytes) -> tuple[str, bytes, int]:
        match = _CHALLENGE.match(server_first.decode(errors="replace"))
        try:
            if match is None:
                raise ValueError
            nonce, salt, iterations = match[1], b64decode(match[2], validate=True), int(match[3])
        except ValueError:
            raise AuthenticationError("the server's SCRAM challenge is malformed") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise AuthenticationError("the server's SCRAM nonce does not continue ours")
        if iterations not in _ITERATIONS:
            raise AuthenticationError(f"the server asks for {iterations} SCRAM iterations")
        return nonce, salt, iterations


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _saslprep(password: str) -> str:
    # RFC 4013 sections 2.1 and 2.2. What 2.3 and 2.4 prohibit, the server did not register.
    kept = (char for char in password if not stringprep.in_table_b1(char))
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in kept)
    return unicodedata.ucd_3_2_0.normalize("NFKC", mapped)


def backoff(
    base: float = 0.5, cap: float = 30.0, uniform: Callable[[float, float], float] = random.uniform
) -> Iterator[float]:
    """Give the seconds to wait before each attempt: none, then exponential with full jitter.

    The jitter spreads a fleet that lost its server at one moment.
    """
    yield 0.0
    ceiling = base
    while True:
        yield uniform(0.0, ceiling)
        ceiling = min(cap, ceiling * 2)


class _Outage(NamedTuple):
    """The time since the connection broke; it ends with the first acknowledgement after it.

    A new connection alone does not end it: a server may accept it and break it each time.
    """

    give_up: float  # on the monotonic clock
    delays: Iterator[float]


class Client:
    """One device's connection, and the frames that the server has not acknowledged yet.

    One thread at a time may use it. As a context manager it connects, and closes at the end.

    Args:
        mechanism: PLAIN shows the token to whoever reads the network, unless `tls` is given.
        dialect: the type of the frames: "text" takes str and bytes, "msgpack" what msgpack holds.
        ack: with "none" the server says nothing, and frames that a broken connection held are
            sent again only as far as `queue` remembers them.
        timeout: seconds that the server may be silent when it owes an answer; then the connection
            counts as broken.
        tls: the context to use; its name check is against `host`.
        retry: seconds for which a broken connection is tried again before its error is raised.
        queue: frames to remember until they are acknowledged; at the limit `send` waits.

    Raises:
        ValueError: `device` is no device name.

    Every method that talks to the server raises `OSError` when it can't be reached, `ServerError`
    when it refuses, and another `ClientError` when it does not follow the protocol.
    """

    def __init__(
        self,
        host: str,
        port: int,
        device: str,
        token: str,
        *,
        mechanism: Mechanism = "PLAIN",
        dialect: Encoding = "text",
        ack: Ack = "durable",
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        retry: float = 60.0,
        queue: int = 10_000,
    ) -> None:
        if not _DEVICE_NAME.fullmatch(device):
            raise ValueError(f"{device!r} is no device name: 1 to 128 of A-Z a-z 0-9 . _ : -")
        self._address, self._tls, self._timeout = (host, port), tls, timeout
        self._plain = b"\0%b\0%b" % (device.encode(), token.encode())  # RFC 4616
        self._scram = Scram(device, token) if mechanism == "SCRAM-SHA-256" else None
        self._make_dialect = Text if dialect == "text" else Packed
        self._ack, self._retry, self._queue = ack, retry, queue
        self._dialect: Text | Packed = self._make_dialect()
        self._socket: socket.socket | None = None
        self._pending: deque[bytes] = deque()
        self._unsent = bytearray()
        self._replies: deque[Reply] = deque()
        self._outage: _Outage | None = None
        self._max_frame = _CHUNK
        self._next = 1
        self._acknowledged = 0

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._disconnect()

    @property
    def next(self) -> int:
        """The number that the next frame gets, as far as the client knows."""
        return self._next

    @property
    def acknowledged(self) -> int:
        """The number up to which the server has all frames of this device on disk."""
        return self._acknowledged

    @property
    def unacknowledged(self) -> int:
        """How many frames wait for their acknowledgement."""
        return len(self._pending)

    def connect(self) -> None:
        """Connect once, authenticate, and queue again what the server does not have."""
        self._disconnect()
        try:
            self._socket = self._open()
            self._resume(self._handshake(self._socket))
            self._socket.setblocking(False)
        except BaseException:
            self._disconnect()
            raise

    def reconnect(self) -> None:
        """Connect, and try again with growing delays while that may help, for `retry` seconds."""
        self._disconnect()
        self._reconnect(math.inf)

    def send(self, frame: Any) -> None:
        """Send one frame. After an error it was not taken; after success it is stored once.

        Raises:
            TypeError, ValueError: it is no frame of this dialect, or longer than the server takes.
        """
        self.send_many((frame,))

    def send_many(self, frames: Iterable[Any]) -> None:
        """Send frames, as `send` does. After an error `next` tells how many were taken."""
        self._run(self._has_heard)
        for frame in frames:
            data, size = self._dialect.frame(frame)
            if size > self._max_frame:
                raise ValueError(f"the frame has {size} bytes, the server takes {self._max_frame}")
            if not self._has_room():
                self._run(self._has_room)
            if self._ack == "none" and len(self._pending) == self._queue:
                self._pending.popleft()
            self._pending.append(data)
            self._unsent += data
            self._next += 1
        # A failure is found by the next call, which reads first what the server had to say.
        with contextlib.suppress(OSError):
            self._transmit()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the server has acknowledged every frame; with `ack="none"`, has been sent it.

        Raises:
            TimeoutError: that took more than `timeout` seconds.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._run(self._is_settled, deadline)

    def close(self) -> None:
        """Wait until every frame is acknowledged, then close the connection."""
        if self._socket is None and not self._pending:
            return
        try:
            self.wait()
            self._finish()
        finally:
            self._disconnect()

    def _reconnect(self, deadline: float) -> None:
        outage = self._current_outage()
        while True:
            remaining = min(deadline, outage.give_up) - time.monotonic()
            time.sleep(max(0.0, min(next(outage.delays), remaining)))
            try:
                return self.connect()
            except (OSError, ClientError) as error:
                if not self._may_retry(error, deadline):
                    raise

    def _current_outage(self) -> _Outage:
        if self._outage is None:
            self._outage = _Outage(time.monotonic() + self._retry, backoff())
        return self._outage

    def _may_retry(self, error: OSError | ClientError, deadline: float) -> bool:
        give_up = min(deadline, self._current_outage().give_up)
        if _is_temporary(error) and time.monotonic() < give_up:
            return True
        self._outage = None
        return False

    def _open(self) -> socket.socket:
        plain = socket.create_connection(self._address, self._timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return plain
        return self._tls.wrap_socket(plain, server_hostname=self._address[0])

    def _handshake(self, connection: socket.socket) -> Ok:
        self._dialect = self._make_dialect()
        self._replies.clear()
        if self._scram is None:
            connection.sendall(self._dialect.auth("PLAIN", self._plain, self._ack))
            return self._expect(connection, Ok)
        connection.sendall(self._dialect.auth("SCRAM-SHA-256", self._scram.first(), self._ack))
        challenge = self._expect(connection, Challenge)
        connection.sendall(self._dialect.response(self._scram.final(challenge.data)))
        ok = self._expect(connection, Ok)
        self._scram.verify(ok.data)
        return ok

    def _expect(self, connection: socket.socket, kind: type[_Expected]) -> _Expected:
        while not self._replies:
            self._replies.extend(self._dialect.feed(_read(connection)))
        reply = self._replies.popleft()
        if isinstance(reply, ServerError):
            raise reply
        if not isinstance(reply, kind):
            raise ProtocolError(f"the server answered the handshake with {reply}")
        return reply

    def _resume(self, ok: Ok) -> None:
        if self._pending and ok.following > self._next:
            raise OutOfStepError(
                f"the server's next frame is {ok.following}, this client's is {self._next}: "
                "another program uses this device name"
            )
        self._drop_durable(ok.following - 1)
        if not self._pending or self._ack == "none":
            self._outage = None
        self._acknowledged = ok.following - 1
        self._next = ok.following + len(self._pending)
        self._max_frame = ok.max_frame
        self._unsent = bytearray().join(self._pending)

    def _drop_durable(self, seq: int) -> None:
        first = self._next - len(self._pending)
        for _ in range(first, min(seq + 1, self._next)):
            self._pending.popleft()
            self._outage = None

    def _run(self, is_done: Callable[[], bool], deadline: float = math.inf) -> None:
        """Exchange bytes until `is_done`, on a new connection when the one at hand breaks."""
        while True:
            if self._socket is None:
                self._reconnect(deadline)
            limit = deadline - time.monotonic()
            try:
                if is_done():
                    return
                self._exchange(max(0.0, limit))
            except (OSError, ClientError) as error:
                self._disconnect()
                if not self._may_retry(error, deadline):
                    raise
            if limit < 0:
                raise TimeoutError(f"{len(self._pending)} frames wait for their acknowledgement")

    def _has_heard(self) -> bool:
        while self._receive():
            pass
        return True

    def _has_room(self) -> bool:
        if self._ack == "none":
            return len(self._unsent) < _CHUNK
        return len(self._unsent) < _CHUNK and len(self._pending) < self._queue

    def _is_settled(self) -> bool:
        return not (self._unsent if self._ack == "none" else self._pending)

    def _exchange(self, limit: float) -> None:
        # Reading goes on while sending: a server that is held up by its disk takes no bytes, and
        # one whose ACKs nobody reads is held up by us.
        if self._receive() or self._transmit():
            return
        assert self._socket is not None
        with selectors.DefaultSelector() as selector:
            write = selectors.EVENT_WRITE if self._unsent else 0
            selector.register(self._socket, selectors.EVENT_READ | write)
            if not selector.select(min(limit, self._timeout)) and limit >= self._timeout:
                raise TimeoutError(f"the server was silent for {self._timeout:g} s")

    def _receive(self) -> bool:
        """Take what has arrived, without waiting; return whether there was anything."""
        assert self._socket is not None
        try:
            data = _read(self._socket)
        except _WOULD_BLOCK:
            return False
        self._hear(data)
        return True

    def _transmit(self) -> bool:
        """Hand over what the socket takes, without waiting; return whether it took anything."""
        if not self._unsent:
            return False
        assert self._socket is not None
        try:
            with memoryview(self._unsent) as unsent:
                sent = self._socket.send(unsent)
        except _WOULD_BLOCK:
            return False
        del self._unsent[:sent]
        return True

    def _hear(self, data: bytes) -> None:
        self._replies.extend(self._dialect.feed(data))
        while self._replies:
            reply = self._replies.popleft()
            if isinstance(reply, ServerError):
                raise reply
            if not isinstance(reply, Acked) or reply.seq >= self._next:
                raise ProtocolError(f"the server said {reply} before frame {self._next}")
            self._drop_durable(reply.seq)
            self._acknowledged = max(self._acknowledged, reply.seq)

    def _finish(self) -> None:
        """Close the sending side and read to the end: the server ends when all is on disk."""
        assert self._socket is not None
        self._socket.settimeout(self._timeout)
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.unwrap()
                return
            self._socket.shutdown(socket.SHUT_WR)
            while data := self._socket.recv(_CHUNK):
                self._hear(data)
        except (OSError, ClientError):
            if self._ack == "none":  # with acknowledgements all is known to be on disk already
                raise

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _read(connection: socket.socket) -> bytes:
    data = connection.recv(_CHUNK)
    if not data:
        raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
    return data


def _is_temporary(error: OSError | ClientError) -> bool:
    if isinstance(error, ServerError):
        return error.code in _TEMPORARY
    return isinstance(error, OSError) and not isinstance(error, ssl.SSLCertVerificationError)
