"""Devices that know the protocol and nothing else, and connect over real sockets."""

import re
import socket
import struct
from base64 import b64decode, b64encode
from typing import Any, ClassVar, Self

import msgpack
from scramp import ScramClient

from tests.support.waiting import PATIENCE

TOKEN = "s3cr3t"
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"
"""A time of the listener, as a pattern."""

Address = tuple[str, int] | str
Reply = tuple[str, Any]


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
