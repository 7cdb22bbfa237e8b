"""What a device runs to push frames to an ingest listener. One file, the standard library only.

It may be copied to a device as it is: Python 3.8 or newer, any POSIX system. The msgpack dialect
also needs the `msgpack` package.

    with Client("logs.example.com", 7651, "sensor-1", token, tls=True, spool="/var/spool/s") as c:
        c.send("temp=20.5")  # it is on this device's disk, whether or not the listener is there
        c.wait()  # it is on the listener's disk

    async with AsyncClient("logs.example.com", 7651, "sensor-1", token, tls=True) as c:
        await c.send("temp=20.5")

Each frame that `send` takes is stored once and in order, also when the connection breaks or the
listener restarts; with a spool also when this program is killed or the device loses its power.
No other program may use the device's name meanwhile.

The parts, from the wire to the program:

- `Text`, `Packed`, `Scram`: what is said, as bytes. They know no sockets.
- `MemoryQueue`, `Spool`: the frames that are not acknowledged yet.
- `Options`: what a client can be told, and the checks of it.
- `Core`: the device's side of the protocol. Bytes go in, bytes and events come out; it knows no
  sockets, threads or clocks.
- `Client`, `AsyncClient`: two shells that carry bytes between the core and a socket, one with a
  thread and one with asyncio. What both do is in `_Shell`, as generators.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import errno
import functools
import hashlib
import hmac
import logging
import math
import os
import random
import re
import secrets
import selectors
import socket
import ssl
import stringprep
import struct
import threading
import time
import unicodedata
import zlib
from base64 import b64decode, b64encode
from collections import deque
from enum import Enum
from pathlib import Path
from typing import (
    Any,
    Callable,
    ClassVar,
    Generator,
    Iterable,
    Iterator,
    NamedTuple,
    TypeVar,
    Union,
    cast,
)

_DEVICE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# A name, an IPv4 or an IPv6 address: `host:7650`, `[::1]` and `https://host` would never be found.
_HOST = re.compile(r"[^\s:/\[\]\0]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[^\s\0]+)?")
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
_CHUNK = 65536  # bytes to read at once, and to gather before a send waits for the socket
_MAX_FRAME = 65536  # bytes; the listener's default, until its OK says what holds
_MAX_TOKEN = 1024  # bytes
_MAX_REPLY = 8192  # bytes; the longest reply is an ERR line or a SCRAM challenge, under 1 kB
_ITERATIONS = range(4096, 10_000_001)  # RFC 7677 asks for 4,096 and more; PBKDF2 of 10 M takes 5 s
_CHALLENGE = re.compile(r"r=([!-+\--~]+),s=([^,]+),i=([0-9]{1,8})(?:,|$)")
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_DISK_PAUSE = 1.0  # seconds until a full disk of this device is tried again

# PROTOCOL.md, "Errors". Every other code, an unknown one too, means: try again later.
_PERMANENT = frozenset(
    {"auth-failed", "auth-required", "mechanism-unsupported", "plaintext-refused", "replaced",
     "revoked"}
)  # fmt: skip
_STRAGGLER = 60.0  # seconds in which the login of a connection that broke may still arrive
_BAD_FRAME = frozenset({"bad-frame", "frame-too-long"})
_AT_ONCE = frozenset({"idle-timeout"}) | _BAD_FRAME
# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a device without a clock starts
# in 1970, and an expired certificate is renewed.
_CLOCK_FAULTS = frozenset({9, 10})

_log = logging.getLogger("ingest.client")


# Errors


class ClientError(Exception):
    """The conversation with the server can't go on."""


class AuthenticationError(ClientError):
    """One side did not prove who it is: the token is wrong, or the server does not know it."""


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


class RefusedError(ServerError, AuthenticationError):
    """The server said `auth-failed`: unknown device, wrong token or device disabled."""


class ProtocolError(ClientError):
    """The server said something that is not `ingest/1`."""


class OutOfStepError(ClientError):
    """The server's `next` does not fit this client's numbers: see the event `OutOfStep`."""


class SpoolError(ClientError):
    """The spool is in use by another process, or belongs to another device or dialect."""


# Replies of the server


class Ok(NamedTuple):
    """The handshake succeeded.

    Attributes:
        following: the number that the next frame gets.
        max_frame: the most bytes that a frame may have.
        data: the last message of the mechanism, if it has one.
        time: the server's clock, UTC, as RFC 3339 writes it; empty if the server does not say.
    """

    following: int
    max_frame: int
    data: bytes
    time: str = ""


class Challenge(NamedTuple):
    """A challenge of the mechanism, decoded."""

    data: bytes


class Acked(NamedTuple):
    """All frames up to `seq` are on disk."""

    seq: int


# An ERR is a reply, too: the exception itself stands for it, to be raised where it is read.
Reply = Union[Ok, Challenge, Acked, ServerError]


# Events: what a device's author may want to know, and what is logged if they do not say so


class Connected(NamedTuple):
    """The server let the device in; its next frame gets the number `following`."""

    following: int

    def __str__(self) -> str:
        return f"connected; the next frame gets the number {self.following}"


class Disconnected(NamedTuple):
    """The connection is broken, or could not be opened, and is tried again; once an outage."""

    error: BaseException

    def __str__(self) -> str:
        return f"no connection, but trying: {_describe(self.error)}"


class Stopped(NamedTuple):
    """The client tries no more: the next method that is called raises `error`."""

    error: BaseException

    def __str__(self) -> str:
        return f"stopped: {_describe(self.error)}"


class OutOfStep(NamedTuple):
    """The server's `next` is none of the numbers that this client's frames can have.

    Below `expected`: the server has another log, or lost what it had acknowledged. Above: another
    program has used the device's name. Either way the numbers do not tell which of the
    unacknowledged frames are stored; `out_of_step` says what becomes of them.

    Attributes:
        following: the server's `next`.
        expected: the lowest number that it can have: the one behind the last acknowledged.
        limit: the highest: the one behind the last frame that was sent.
    """

    following: int
    expected: int
    limit: int

    def __str__(self) -> str:
        return (
            f"the server's next frame is {self.following}, this client expected"
            f" {self.expected} to {self.limit}: another log, or another program with this name"
        )


class Dropped(NamedTuple):
    """The queue is full, and frames are dropped; once until there is room again.

    Attributes:
        total: how many have been dropped so far, with those of earlier runs on the same spool.
    """

    total: int

    def __str__(self) -> str:
        return f"the queue is full and frames are dropped, {self.total} so far"


class Rejected(NamedTuple):
    """A frame was set aside that the server does not take; the rest is sent.

    Attributes:
        frame: the bytes as they go over the wire.
        reason: why.
    """

    frame: bytes
    reason: str

    def __str__(self) -> str:
        return f"a frame of {len(self.frame)} bytes was set aside: {self.reason}"


class Damaged(NamedTuple):
    """So many frames of the spool can't be read any more: the disk has changed their bytes."""

    frames: int

    def __str__(self) -> str:
        return f"{self.frames} frames of the spool can't be read any more and are lost"


Event = Union[Connected, Disconnected, Stopped, OutOfStep, Dropped, Rejected, Damaged]


def log_event(event: Event) -> None:
    """Log an event, as a client does that was given no `on_event`."""
    level = logging.INFO if isinstance(event, (Connected, Disconnected)) else logging.WARNING
    _log.log(level, "%s", event)


def _describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


# Options


@dataclasses.dataclass(frozen=True)
class Options:
    """What `Client` and `AsyncClient` are told: the first four by place, the rest by name.

    Attributes:
        host: the server's name or IP address.
        port: its TCP port.
        device: the device's name.
        token: the secret that proves the name.
        mechanism: "PLAIN" shows the token to whoever reads the network, unless TLS is used;
            "SCRAM-SHA-256" does not.
        dialect: the type of the frames: "text" takes str and bytes, "msgpack" what msgpack holds.
        ack: with "none" the server acknowledges nothing, and frames that a broken connection held
            are sent again only as far as `queue` remembers them.
        tls: True for TLS with the system's authorities, or a context; the certificate must be one
            for `host`.
        ca: a file of PEM certificates: use TLS, and trust these authorities and no others.
        spool: a folder on this device's disk, which is made, for the frames that wait. `send` then
            returns when the disk has the frame. One client at a time may use it.
        spool_size: bytes that the spool's frames may take.
        queue: frames that may wait in memory, without a spool.
        full: what `send` does with a frame when there is no room for it, or this device's disk is
            full. "wait": it returns when there is. "drop-oldest": it makes room; in a spool an
            eighth of it at once, but not more than 1 MiB. "drop-newest": it drops the frame. What
            is dropped is counted in `dropped`.
        out_of_step: what happens to unacknowledged frames when the server's numbers do not fit
            them (see the event `OutOfStep`): "resend" would rather store a frame twice than not at
            all; "stop" leaves them, and raises `OutOfStepError`.
        retry: seconds without progress after which a server is given up; None for never.
        pause: the shortest and the longest pause before another attempt to connect, in seconds; it
            doubles with each attempt, and is random between half and all of that.
        timeout: seconds to open a connection in, and again for the handshake.
        peer_timeout: seconds after which a server whose host does not answer at all counts as
            gone. A server that is there, but acknowledges nothing, may take as long as it likes:
            its disk may be full.
        on_event: called with each event (`Connected`, `Dropped` and so on), in whichever thread it
            happens; it must not call the client. By default they are logged.

    Raises:
        ValueError: an option is none of those above.
        TypeError: it is of another type.
    """

    host: str
    port: int
    device: str
    token: str = dataclasses.field(repr=False)
    mechanism: str = "PLAIN"
    dialect: str = "text"
    ack: str = "durable"
    tls: bool | ssl.SSLContext | None = None
    ca: str | os.PathLike[str] | None = None
    spool: str | os.PathLike[str] | None = None
    spool_size: int = 64 << 20
    queue: int = 10_000
    full: str = "wait"
    out_of_step: str = "resend"
    retry: float | None = None
    pause: tuple[float, float] = (1.0, 300.0)
    timeout: float = 30.0
    peer_timeout: float = 120.0
    on_event: Callable[[Event], None] = log_event

    def __post_init__(self) -> None:
        for option, words in _WORDS.items():
            if getattr(self, option) not in words:
                allowed = ", ".join(map(repr, words))
                raise ValueError(f"{option}={getattr(self, option)!r} is none of {allowed}")
        for option, kinds, least, most in _NUMBERS:
            _check_number(option, getattr(self, option), kinds, least, most)
        if self.retry is not None:
            _check_number("retry", self.retry, (int, float), 0)
        self._check_identity()
        self._check_paths()
        pause: Any = self.pause
        if not isinstance(pause, tuple) or len(pause) != 2:
            raise ValueError(f"pause={pause!r} is not two numbers (shortest, longest)")
        for seconds in pause:
            _check_number("pause", seconds, (int, float), 0.001, _MOST_SECONDS)
        if pause[0] > pause[1]:
            raise ValueError(f"pause={pause!r} is not (shortest, longest)")
        if not callable(self.on_event):
            raise TypeError("on_event must be a function of one argument")
        if self.spool is not None and self.ack == "none":
            raise ValueError('a spool needs acknowledgements: spool=… and ack="none" do not go')

    def _check_identity(self) -> None:
        for option in ("host", "device", "token"):
            value = getattr(self, option)
            if not isinstance(value, str):
                raise TypeError(f"{option} must be str, not {type(value).__name__}")
            if not value:
                raise ValueError(f"{option} is empty")
        if not _DEVICE_NAME.fullmatch(self.device):
            raise ValueError(f"{self.device!r} is no device name: 1 to 128 of A-Z a-z 0-9 . _ : -")
        if _CONTROL.search(self.token):
            raise ValueError("the token has a control character, such as the end of a line")
        if len(self.token.encode()) > _MAX_TOKEN:
            raise ValueError(f"the token has more than {_MAX_TOKEN:,} bytes")
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"host={self.host!r} is not a name or an address alone")
        try:
            self.host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"host={self.host!r} is no name of a host: {error}") from None

    def _check_paths(self) -> None:
        for option in ("ca", "spool"):
            path = getattr(self, option)
            if path is None:
                continue
            if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
                raise TypeError(f"{option} must be str or a path, not {type(path).__name__}")
            if not os.fspath(path):
                raise ValueError(f"{option} is empty: leave it out, or name a place")

    def context(self) -> ssl.SSLContext | None:
        """Return what a connection is wrapped with; None for one in clear.

        Raises:
            OSError: the file `ca` can't be read, or holds no certificates.
        """
        tls = self.tls
        if tls is not None and not isinstance(tls, (bool, ssl.SSLContext)):
            raise TypeError(f"tls must be True, False or an SSLContext, not {type(tls).__name__}")
        if self.ca is not None:
            if tls is False or isinstance(tls, ssl.SSLContext):
                raise ValueError("ca makes a context of its own: give it with tls=True, or alone")
            return _trusting(Path(self.ca).expanduser())
        if isinstance(tls, ssl.SSLContext):
            return tls
        return ssl.create_default_context() if tls else None

    def open_queue(self) -> MemoryQueue:
        """Open the spool, or make a queue in memory.

        Raises:
            SpoolError, OSError: see `Spool`.
        """
        if self.spool is None:
            return MemoryQueue(self.queue)
        return Spool(Path(self.spool), self.spool_size, self.dialect, self.device)


_WORDS = {
    "mechanism": ("PLAIN", "SCRAM-SHA-256"),
    "dialect": ("text", "msgpack"),
    "ack": ("durable", "none"),
    "full": ("wait", "drop-oldest", "drop-newest"),
    "out_of_step": ("resend", "stop"),
}
_MOST_SECONDS = 1e6  # 11 days: sockets of Python take no more than 24
_NUMBERS: tuple[tuple[str, tuple[type, ...], float, float], ...] = (  # its types, the least, most
    ("port", (int,), 1, 65535),
    ("queue", (int,), 1, math.inf),
    ("spool_size", (int,), 1024, math.inf),
    ("timeout", (int, float), 0.001, _MOST_SECONDS),
    ("peer_timeout", (int, float), 8, math.inf),
)


def _check_number(
    option: str, value: Any, kinds: tuple[type, ...], least: float, most: float = math.inf
) -> None:
    if isinstance(value, bool) or not any(isinstance(value, kind) for kind in kinds):
        raise TypeError(f"{option}={value!r} is not a number of the right kind")
    if not value >= least:
        raise ValueError(f"{option}={value!r} is less than {least:g}")
    if value > most:
        raise ValueError(f"{option}={value!r} is above {most:.10g}")


def _trusting(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise OSError(errno.EINVAL, f"ca holds no PEM certificates: {error}", str(ca)) from None
    except OSError as error:  # Python does not say which file
        raise OSError(error.errno, f"ca: {error.strerror}", str(ca)) from None


# The two dialects


class Text:
    """The text dialect as a device speaks it. An object serves one connection."""

    keep_alive = b"\n"
    overhead = 1
    """Bytes of a frame on the wire that do not count as the frame."""

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
        if not isinstance(frame, (str, bytes)):
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

    keep_alive = b"\xc0"
    overhead = 0

    def __init__(self) -> None:
        try:
            import msgpack  # noqa: PLC0415 - only the devices that speak this dialect need it
        except ImportError as error:
            text = "the msgpack dialect needs a package: pip install msgpack; text needs none"
            raise ImportError(text) from error
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


_DIALECT_CLASSES: dict[str, type[Text | Packed]] = {"text": Text, "msgpack": Packed}


def _parse_line(line: bytes) -> Reply:
    word, _, rest = line.decode(errors="replace").partition(" ")
    try:
        if word == "ACK":
            return Acked(int(rest))
        if word == "ERR":
            code, _, text = rest.partition(" ")
            return _server_error(code, text)
        if word == "+":
            return Challenge(b64decode(rest, validate=True))
        if word == "OK":
            pairs = dict(pair.split("=", 1) for pair in rest.split())
            data = b64decode(pairs.get("data", ""), validate=True)
            return Ok(int(pairs["next"]), int(pairs["max_frame"]), data, pairs.get("time", ""))
    except (KeyError, ValueError):
        pass
    raise ProtocolError(f"the server's line is no reply: {line[:80]!r}")


def _parse_object(message: Any) -> Reply:
    content = message if isinstance(message, dict) else {}
    if isinstance(content.get("ack"), int):
        return Acked(content["ack"])
    if isinstance(content.get("err"), str):
        return _server_error(content["err"], str(content.get("text", "")))
    if isinstance(content.get("challenge"), bytes):
        return Challenge(content["challenge"])
    ok = content.get("ok")
    if isinstance(ok, dict):
        following, max_frame = ok.get("next"), ok.get("max_frame")
        data, clock = ok.get("data", b""), ok.get("time", "")
        if (
            isinstance(following, int)
            and isinstance(max_frame, int)
            and isinstance(data, bytes)
            and isinstance(clock, str)
        ):
            return Ok(following, max_frame, data, clock)
    raise ProtocolError(f"the server's object is no reply: {str(message)[:80]}")


def _server_error(code: str, text: str) -> ServerError:
    return RefusedError(code, text) if code == "auth-failed" else ServerError(code, text)


def _parse_time(text: str) -> datetime.datetime | None:
    try:
        naive = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError:
        return None
    return naive.replace(tzinfo=datetime.timezone.utc)


# Proof of identity


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
        proof = bytes(a ^ b for a, b in zip(client_key, client_signature))
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
    first: float = 1.0,
    most: float = 300.0,
    uniform: Callable[[float, float], float] = random.uniform,
) -> Iterator[float]:
    """Give the seconds to wait before each attempt, as PROTOCOL.md has it under "Errors".

    They are random between half of `d` and `d`, with `d` doubled from `first` to `most`: a fleet
    that lost its server at one moment does not return at one moment.
    """
    ceiling = first
    while True:
        yield uniform(ceiling / 2, ceiling)
        ceiling = min(most, ceiling * 2)


# Queues: the frames that are not acknowledged yet, oldest first


class MemoryQueue:
    """Frames in memory, as they go over the wire. They are gone with the process.

    Attributes:
        number: the number that the oldest frame has or gets; None as long as nothing is known.
        acknowledged: the number up to which the server has confirmed all.
        dropped: how many frames were dropped because it was full.
        damaged: how many frames at the place that `read` has come to can't be read.
    """

    def __init__(self, limit: int) -> None:
        """Make an empty one that holds up to `limit` frames."""
        self.number: int | None = None
        self.acknowledged = self.dropped = self.damaged = 0
        self._limit = limit
        self._frames: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes) -> bool:
        """Append a frame; return False if there is no room."""
        if len(self._frames) >= self._limit:
            return False
        self._frames.append(frame)
        return True

    def read(self, skip: int, most: int) -> list[bytes]:
        """Return the frames behind the first `skip` that may be sent: about `most` bytes.

        None may be sent before `pending_write` has brought it, and `number`, to the disk.
        """
        size, end = 0, skip
        while end < len(self._frames) and size < most:
            size += len(self._frames[end])
            end += 1
        return self._frames[skip:end]

    def release(self, count: int) -> None:
        """Forget the oldest frames, and count `number` on: the server has them."""
        del self._frames[:count]
        if self.number is not None:
            self.number += count

    def drop_oldest(self) -> int:
        """Forget as few of the oldest frames as can go at once; return how many.

        `number` stays: the next frame gets it, unless whoever calls this knows better.
        """
        count = min(1, len(self._frames))
        del self._frames[:count]
        return count

    def skip(self, count: int) -> None:
        """Forget the oldest frames; `number` stays: the next frame gets it."""
        del self._frames[:count]

    def skip_damaged(self) -> None:
        """Forget the oldest `damaged` frames; `number` stays."""

    def reclaim(self) -> None:
        """Give back the room on the disk that acknowledged frames still take."""

    @property
    def is_write_due(self) -> bool:
        """Whether `pending_write` has something to write."""
        return False

    @property
    def wants_write(self) -> bool:
        """Whether so much is to be written that no more should be added before."""
        return False

    def pending_write(self) -> Write | None:
        """Return what must be written to the disk next, if anything; then `run` it.

        Raises:
            OSError: its file can't be opened.
        """
        return None

    def written(self, write: Write) -> None:
        """Note that a write is done."""

    def discard_unwritten(self) -> int:
        """Forget the newest frames, those that are not on the disk; return how many."""
        return 0

    def close(self) -> None:
        """Release what it holds of the system."""


class _Segment:
    """One file of a spool.

    Attributes:
        first: the id of its first frame.
        buffer: bytes that are not on the disk yet.
        written: how many bytes are.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.path = folder / f"{first:020d}.frames"
        self.first = first
        self.buffer = bytearray()
        self.written = 0

    @property
    def size(self) -> int:
        return self.written + len(self.buffer)


class _State(NamedTuple):
    """What a spool's `state` file says, in either of two slots; the later generation counts.

    Attributes:
        generation: 1, 2, 3 and so on.
        frame: the id of some frame.
        number: the number that this frame has or gets; 0 if none is known.
        acknowledged: as in `MemoryQueue`.
        dropped: as in `MemoryQueue`.
    """

    generation: int
    frame: int
    number: int
    acknowledged: int
    dropped: int


class Write:
    """Bytes on their way to the disk. `run` may be called in another thread, with no lock.

    Attributes:
        state: what is written if it is the state.
        segment: the file if it is a segment.
        end: the id behind the last frame of these bytes.
        offset: where in the file they go.
        data: the bytes.
        is_done: whether the disk has them.
    """

    def __init__(
        self, path: Path, offset: int, data: bytes, *,
        state: _State | None = None, segment: _Segment | None = None, end: int = 0,
    ) -> None:  # fmt: skip
        self.state, self.segment, self.end = state, segment, end
        self.offset, self.data, self._path = offset, data, path
        self.is_done = False
        # Opened here, under the queue's lock: a file that is deleted meanwhile must not come back.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def run(self) -> None:
        """Write, and return when the disk has confirmed it.

        Raises:
            OSError: it is not on the disk; another `Write` of the same bytes may follow.
        """
        try:
            if self.segment is not None:  # a half-written record takes room that others need
                os.ftruncate(self._fd, self.offset)
            self._write()
        except OSError:
            if self.segment is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self.offset)
            raise
        finally:
            os.close(self._fd)
        if self.segment is not None and self.offset == 0:
            _sync_folder(self._path.parent)
        self.is_done = True

    def _write(self) -> None:
        view, offset = memoryview(self.data), self.offset
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count
        getattr(os, "fdatasync", os.fsync)(self._fd)  # macOS has no fdatasync


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Spool(MemoryQueue):
    """Frames on the disk, with their place in the numbers: they outlive the process and its power.

    The folder holds:

    - `state`, which a process locks while it uses the spool: two slots of 4,096 bytes, written in
      turn, so that a torn write leaves the other one valid, and in place, so that a full disk does
      not prevent it. A slot is a CRC-32 and the fields of `_State`.
    - `<id>.frames`: segments. Each begins with a line of text that names the format, the dialect
      and the device; then come records: CRC-32 of the rest, length, id, and the frame as it goes
      over the wire. Ids count up by one. Segments are only appended to, and deleted as a whole:
      that needs no room.

    What `state` says of one id holds for all: ids and numbers run in parallel until a frame is
    dropped that was not sent, or the server's `next` is another one than expected. Then, and only
    then, `state` is written anew, before the next frame is sent:

        state: frame 7 has number 43        the files hold 7, 8, 9: they are 43, 44, 45
        power fails; the server says next=45
        7 and 8 are stored, 9 is sent as 45

    Nothing is written when an ACK arrives: after a power cut the server's `next` tells the same.
    """

    _RECORD = struct.Struct(">IIQ")
    _STATE = struct.Struct(">I5Q")
    _SLOT = 4096

    def __init__(self, folder: Path, limit: int, dialect: str, device: str) -> None:
        """Open a spool, or make an empty one.

        Args:
            folder: where it is.
            limit: bytes that its segments may have.
            dialect: of its frames.
            device: whose frames they are.

        Raises:
            SpoolError: another process uses it, or it holds frames of another device or dialect.
            OSError: the disk does not do what is asked.
        """
        super().__init__(limit)
        self._folder = folder.expanduser().resolve()
        self._state_path = self._folder / "state"
        self._header = f"ingest-spool/1 {dialect} {device}\n".encode()
        self._segment_size = min(1 << 20, limit // 8)
        self._segments: deque[_Segment] = deque()
        self._total = 0  # bytes of all segments
        self._reader: tuple[_Segment, int] | None = None  # the open segment, its descriptor
        self._place = (0, 0)  # the id and the offset of the next record there
        self._is_state_under_way = False
        # The ids: the oldest frame's, the one behind the last on the disk, the one behind the last.
        self._first = self._durable = self._end = 1
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._state_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take_lock()
            self._state = self._load_state()
            self._load_segments()
        except BaseException:
            os.close(self._lock)
            raise

    def __len__(self) -> int:
        return self._end - self._first

    # Opening

    def _take_lock(self) -> None:
        import fcntl  # noqa: PLC0415 - a client without a spool does not need it

        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(f"{self._folder}: another process or client uses this spool") from None

    def _load_state(self) -> _State:
        found = _State(0, 1, 0, 0, 0)
        for slot in range(2):
            data = os.pread(self._lock, self._STATE.size, slot * self._SLOT)
            if len(data) == self._STATE.size:
                checksum, *fields = self._STATE.unpack(data)
                if checksum == zlib.crc32(data[4:]):
                    found = max(found, _State(*fields))
        if not found.generation:  # new: take the room that a full disk would refuse later
            Write(self._state_path, 0, bytes(2 * self._SLOT)).run()
            _sync_folder(self._folder)
            _sync_folder(self._folder.parent)
        self.acknowledged, self.dropped = found.acknowledged, found.dropped
        return found

    def _load_segments(self) -> None:
        paths = sorted(self._folder.glob("[0-9]*.frames"))
        segments = [_Segment(self._folder, int(path.stem)) for path in paths]
        end = self._state.frame
        for index, segment in enumerate(segments):
            segment.written = segment.path.stat().st_size
            is_last = index + 1 == len(segments)
            stop = self._mend_tail(segment) if is_last else segments[index + 1].first
            if stop <= max(segment.first, self._state.frame):
                segment.path.unlink()  # it holds nothing, or only what is known to be stored
                continue
            self._segments.append(segment)
            self._total += segment.written
            end = stop
        self._end = self._durable = end
        self._first = max(self._state.frame, self._segments[0].first if self._segments else end)
        if self._state.number:
            self.number = self._state.number + self._first - self._state.frame

    def _mend_tail(self, segment: _Segment) -> int:
        """Cut off what a crash has left half-written; return the id behind the last frame.

        Raises:
            SpoolError: the segment is of another device or dialect.
        """
        with segment.path.open("rb") as file:
            header, good, end = file.readline(512), 0, segment.first
            if header.startswith(b"ingest-spool/") and header.endswith(b"\n"):
                if header != self._header:
                    raise SpoolError(
                        f"{self._folder}: it is {header.decode().strip()!r},"
                        f" not {self._header.decode().strip()!r}"
                    )
                good = len(header)
                while self._parse(file.read(self._RECORD.size), end, file.read) is not None:
                    good, end = file.tell(), end + 1
        if good < segment.written:
            os.truncate(segment.path, good)
            segment.written = good
        return end

    def _parse(self, head: bytes, wanted: int, read: Callable[[int], bytes]) -> bytes | None:
        """Return the frame whose record begins with `head`, or None if it is not whole."""
        if len(head) < self._RECORD.size:
            return None
        checksum, length, found = self._RECORD.unpack(head)
        if found != wanted or length > self._limit:
            return None
        frame = read(length)
        if len(frame) != length or zlib.crc32(frame, zlib.crc32(head[4:])) != checksum:
            return None
        return frame

    # Appending

    def add(self, frame: bytes) -> bool:
        """Append a frame; return False if there is no room.

        Raises:
            ValueError: it is longer than the whole spool.
        """
        size = self._RECORD.size + len(frame)
        if len(self._header) + size > self._limit:
            raise ValueError(f"the frame has {len(frame)} bytes, the whole spool {self._limit}")
        if not self._has_room(size):
            self.reclaim()
            if not self._has_room(size):
                return False
        if self._needs_segment(size):
            self._segments.append(self._make_segment(self._end))
        tail = struct.pack(">IQ", len(frame), self._end)
        checksum = zlib.crc32(frame, zlib.crc32(tail)).to_bytes(4, "big")
        self._segments[-1].buffer += b"%b%b%b" % (checksum, tail, frame)
        self._total += size
        self._end += 1
        return True

    def _has_room(self, size: int) -> bool:
        header = len(self._header) if self._needs_segment(size) else 0
        return self._total + header + size <= self._limit

    def _needs_segment(self, size: int) -> bool:
        return not self._segments or self._segments[-1].size + size > self._segment_size

    def _make_segment(self, first: int) -> _Segment:
        segment = _Segment(self._folder, first)
        segment.buffer += self._header
        self._total += len(self._header)
        return segment

    @property
    def _is_state_due(self) -> bool:
        """Whether `state` must be written before the next frame may be sent."""
        if self.number is None:
            return False
        parallel = self._state.number + self._first - self._state.frame
        return not self._state.number or self.number != parallel

    @property
    def is_write_due(self) -> bool:
        """Whether `pending_write` has something to write."""
        return self._is_state_due or any(segment.buffer for segment in self._segments)

    @property
    def wants_write(self) -> bool:
        """Whether so much is to be written that no more should be added before."""
        # A write is done as a whole or not at all: a large one might never fit on a full disk.
        return bool(self._segments) and len(self._segments[-1].buffer) >= _CHUNK

    def pending_write(self) -> Write | None:
        """Return what must be written to the disk next, if anything; then `run` it.

        Raises:
            OSError: its file can't be opened.
        """
        self._is_state_under_way = self._is_state_due
        if self._is_state_under_way:
            return self._write_state(self.number)
        for segment in self._segments:
            if segment.buffer:
                data, end = bytes(segment.buffer), self._end_of(segment)
                return Write(segment.path, segment.written, data, segment=segment, end=end)
        return None

    def written(self, write: Write) -> None:
        """Note that a write is done."""
        segment = write.segment
        if write.state is not None:
            self._state = write.state
            self._is_state_under_way = False
        elif segment is None or segment not in self._segments:
            return
        # Else these frames were given back, or went to another segment, meanwhile.
        elif segment.written == write.offset and segment.buffer.startswith(write.data):
            del segment.buffer[: len(write.data)]
            segment.written += len(write.data)
            self._durable = write.end

    def _write_state(self, number: int | None) -> Write:
        """Write the state as it is now, into the slot that holds the older one."""
        state = _State(
            self._state.generation + 1, self._first, number or 0, self.acknowledged,
            self.dropped,
        )  # fmt: skip
        fields = self._STATE.pack(0, *state)[4:]
        data = zlib.crc32(fields).to_bytes(4, "big") + fields
        return Write(self._state_path, state.generation % 2 * self._SLOT, data, state=state)

    def discard_unwritten(self) -> int:
        """Forget the newest frames, those that are not on the disk; return how many."""
        count, self._end = self._end - self._durable, self._durable
        for segment in list(self._segments):
            self._total -= len(segment.buffer)
            segment.buffer.clear()
            if not segment.written:
                self._segments.remove(segment)
        return count

    # Reading

    def read(self, skip: int, most: int) -> list[bytes]:
        """Return the frames behind the first `skip` that may be sent: about `most` bytes.

        Sets `damaged` if the next one can't be read.
        """
        self.damaged = 0
        if self._is_state_due or self._is_state_under_way:
            return []
        frames: list[bytes] = []
        wanted, size = self._first + skip, 0
        while wanted < self._durable and size < most:
            frame = self._read_one(wanted)
            if frame is None:
                if not frames:
                    self.damaged = self._durable_end_of(self._segment_of(wanted)) - wanted
                break
            frames.append(frame)
            size += len(frame)
            wanted += 1
        return frames

    def _read_one(self, wanted: int) -> bytes | None:
        segment = self._segment_of(wanted)
        if self._reader is None or self._reader[0] is not segment or self._place[0] > wanted:
            self._open_reader(segment)
        while self._reader is not None:
            found, offset = self._place
            offset += self._RECORD.size
            head = os.pread(self._reader[1], self._RECORD.size, offset - self._RECORD.size)
            read = functools.partial(_pread, self._reader[1], offset)
            frame = self._parse(head, found, read)
            if frame is None:
                break
            self._place = found + 1, offset + len(frame)
            if found == wanted:
                return frame
        return None

    def _open_reader(self, segment: _Segment) -> None:
        self._close_reader()
        self._place = segment.first, len(self._header)
        with contextlib.suppress(FileNotFoundError):
            self._reader = segment, os.open(segment.path, os.O_RDONLY)

    def _close_reader(self) -> None:
        if self._reader is not None:
            os.close(self._reader[1])
            self._reader = None

    def _segment_of(self, frame: int) -> _Segment:
        return next(segment for segment in reversed(self._segments) if segment.first <= frame)

    def _end_of(self, segment: _Segment) -> int:
        """Return the id behind the segment's last frame."""
        following = (other.first for other in self._segments if other.first > segment.first)
        return next(following, self._end)

    def _durable_end_of(self, segment: _Segment) -> int:
        return min(self._end_of(segment), self._durable)

    # Removing

    def release(self, count: int) -> None:
        """Forget the oldest frames, and count `number` on: the server has them."""
        if self.number is not None:
            self.number += count
        self.skip(count)

    def skip(self, count: int) -> None:
        """Forget the oldest frames; `number` stays: the next frame gets it."""
        self._first += count
        while len(self._segments) > 1 and self._segments[1].first <= self._first:
            if not self._segments[1].written:
                return  # as long as this is so, the oldest is the only file there is
            self._remove_oldest()

    def drop_oldest(self) -> int:
        """Forget what is left of the oldest segment; return how many frames that were."""
        if not self._may_remove:
            return 0
        count = self._durable_end_of(self._segments[0]) - self._first
        self._first += count
        self._remove_oldest()
        return count

    def skip_damaged(self) -> None:
        """Forget the oldest `damaged` frames; `number` stays."""
        self._close_reader()
        self.skip(0)  # now it is the oldest segment
        count, self.damaged = self.damaged, 0
        self._first += count
        self._remove_oldest()

    def reclaim(self) -> None:
        """Give back the room on the disk that acknowledged frames still take."""
        if self._may_remove and self._durable_end_of(self._segments[0]) <= self._first:
            self._remove_oldest()

    @property
    def _may_remove(self) -> bool:
        """Whether there is a file to remove, and `state` may be written on the way."""
        has_file = bool(self._segments) and self._segments[0].written > 0
        return has_file and not self._is_state_under_way

    def _remove_oldest(self) -> None:
        """Remove a file; frames that are not in it yet, or on their way, go to a new one."""
        segment = self._segments.popleft()
        self._total -= segment.written
        if segment.buffer:
            heir = self._make_segment(self._durable)
            heir.buffer += segment.buffer
            self._segments.appendleft(heir)
        if not any(other.written for other in self._segments):
            # Without a file, only `state` tells the next id; and no frame is in doubt any more.
            with contextlib.suppress(OSError):
                write = self._write_state(None)
                write.run()
                self.written(write)
        if self._reader is not None and self._reader[0] is segment:
            self._close_reader()
        with contextlib.suppress(FileNotFoundError):
            segment.path.unlink()

    def close(self) -> None:
        """Write the last state if the disk takes it, and let other processes use the spool."""
        if self._lock >= 0:
            self._close_reader()
            with contextlib.suppress(OSError):
                self._write_state(self.number).run()
            os.close(self._lock)
            self._lock = -1


def _pread(fd: int, offset: int, count: int) -> bytes:
    return os.pread(fd, count, offset)


# The core: the device's side of the protocol, without sockets, threads or clocks


class Phase(Enum):
    """Where the conversation with the server stands."""

    AWAY = "there is no connection"
    PROVING = "the first message is sent, and a challenge is due"
    ENTERING = "the last message of the handshake is sent, and OK is due"
    OPEN = "frames may be sent"
    STOPPED = "the server will not have us, or it was away for too long: no further attempt"


class Core:
    """The device's side of `ingest/1` over any number of connections, one at a time.

    A shell opens a connection and calls `opened`; it passes what arrives to `receive` and sends
    what `data_to_send` returns; when the connection breaks, could not be opened, or `receive` has
    raised, it calls `lost`, and waits for as long as `pause` says. After each of these it takes
    the `events`.

    Attributes:
        queue: the frames that are not acknowledged.
        phase: where the conversation stands.
        failure: why it is STOPPED.
        last_error: why there was no connection, or none any more; or what the disk said.
        events: what happened, for the shell to take.
        losses: how often `lost` was called.
        taken: how many frames `offer` took.
        rejected: how many of them the server did not take.
        max_frame: the most bytes that a frame may have.
        time: what the server's last OK said of its clock.
        entered: when that was, on the shell's clock.
    """

    def __init__(self, queue: MemoryQueue, options: Options) -> None:
        """Begin without a connection; the queue may have frames of an earlier run."""
        self.queue = queue
        self.phase = Phase.AWAY
        self.failure: BaseException | None = None
        self.last_error: BaseException | None = None
        self.events: deque[Event] = deque()
        self.losses = self.taken = self.rejected = 0
        self.max_frame = _MAX_FRAME
        self.time, self.entered = "", 0.0
        self._options = options
        self._scram: Scram | None = None
        if options.mechanism == "SCRAM-SHA-256":
            self._scram = Scram(options.device, options.token)
        self._make_dialect = _DIALECT_CLASSES[options.dialect]
        self._dialect = self._encoder = self._make_dialect()
        self._outbox = bytearray()
        # How many of the queue's oldest frames the server may have. After a restart: any of them.
        self._sent = len(queue)
        self._outage: float | None = None  # since when there has been no progress
        self._delays = backoff(*options.pause)
        self._at_once = False
        self._broken: float | None = None  # when a connection broke that the server may still see
        self._objection = ""  # what the server said of a frame that it did not take
        self._is_dropping = False

    # Frames come in

    def encode(self, frame: Any) -> bytes:
        """Write a frame as it goes over the wire.

        Raises:
            TypeError, ValueError: it is no frame of this dialect, or longer than the server takes.
        """
        data, size = self._encoder.frame(frame)
        if size > self.max_frame:
            raise ValueError(f"the frame has {size} bytes, the server takes {self.max_frame}")
        return data

    def offer(self, frame: bytes) -> bool:
        """Take an encoded frame; return False if there is no room and the frame must wait.

        Raises:
            ValueError: the frame is longer than the whole spool.
        """
        while not self.queue.add(frame):
            if self._options.ack == "none" and self._sent:
                self._sent -= 1  # what was sent need not be remembered
                self.queue.release(1)
            elif self._options.full == "wait":
                return False
            elif self._options.full == "drop-newest" or not self._drop_oldest():
                self._count_dropped(1)
                break
        self.taken += 1
        return True

    def make_room(self) -> bool:
        """Do what was asked for when this device's disk is full; return False to wait."""
        self.queue.reclaim()
        if self._options.full == "wait":
            return False
        if self._options.full == "drop-newest" or not self._drop_oldest():
            self._count_dropped(self.queue.discard_unwritten())
        return True

    def give_back(self) -> None:
        """Forget the frames that can't be brought to this device's disk: they were not taken."""
        self.taken -= self.queue.discard_unwritten()

    def _drop_oldest(self) -> bool:
        count = self.queue.drop_oldest()
        in_doubt = min(count, self._sent)  # these have their numbers, the others had none yet
        self._sent -= in_doubt
        if self.queue.number is not None:
            self.queue.number += in_doubt
        self._count_dropped(count)
        return count > 0

    def _count_dropped(self, count: int) -> None:
        self.queue.dropped += count
        if count and not self._is_dropping:
            self._is_dropping = True
            self.events.append(Dropped(self.queue.dropped))

    # The connection

    def opened(self) -> None:
        """Begin the handshake: the connection is open."""
        self._dialect = self._make_dialect()
        self._outbox.clear()
        if self._scram is None:
            self.phase = Phase.ENTERING
            plain = f"\0{self._options.device}\0{self._options.token}".encode()  # RFC 4616
            self._outbox += self._dialect.auth("PLAIN", plain, self._options.ack)
        else:
            self.phase = Phase.PROVING
            self._outbox += self._dialect.auth(
                "SCRAM-SHA-256", self._scram.first(), self._options.ack
            )

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the server.

        Args:
            data: the bytes.
            now: the shell's clock, in seconds.

        Raises:
            ClientError: the connection has to end; call `lost` with it.
        """
        for start in range(0, len(data), _CHUNK):  # asyncio reads more than a parser takes at once
            for reply in self._dialect.feed(data[start : start + _CHUNK]):
                self._step(reply, now)

    def data_to_send(self) -> bytearray:
        """Return what the connection should send next; `took` says how much of it was sent."""
        if self.phase is Phase.OPEN:
            self._fill_outbox()
        return self._outbox

    @property
    def has_output(self) -> bool:
        """Whether the last `data_to_send` has returned more than was taken."""
        return bool(self._outbox)

    def took(self, count: int) -> None:
        """Note that the connection has taken so many bytes of `data_to_send`."""
        del self._outbox[:count]

    def ping(self) -> bool:
        """Send a keep-alive; return False if there is no connection."""
        if self.phase is not Phase.OPEN:
            return False
        self._outbox += self._dialect.keep_alive
        return True

    def lost(self, error: BaseException, now: float) -> None:
        """Note that the connection is broken or could not be opened, and decide what follows."""
        was_open = self.phase is Phase.OPEN
        code = error.code if isinstance(error, ServerError) else ""
        self.phase, self.last_error = Phase.AWAY, error
        self.losses += 1
        self._outbox.clear()
        is_new = self._outage is None
        self._at_once = is_new and code in _AT_ONCE
        if self._outage is None:
            self._outage = now
        if code in _BAD_FRAME and was_open:
            self._objection = str(error)
        is_given_up = self._options.retry is not None and now - self._outage >= self._options.retry
        is_hopeless = _is_permanent(error) or (code in _BAD_FRAME and not was_open)
        by_itself = self._was_replaced_by_itself(code, now)
        if is_given_up or (is_hopeless and not by_itself):
            self.stop(error)
        elif is_new:
            self.events.append(Disconnected(error))

    def _was_replaced_by_itself(self, code: str, now: float) -> bool:
        """Tell whether the newer connection may be an older one of ours, whose login came late."""
        broken = self._broken
        self._broken = None if code else now
        return code == "replaced" and broken is not None and now - broken < _STRAGGLER

    def stop(self, error: BaseException) -> None:
        """Try no more, until `restart`."""
        self.phase, self.failure, self.last_error = Phase.STOPPED, error, error
        self.events.append(Stopped(error))

    def ended(self) -> None:
        """Note that the shell has closed the connection for good."""
        if self.phase is not Phase.STOPPED:
            self.phase = Phase.AWAY

    def restart(self) -> None:
        """Try again at once, also after a failure: somebody has looked."""
        if self.phase is Phase.STOPPED:
            self.phase, self.failure = Phase.AWAY, None
        self._outage = None

    def pause(self, now: float) -> float:
        """Return the seconds to wait before the next attempt to connect."""
        if self._outage is None or self._at_once:
            return 0.0
        delay = next(self._delays)
        return (
            delay
            if self._options.retry is None
            else min(delay, self._outage + self._options.retry - now)
        )

    @property
    def is_settled(self) -> bool:
        """Whether all is acknowledged or, with `ack="none"`, handed to the connection."""
        if self._options.ack == "none":
            return self.phase is Phase.OPEN and self._sent == len(self.queue) and not self._outbox
        return not len(self.queue)

    def _step(self, reply: Reply, now: float) -> None:
        if isinstance(reply, ServerError):
            raise reply
        step = self._STEPS.get((self.phase, type(reply)))
        if step is None:
            raise ProtocolError(f"the server said {reply}, while {self.phase.value}")
        step(self, reply, now)

    def _answer(self, challenge: Challenge, _now: float) -> None:
        assert self._scram is not None
        self._outbox += self._dialect.response(self._scram.final(challenge.data))
        self.phase = Phase.ENTERING

    def _enter(self, ok: Ok, now: float) -> None:
        if self._scram is not None:
            self._scram.verify(ok.data)
        self._resume(ok.following)
        self.phase = Phase.OPEN
        self.max_frame, self.time, self.entered = ok.max_frame, ok.time, now
        self.events.append(Connected(ok.following))

    def _resume(self, following: int) -> None:
        """Find out which frames the server has stored (PROTOCOL.md, "How to resume").

        Raises:
            OutOfStepError: the numbers do not fit, and that was to stop the client.
        """
        queue = self.queue
        if queue.number is not None:
            # Frames between `expected` and `number` were dropped here while in doubt.
            expected, limit = queue.acknowledged + 1, queue.number + self._sent
            if following < expected or (len(queue) and following > limit):
                event = OutOfStep(following, expected, limit)
                self.events.append(event)
                if self._options.out_of_step == "stop":
                    raise OutOfStepError(str(event))
            else:
                self._release(min(following, limit) - queue.number)
        queue.number, queue.acknowledged, self._sent = following, following - 1, 0
        if not len(queue):
            self._objection = ""
        if not len(queue) or self._options.ack == "none":
            self._note_progress()

    def _acknowledge(self, acked: Acked, _now: float) -> None:
        assert self.queue.number is not None
        if acked.seq >= self.queue.number + self._sent:
            raise ProtocolError(
                f"the server said {acked} before frame {self.queue.number + self._sent}"
            )
        self._release(acked.seq + 1 - self.queue.number)
        self.queue.acknowledged = max(self.queue.acknowledged, acked.seq)

    def _release(self, count: int) -> None:
        if count > 0:
            self.queue.release(count)
            self._sent -= count
            self._is_dropping = False
            self._note_progress()

    def _note_progress(self) -> None:
        # A new connection alone is none: a server may accept it and break it each time.
        self._outage = None
        self._delays = backoff(*self._options.pause)

    def _fill_outbox(self) -> None:
        while len(self._outbox) < _CHUNK and self._send_some():
            pass

    def _send_some(self) -> bool:
        """Move frames from the queue to the outbox; return False if no more can go now."""
        frames = self.queue.read(self._sent, _CHUNK)
        if not frames:
            return self._skip_damaged()
        for frame in frames:
            fault = self._fault_of(frame)
            if fault:
                return self._set_aside(frame, fault)
            self._outbox += frame
            self._sent += 1
        return True

    def _fault_of(self, frame: bytes) -> str:
        if self._objection and not self._sent:
            return self._objection
        size = len(frame) - self._dialect.overhead
        if size > self.max_frame:
            return f"it has {size} bytes, the server takes {self.max_frame}"
        return ""

    def _set_aside(self, frame: bytes, reason: str) -> bool:
        if self._sent and self._options.ack == "durable":
            return False  # first the numbers of the frames before it must be certain
        self.queue.release(self._sent)  # with `ack="none"` no acknowledgement would do it
        self._sent, self._objection = 0, ""
        self.queue.skip(1)
        self.rejected += 1
        self.events.append(Rejected(frame, reason))
        return True

    def _skip_damaged(self) -> bool:
        if not self.queue.damaged or self._sent:
            return False
        self.events.append(Damaged(self.queue.damaged))
        self.queue.skip_damaged()
        return True

    _STEPS: ClassVar[dict[tuple[Phase, type], Callable[[Core, Any, float], None]]] = {
        (Phase.PROVING, Challenge): _answer,
        (Phase.ENTERING, Ok): _enter,
        (Phase.OPEN, Acked): _acknowledge,
    }


def _is_permanent(error: BaseException) -> bool:
    if isinstance(error, ServerError):
        return error.code in _PERMANENT
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_code not in _CLOCK_FAULTS
    return isinstance(error, (AuthenticationError, OutOfStepError))


# Finding out that the other host is gone. TCP_USER_TIMEOUT would be simpler, but on Linux it also
# ends a connection whose other side is alive and only takes nothing: a listener with a full disk.

# Offsets in Linux's struct tcp_info: segments that are not confirmed (tcpi_unacked), and the
# milliseconds since the other host has confirmed anything (tcpi_last_ack_recv).
_UNACKED, _LAST_ACK_RECV, _TCP_INFO_SIZE = 24, 56, 64
_MAX_KEEP_ALIVE = 32767  # seconds; Linux takes no more for TCP_KEEPIDLE and TCP_KEEPINTVL
_MOST_PATIENCE = 3600.0  # seconds of one wait for a socket; epoll takes 24 days


def _watch_peer(connection: Any, peer_timeout: float) -> None:
    """Let an idle connection to a host that is gone break after so many seconds."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS has no TCP_KEEPIDLE under this name before Python 3.10.
    for name, value in (("TCP_KEEPIDLE", peer_timeout / 2), ("TCP_KEEPINTVL", peer_timeout / 8)):
        if hasattr(socket, name):
            seconds = int(min(value, _MAX_KEEP_ALIVE))
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    if hasattr(socket, "TCP_KEEPCNT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _check_peer(connection: Any, peer_timeout: float) -> None:
    """Check that the other host confirms the bytes that are on their way to it.

    Keep-alives are sent only when nothing is; else the system would try for 15 minutes and more.

    Raises:
        TimeoutError: it has not confirmed any for too long.
    """
    if not hasattr(socket, "TCP_INFO"):
        return
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    (on_their_way,) = struct.unpack_from("=I", info, _UNACKED)
    (since_last_ack,) = struct.unpack_from("=I", info, _LAST_ACK_RECV)
    if on_their_way and since_last_ack > 1000 * peer_timeout:
        raise TimeoutError(errno.ETIMEDOUT, f"the server's host is silent for {peer_timeout:g} s")


# The shells: they carry bytes between the core and a socket, and keep the clock

_Result = TypeVar("_Result")
_Self = TypeVar("_Self", bound="Client")
_AsyncSelf = TypeVar("_AsyncSelf", bound="AsyncClient")
# What both shells do is written once, as generators. They decide and change, and never wait: what
# takes time they yield, as a call that the shell makes (a coroutine function for asyncio) and whose
# result it sends back. `Client` holds its lock between two yields and never during a call.
_Steps = Generator[Callable[[], Any], Any, _Result]


class _Goal(Enum):
    """What a shell is to do."""

    RUN = "keep connected"
    FINISH = "end as soon as all is acknowledged"
    ABORT = "end now"


class _Shell:
    """What both shells have in common: what they can be asked, and what they do.

    A shell itself only carries out the calls at the end of this class.
    """

    def __init__(self, host: str, port: int, device: str, token: str, **options: Any) -> None:
        """Describe a device and its server. Nothing is sent yet; a spool is opened.

        Args:
            host: the server's name or IP address.
            port: its TCP port.
            device: the device's name.
            token: the secret that proves the name.
            **options: see `Options`.

        Raises:
            ValueError: an option is none of those that `Options` tells.
            TypeError: it is of another type.
            SpoolError: another client uses the spool, or it belongs to another device.
            OSError: the spool or `ca` can't be read or made.
            ImportError: the msgpack dialect is asked for, and its package is missing.
        """
        self._options = Options(host, port, device, token, **options)
        self._tls = self._options.context()
        frames = self._options.open_queue()
        try:
            self._core = Core(frames, self._options)
        except BaseException:
            frames.close()
            raise
        self._goal = _Goal.RUN
        self._hurry = False  # whether the pause before the next attempt is to end
        self._link: Any = None  # the connection: a `_SocketLink` or a `_StreamLink`
        self._is_writing = False  # whether one of us is just writing the queue's files
        self._is_over = False  # whether `_keep_connected` has ended
        self._changes = 0  # counts what those who wait may want to know
        self._stored = 0.0  # when frames were last brought to this device's disk
        self._process = os.getpid()
        self._prepare()

    @property
    def connected(self) -> bool:
        """Whether the server has let the device in, and the connection holds."""
        return self._core.phase is Phase.OPEN

    @property
    def unacknowledged(self) -> int:
        """How many frames wait for their acknowledgement, with those of earlier runs in a spool."""
        return len(self._core.queue)

    @property
    def last_error(self) -> BaseException | None:
        """What ended the last connection or attempt, or what this device's disk said; or None."""
        return self._core.last_error

    @property
    def next(self) -> int:
        """The number that the next frame gets, as far as the client knows."""
        return (self._core.queue.number or 1) + len(self._core.queue)

    @property
    def acknowledged(self) -> int:
        """The number up to which the server has all frames of this device on disk."""
        return self._core.queue.acknowledged

    @property
    def taken(self) -> int:
        """How many frames this object has taken so far."""
        return self._core.taken

    @property
    def dropped(self) -> int:
        """How many frames were dropped for want of room; a spool counts over all its runs."""
        return self._core.queue.dropped

    @property
    def rejected(self) -> int:
        """How many frames were set aside because the server does not take them."""
        return self._core.rejected

    @property
    def server_time(self) -> datetime.datetime | None:
        """The server's clock now, in UTC; None if it has not said.

        It is what the last handshake said, and the time since by this device's monotonic clock.
        """
        said = _parse_time(self._core.time)
        if said is None:
            return None
        return said + datetime.timedelta(seconds=time.monotonic() - self._core.entered)

    # What a program calls

    def _put(self, data: bytes) -> _Steps[None]:
        """Take one frame into the queue; wait for room."""
        self._raise_if_over()
        if not self._core.offer(data):
            yield from self._store()
            while not self._core.offer(data):
                yield self._change(_DISK_PAUSE)
                self._raise_if_over()
        # Those that are in the queue need not wait for the next one, which may take its time.
        if self._core.queue.wants_write or time.monotonic() - self._stored > 0.1:
            yield from self._store()

    def _store(self) -> _Steps[None]:
        """Bring what was taken to this device's disk, and let it be sent."""
        try:
            while not (yield from self._has_stored()):
                pass
        except BaseException:
            if not self._is_writing:  # else the other one is just bringing it there
                self._core.give_back()
            raise
        finally:
            self._stored = time.monotonic()
        self._wake()

    def _has_stored(self) -> _Steps[bool]:
        """Write once; return False where the disk is full, and something was done about it."""
        try:
            yield from self._write()
        except OSError as error:
            if error.errno not in _FULL_DISK:
                raise
            self._raise_if_over()
            self._core.last_error = error
            if not self._core.make_room():
                waiting = len(self._core.queue)
                yield from self._until(lambda: len(self._core.queue) < waiting, _DISK_PAUSE)
            return False
        return True

    def _write(self) -> _Steps[None]:
        """Write all that must be on this device's disk."""
        queue = self._core.queue
        while self._is_writing:
            yield self._change(None)
        while self._goal is not _Goal.ABORT:
            write = queue.pending_write()
            if write is None:
                return
            self._is_writing = True
            try:
                yield functools.partial(self._run, write)
            finally:
                self._is_writing = False
                if write.is_done:
                    queue.written(write)
                self._notify()

    def _settle(self, timeout: float | None) -> _Steps[None]:
        """Wait until all is acknowledged."""
        yield from self._until(self._may_return, timeout)
        if not self._core.is_settled:
            self._raise_failure()
            raise self._overdue()

    def _may_return(self) -> bool:
        return self._core.phase is Phase.STOPPED or self._core.is_settled

    def _enter(self, losses: int, timeout: float | None) -> _Steps[None]:
        """Wait for a connection, or for the first attempt after so many losses to fail."""
        core = self._core
        if losses and self._link is None:
            self._hasten()  # the pause before the next attempt may be long
        yield from self._until(
            lambda: self.connected or core.losses > losses or core.phase is Phase.STOPPED, timeout
        )
        if not self.connected:
            if core.losses == losses and core.phase is not Phase.STOPPED:
                raise TimeoutError(f"no connection after {timeout} s")
            raise (core.last_error or ClientError("no connection")).with_traceback(None)

    def _renew(self, timeout: float | None) -> _Steps[None]:
        """Give up the connection and make another."""
        self._core.restart()
        if self._link is not None:
            self._link.error = ConnectionAbortedError("reconnect was called")
            self._wake()
            yield from self._until(lambda: self._link is None, None)
            self._core.restart()
        self._hasten()
        yield from self._enter(self._core.losses, timeout)

    def _hasten(self) -> None:
        self._hurry = True
        self._notify()

    def _finish(self, timeout: float | None) -> _Steps[None]:
        """Wait until all is acknowledged, and end the connection in good order."""
        yield from self._settle(timeout)
        keeps_all = self._options.ack == "durable"
        if keeps_all and not self.connected:
            return
        self._goal = _Goal.FINISH
        self._notify()
        self._wake()
        yield from self._until(lambda: self._is_over, None)
        if not keeps_all:
            self._raise_failure()

    def _end(self) -> _Steps[None]:
        """Let go of the queue, when nobody writes its files."""
        while self._is_writing:
            yield self._change(None)
        self._core.ended()
        self._core.queue.close()

    def _until(self, condition: Callable[[], bool], timeout: float | None) -> _Steps[None]:
        """Wait until a condition holds, or the time is over, or `abort` is called."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if self._goal is _Goal.ABORT:
                raise ClientError("this client is closed")
            if not left > 0:  # nor a NaN
                return
            yield self._change(None if left == math.inf else left)

    def _change(self, seconds: float | None) -> Callable[[], Any]:
        """Return the call that waits until anything changes from now on, or for so long."""
        most = None if seconds is None else min(seconds, _MOST_SECONDS)
        return functools.partial(self._pause, self._changes, most)

    def _raise_if_over(self) -> None:
        self._raise_failure()
        if self._goal is not _Goal.RUN:
            raise ClientError("this client is closed")

    def _raise_failure(self) -> None:
        failure = self._core.failure
        if failure is not None:
            raise failure.with_traceback(None)

    def _overdue(self) -> TimeoutError:
        text = f"{len(self._core.queue)} frames wait for their acknowledgement"
        last = self._core.last_error
        return TimeoutError(text if self.connected or not last else f"{text}: {_describe(last)}")

    @property
    def _is_forked(self) -> bool:
        """Whether this is a child after a fork: connection and spool are the parent's."""
        return os.getpid() != self._process

    def _check_process(self) -> None:
        if self._is_forked:
            raise ClientError("this client belongs to the process that made it, before a fork")

    # What the client's own thread or task does

    def _keep_connected(self) -> _Steps[None]:
        """Connect, and again whenever the connection breaks, until the client is closed."""
        try:
            while (yield from self._may_connect()):
                try:
                    if (yield from self._converse()):
                        break
                except (OSError, ClientError) as error:
                    self._core.lost(error, time.monotonic())
                self._notify()
        except Exception as error:  # a fault of this program: whoever waits must hear of it
            self._core.stop(error)
            raise
        finally:
            self._is_over = True
            self._notify()

    def _may_connect(self) -> _Steps[bool]:
        """Wait for the time of the next attempt; return False if there is none."""
        core = self._core
        while core.phase is Phase.STOPPED and self._goal is _Goal.RUN:
            yield self._change(None)
        if core.phase is not Phase.STOPPED:
            until = time.monotonic() + core.pause(time.monotonic())
            while not self._hurry and self._goal is _Goal.RUN and time.monotonic() < until:
                yield self._change(until - time.monotonic())
        self._hurry = False
        if self._goal is _Goal.FINISH:
            return self._options.ack == "none" and core.phase is not Phase.STOPPED
        return self._goal is _Goal.RUN

    def _converse(self) -> _Steps[bool]:
        """Carry bytes over one connection; return whether it has ended in good order.

        Raises:
            OSError, ClientError: why it has ended, or could not be opened.
        """
        link = yield self._dial
        try:
            self._link = link
            _watch_peer(link.socket, self._options.peer_timeout)
            deadline = time.monotonic() + self._options.timeout
            if self._goes_on():
                self._core.opened()
            while self._goes_on():
                seen = self._changes
                is_stored = yield from self._has_written()
                has_moved = link.move()
                if has_moved or self._core.events:
                    self._notify()
                patience = self._patience(link, deadline)
                if not is_stored:
                    patience, seen = _DISK_PAUSE, self._changes
                is_due = self._core.queue.is_write_due and not self._is_writing
                if has_moved or (is_stored and is_due):
                    patience = 0.0
                yield functools.partial(self._watch, seen, patience)
            if self._goal is _Goal.FINISH:
                yield functools.partial(self._part, link)
                return True
        finally:
            self._link = None
            link.close()
        return False

    def _goes_on(self) -> bool:
        if self._goal is _Goal.FINISH:  # without acknowledgements there may be frames to send again
            return not self._core.is_settled
        return self._goal is _Goal.RUN

    def _has_written(self) -> _Steps[bool]:
        """Write what must be on the disk before more is sent; return False if that fails."""
        try:
            if not self._is_writing:  # else a sender does it, and wakes us
                yield from self._write()
        except OSError as error:
            self._core.last_error = error
            return False
        return True

    def _patience(self, link: Any, deadline: float) -> float:
        """Return for how many seconds to wait for something to happen.

        Raises:
            TimeoutError: the server has not answered in the handshake, or its host is gone.
        """
        if self.connected:
            _check_peer(link.socket, self._options.peer_timeout)
            return min(self._options.peer_timeout / 4, _MOST_PATIENCE)
        left = deadline - time.monotonic()
        if left <= 0:
            message = f"no answer in {self._options.timeout:g} s"
            raise TimeoutError(errno.ETIMEDOUT, message)
        return min(left, _MOST_PATIENCE)

    def _report(self) -> None:
        events = self._core.events
        while events:
            try:
                event = events.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                self._options.on_event(event)
            except Exception:
                _log.exception("on_event failed with %r", event)

    # What each shell does in its own way. All but the first three take time, and are yielded; for
    # asyncio they are coroutine functions.

    _prepare: Callable[[], None]  # make what the shell needs besides its options
    _notify: Callable[[], None]  # count a change, and let those look who wait for one
    _wake: Callable[[], None]  # let the client's own thread or task look what there is to do
    _pause: Callable[[int, float | None], Any]  # until `_changes` is another one, or for so long
    _run: Callable[[Write], Any]  # run a write, which takes as long as the disk
    _dial: Callable[[], Any]  # open a connection, and return the link
    _watch: Callable[[int, float], Any]  # as `_pause`, and until the link has something to do
    _part: Callable[[Any], Any]  # close the sending side and read to the end: all is on disk then


def _nested() -> ClientError:
    return ClientError("called from within itself: a signal handler or `frames` may not do that")


class Client(_Shell):
    """One device's connection, and the frames that the server has not acknowledged yet.

    A thread of its own keeps the connection: it connects when the first method is called, and
    again whenever the connection breaks. Any thread may call any method, but no handler of a signal
    and no child after a fork. As a context manager it begins to connect, and at the end waits until
    all is acknowledged. What is still in memory when the program ends without that is lost.

    The arguments are those of `Options`. Errors of the connection are not raised but wait in
    `last_error`, and the client tries again, for ever or for `retry` seconds. Only what trying
    again can't mend is raised, by the method that is called next: `AuthenticationError` (the token
    is wrong, or the server does not know it), `ServerError` with another of the codes for which
    PROTOCOL.md says not to retry, `ssl.SSLCertVerificationError`. Then the client has stopped;
    `reconnect` lets it go on.
    """

    def _prepare(self) -> None:
        self._changed = threading.Condition()
        self._sending = threading.RLock()  # held by the one thread that appends
        self._sender = self._stepper = 0  # which thread appends, and which holds `_changed`
        self._thread: threading.Thread | None = None

    def __enter__(self: _Self) -> _Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def send(self, frame: Any) -> None:
        """Take one frame; it will be stored once. Returns as soon as the queue has room for it.

        With a spool the frame is then on this device's disk. After an error it was not taken.

        Raises:
            TypeError, ValueError: it is no frame of this dialect, or longer than the server takes.
            OSError: it can't be written to the spool.
        """
        self.send_many((frame,))

    def send_many(self, frames: Iterable[Any]) -> None:
        """Take frames, as `send` does. After an error `taken` tells how many were taken."""
        self._start()
        if self._sender == threading.get_ident():
            raise _nested()
        with self._sending:
            self._sender = threading.get_ident()
            self._stored = time.monotonic()
            try:
                for frame in frames:
                    self._do(self._put(self._core.encode(frame)))
            finally:
                self._sender = 0
                self._do(self._store())

    def wait(self, timeout: float | None = None) -> None:
        """Wait until every frame is acknowledged; with `ack="none"`, until it has been sent.

        Raises:
            TimeoutError: that took more than `timeout` seconds.
        """
        self._start()
        self._do(self._settle(timeout))

    def connect(self, timeout: float | None = None) -> None:
        """Wait until there is a connection, or the first attempt for one has failed.

        Nobody needs to call this: it tells early whether there is a server that lets us in.

        Raises:
            OSError, ClientError: why the attempt has failed. Unless the client has stopped, it
                goes on trying.
            TimeoutError: there was neither in `timeout` seconds.
        """
        losses = self._core.losses
        self._start()
        self._do(self._enter(losses, timeout))

    def reconnect(self, timeout: float | None = None) -> None:
        """Give up the connection and make another at once; see `connect`."""
        self._start()
        self._do(self._renew(timeout))

    def ping(self) -> bool:
        """Send a keep-alive, so that an idle connection stays; return False if there is none."""
        with self._changed:
            is_sent = self._core.ping()
            self._wake()
        return is_sent

    def close(self, timeout: float | None = None) -> None:
        """Wait until every frame is acknowledged, and close the connection.

        Frames in a spool that are not acknowledged stay there, for the next run.

        Raises:
            TimeoutError: that took more than `timeout` seconds.
        """
        try:
            is_used = self._thread is not None or self.unacknowledged > 0
            if self._goal is _Goal.RUN and is_used and not self._is_forked:
                self._start()
                self._do(self._finish(timeout))
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection now. Frames that are not acknowledged are lost without a spool."""
        if self._is_forked:
            return
        with self._changed:
            self._goal = _Goal.ABORT
            self._notify()
            self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1)  # it may still be opening a connection; it ends when that has failed
        self._do(self._end())

    def _start(self) -> None:
        self._check_process()
        with self._changed:
            if self._goal is not _Goal.RUN:
                raise ClientError("this client is closed")
            if self._thread is None:
                self._woken, self._waker = socket.socketpair()
                self._woken.setblocking(False)
                self._waker.setblocking(False)
                self._thread = threading.Thread(
                    target=self._live, name="ingest-client", daemon=True
                )
                self._thread.start()

    def _live(self) -> None:
        with self._woken, self._waker:
            self._do(self._keep_connected())

    def _do(self, steps: _Steps[_Result]) -> _Result:
        """Take the steps, with the lock, and make the calls between them, without it."""
        call: Callable[[], Any] | None
        result: Any = None
        failure: BaseException | None = None
        while True:
            if self._stepper == threading.get_ident():
                raise _nested()
            with self._changed:
                self._stepper = threading.get_ident()
                try:
                    call = steps.send(result) if failure is None else steps.throw(failure)
                except StopIteration as stop:
                    call, result = None, stop.value
                finally:
                    self._stepper = 0
            self._report()
            if call is None:
                return result  # type: ignore[no-any-return]
            result = failure = None
            try:
                result = call()
            except BaseException as error:
                failure = error

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _wake(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(OSError):  # it is full, and so will wake the thread anyway
                self._waker.send(b"\0")

    def _pause(self, seen: int, seconds: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._changes != seen, seconds)

    def _run(self, write: Write) -> None:
        write.run()

    def _dial(self) -> _SocketLink:
        host, port = self._options.host, self._options.port
        connection = socket.create_connection((host, port), self._options.timeout)
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=host)
            return _SocketLink(self._core, connection, self._woken)
        except BaseException:
            connection.close()
            raise

    def _watch(self, _seen: int, seconds: float) -> None:
        self._link.wait(seconds)

    def _part(self, link: _SocketLink) -> None:
        connection = link.socket
        connection.settimeout(self._options.timeout)
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.unwrap()
                return
            connection.shutdown(socket.SHUT_WR)
            for data in iter(functools.partial(connection.recv, _CHUNK), b""):
                with self._changed:
                    self._core.receive(data, time.monotonic())
        except (OSError, ClientError):
            if self._options.ack == "none":  # else all is known to be on disk already
                raise


class _SocketLink:
    """One connection of a `Client`, and what its thread waits for.

    Attributes:
        socket: the connection; it never waits.
        error: why `move` is to end it.
    """

    def __init__(self, core: Core, connection: socket.socket, woken: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.error: Exception | None = None
        self._core, self._woken = core, woken
        self._selector = selectors.DefaultSelector()
        self._selector.register(woken, selectors.EVENT_READ)
        self._selector.register(connection, selectors.EVENT_READ)

    def move(self) -> bool:
        """Take what has arrived, and hand over what the socket takes; return whether any moved.

        Raises:
            OSError, ClientError: the connection has to end.
        """
        if self.error is not None:
            raise self.error
        has_received = self._receive()
        return self._send() or has_received

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(_CHUNK)
        except _WOULD_BLOCK:
            return False
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        self._core.receive(data, time.monotonic())
        return True

    def _send(self) -> bool:
        data = self._core.data_to_send()
        if not data:
            return False
        try:
            with memoryview(data) as view:
                sent = self.socket.send(view)
        except _WOULD_BLOCK:
            return False
        self._core.took(sent)
        return True

    def wait(self, seconds: float) -> None:
        """Wait until the socket is ready for more, or somebody wakes us, or for so long."""
        # Reading goes on while sending: a server that is held up by its disk takes no bytes, and
        # one whose ACKs nobody reads is held up by us.
        write = selectors.EVENT_WRITE if self._core.has_output else 0
        self._selector.modify(self.socket, selectors.EVENT_READ | write)
        self._selector.select(seconds)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(_CHUNK)

    def close(self) -> None:
        """Let go of the socket."""
        self._selector.close()
        self.socket.close()


class AsyncClient(_Shell):
    """The same as `Client`, for asyncio: a task of the running loop keeps the connection.

    Its methods are coroutines, but for `ping`, and belong to one loop. The spool's files are
    written in the loop's default executor. Where a `send` is cancelled, `taken` tells whether its
    frame was taken.
    """

    def _prepare(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._sending: asyncio.Lock  # made in the loop: before Python 3.10 it is bound to one

    async def __aenter__(self: _AsyncSelf) -> _AsyncSelf:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: object, trace: object
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.abort()

    async def send(self, frame: Any) -> None:
        """Take one frame; see `Client.send`."""
        await self.send_many((frame,))

    async def send_many(self, frames: Iterable[Any]) -> None:
        """Take frames; see `Client.send_many`."""
        self._start()
        async with self._sending:
            self._stored = time.monotonic()
            try:
                for frame in frames:
                    await self._do(self._put(self._core.encode(frame)))
            finally:
                await self._do(self._store())

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until every frame is acknowledged; see `Client.wait`."""
        self._start()
        await self._do(self._settle(timeout))

    async def connect(self, timeout: float | None = None) -> None:
        """Wait until there is a connection, or an attempt for one has failed; see `Client`."""
        losses = self._core.losses
        self._start()
        await self._do(self._enter(losses, timeout))

    async def reconnect(self, timeout: float | None = None) -> None:
        """Give up the connection and make another at once; see `Client.reconnect`."""
        self._start()
        await self._do(self._renew(timeout))

    def ping(self) -> bool:
        """Send a keep-alive; see `Client.ping`."""
        is_sent = self._core.ping()
        self._wake()
        return is_sent

    async def close(self, timeout: float | None = None) -> None:
        """Wait until every frame is acknowledged, and close; see `Client.close`."""
        try:
            is_used = self._task is not None or self.unacknowledged > 0
            if self._goal is _Goal.RUN and is_used and not self._is_forked:
                self._start()
                await self._do(self._finish(timeout))
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Close the connection now; see `Client.abort`."""
        if self._is_forked:
            return
        self._goal = _Goal.ABORT
        self._notify()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._do(self._end())

    def _start(self) -> None:
        self._check_process()
        if self._goal is not _Goal.RUN:
            raise ClientError("this client is closed")
        if self._task is None:
            self._sending = asyncio.Lock()
            running = self._do(self._keep_connected())
            self._task = asyncio.get_running_loop().create_task(running)

    async def _do(self, steps: _Steps[_Result]) -> _Result:
        """Take the steps, and await the calls between them."""
        call: Callable[[], Any] | None
        result: Any = None
        failure: BaseException | None = None
        while True:
            try:
                call = steps.send(result) if failure is None else steps.throw(failure)
            except StopIteration as stop:
                call, result = None, stop.value
            self._report()
            if call is None:
                return result  # type: ignore[no-any-return]
            result = failure = None
            try:
                result = await call()
            except BaseException as error:
                failure = error

    def _notify(self) -> None:
        self._changes += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _wake(self) -> None:
        self._notify()

    async def _pause(self, seen: int, seconds: float | None) -> None:
        if self._changes != seen:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=seconds)
        finally:
            self._waiters.discard(waiter)

    async def _run(self, write: Write) -> None:
        running = asyncio.get_running_loop().run_in_executor(None, write.run)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():  # no other write may begin before this one has ended
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError as error:  # noqa: PERF203
                cancelled = error
        if cancelled is not None:
            running.exception()
            raise cancelled
        running.result()

    async def _dial(self) -> _StreamLink:
        options, loop = self._options, asyncio.get_running_loop()
        opening = loop.create_connection(
            lambda: _StreamLink(self._core, self._notify), options.host, options.port, ssl=self._tls
        )
        try:
            _, link = await asyncio.wait_for(opening, options.timeout)
        except asyncio.TimeoutError:
            message = f"no connection in {options.timeout:g} s"
            raise TimeoutError(errno.ETIMEDOUT, message) from None
        return link

    async def _watch(self, seen: int, seconds: float) -> None:
        if seconds > 0:
            await self._pause(seen, seconds)
        else:
            await asyncio.sleep(0)

    async def _part(self, link: _StreamLink) -> None:
        try:
            link.finish()
            await asyncio.wait_for(link.closed.wait(), self._options.timeout)
            if link.error is not None:
                raise link.error
        except (OSError, ClientError, asyncio.TimeoutError) as error:
            if self._options.ack == "none":  # else all is known to be on disk already
                if isinstance(error, asyncio.TimeoutError):
                    error = TimeoutError(errno.ETIMEDOUT, "the server does not close")
                raise error from None


class _StreamLink(asyncio.Protocol):
    """One connection of an `AsyncClient`.

    Attributes:
        closed: set when the connection has ended.
        error: why `move` is to end it.
    """

    def __init__(self, core: Core, notify: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self.error: Exception | None = None
        self._core, self._notify = core, notify
        self._is_paused = False
        self._transport: asyncio.Transport

    @property
    def socket(self) -> Any:
        """The socket below."""
        return self._transport.get_extra_info("socket")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transports are of asyncio's class: those of uvloop are not.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.error is None:
            try:
                self._core.receive(data, time.monotonic())
            except ClientError as error:
                self.error = error
                self._transport.abort()
        self._notify()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._notify()

    def connection_lost(self, error: Exception | None) -> None:
        self.error = self.error or error
        self.closed.set()
        self._notify()

    def move(self) -> bool:
        """Hand over what is to be sent, as much as the transport wants; return whether any moved.

        Raises:
            OSError, ClientError: the connection has to end.
        """
        has_moved = False
        while not (self._is_paused or self.closed.is_set() or self.error):
            data = bytes(self._core.data_to_send())
            if not data:
                return has_moved
            self._transport.write(data)
            self._core.took(len(data))
            has_moved = True
        if self.error is not None:
            raise self.error
        if self.closed.is_set():
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        return has_moved

    def finish(self) -> None:
        """Close the sending side."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS: it sends what it has, and a close_notify

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.abort()
