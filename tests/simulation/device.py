"""A device that keeps its frames until they are acknowledged, and resumes as PROTOCOL.md says."""

from base64 import b64encode
from random import Random

import msgpack

from tests.simulation.wire import Message, Wire

TOKEN = "s3cr3t"


class Device:
    """One device, and the frames that it has made.

    Attributes:
        name: its name.
        token: what it proves that with.
        frames: the text of each of its frames; that of number 1 first.
        stored: the number up to which it knows that they are on disk.
        sent: the number up to which it has ever sent them.
        wire: the connection that it listens to; it may have left older ones behind.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = TOKEN
        self.frames: list[str] = []
        self.stored = 0
        self.sent = 0
        self.wire: Wire | None = None
        self._following = 0  # the number of the next frame to send; 0 before `OK`
        self._ahead = 0  # frames that it sent before `OK`

    @property
    def is_done(self) -> bool:
        """Whether it knows that all its frames are on disk."""
        return self.stored == len(self.frames)

    @property
    def may_send(self) -> bool:
        """Whether it has been let in and has something to send."""
        wire = self.wire
        is_open = wire is not None and wire.is_sendable and self._following > 0
        return is_open and self._following <= len(self.frames)

    @property
    def may_leave(self) -> bool:
        """Whether it may give its connection up before the listener has ended it.

        Not before `OK` if it has sent frames: the listener may take them still, behind those of a
        newer connection.
        """
        return self._following > 0 or not self._ahead

    def make(self, size: int) -> None:
        """Make a frame."""
        start = f"{self.name}-{len(self.frames) + 1}-"
        self.frames.append(start + "x" * size)

    def log_in(self, wire: Wire, ahead: int) -> None:
        """Begin a connection.

        Args:
            wire: the connection.
            ahead: how many frames it may send without waiting for `OK`. It sends none while the
                fate of any is unknown: then it can't say which numbers they would get.
        """
        self.wire = wire
        self._following = self._ahead = 0
        wire.send(login(self.name, self.token, wire.is_msgpack))
        if ahead and self.sent == self.stored:
            self._ahead = min(ahead, len(self.frames) - self.stored)
            self._send(self.stored + 1, self._ahead)

    def hear(self, wire: Wire, message: Message) -> None:
        """Act on what the listener says.

        Raises:
            AssertionError: it says what can't be.
        """
        if wire is not self.wire:
            return
        match message.kind:
            case "ok":
                assert self.stored < message.number <= self.sent + 1, (
                    f"{self.name} is told next={message.number}: it was told of {self.stored},"
                    f" and has sent {self.sent}"
                )
                assert not self._ahead or message.number == self.stored + 1, "next has changed"
                self.stored = message.number - 1
                self._following = message.number + self._ahead
            case "ack":
                assert self.stored < message.number < self._following, (
                    f"{self.name} is told ACK {message.number} after {self.stored}"
                )
                self.stored = message.number
            case "err":
                self.wire = None

    def notice(self) -> None:
        """See whether the connection is gone."""
        if self.wire is not None and self.wire.is_closed_for_device:
            self.wire = None

    def send(self, chance: Random) -> None:
        """Send some frames, perhaps with keep-alives between them."""
        wire = self.wire
        assert wire is not None
        if chance.random() < 0.1:
            wire.send(b"\xc0" if wire.is_msgpack else b"\n")
        count = min(chance.randint(1, 6), len(self.frames) + 1 - self._following)
        self._send(self._following, count)
        self._following += count

    def send_half(self, chance: Random) -> None:
        """Send a part of the next frame, and break the connection or close it.

        A line without its LF is a frame if the device closes its side cleanly.
        """
        wire = self.wire
        assert wire is not None
        frame = _encoded(self.frames[self._following - 1], wire.is_msgpack)
        if wire.is_msgpack or chance.random() < 0.7:
            wire.send(frame[: chance.randint(1, len(frame) - 2)])
            wire.reset()
            self.wire = None
        else:
            self._send(self._following, 1, end=b"")
            self._following += 1
            wire.close()

    def close(self, chance: Random) -> None:
        """Close the sending side, or all at once."""
        wire = self.wire
        assert wire is not None
        if chance.random() < 0.6 or not self.may_leave:
            wire.close()
        else:
            wire.reset()
            self.wire = None

    def _send(self, first: int, count: int, end: bytes = b"\n") -> None:
        assert self.wire is not None
        is_msgpack = self.wire.is_msgpack
        frames = self.frames[first - 1 : first - 1 + count]
        self.wire.send(b"".join(_encoded(text, is_msgpack, end) for text in frames))
        self.sent = max(self.sent, first - 1 + count)


def login(name: str, token: str, is_msgpack: bool) -> bytes:
    """Write the first message of a connection."""
    response = f"\0{name}\0{token}".encode()
    if is_msgpack:
        packed: bytes = msgpack.packb({"auth": "PLAIN", "data": response})
        return packed
    return b"AUTH PLAIN " + b64encode(response) + b"\n"


def _encoded(text: str, is_msgpack: bool, end: bytes = b"\n") -> bytes:
    if is_msgpack:
        packed: bytes = msgpack.packb(text)
        return packed
    return text.encode() + end
