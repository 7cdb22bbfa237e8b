"""One connection between a device and the listener, in memory: bytes, closings and resets."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Literal, NamedTuple

import msgpack
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from ingest.listener.connection import Connection

_ROOM = 40
"""Bytes that the kernel takes for a device that reads nothing."""
_OK = re.compile(r"OK (?:\S+=\S+ )*next=([0-9]+)(?: \S+=\S+)*")


class OurFault(Exception):  # noqa: N818 - it is thrown, not caught
    """A fault of our own code, in one connection."""


class Message(NamedTuple):
    """What the listener says: `ok` with the next number, `ack` with a number, `err` with a code."""

    kind: Literal["ok", "ack", "err"]
    number: int = 0
    code: str = ""


class Wire:
    """A transport that tells its protocol what the scheduler lets happen.

    Attributes:
        number: tells it from the others.
        said: what the listener has said, and the device has not read.
        may_hear: the codes of errors for which there has been a reason.
        is_lost: whether the listener knows that it is gone.
        is_faulty: whether our code fails when it says something here.
        is_aborted: whether the listener has cut it.
        may_be_cut: whether there has been a reason to.
    """

    disconnecting = False

    def __init__(
        self,
        number: int,
        connection: Connection,
        is_msgpack: bool,
        heard: "Callable[[Wire, Message], None]",
    ) -> None:
        """Make it; `open` begins.

        Args:
            number: see `Wire.number`.
            connection: the listener's end.
            is_msgpack: the dialect.
            heard: called with each message at the moment when the listener sends it.
        """
        self.number = number
        self.connection = connection
        self.is_msgpack = is_msgpack
        self.said: deque[Message] = deque()
        self.may_hear: set[str] = set()
        self.is_lost = False
        self.is_faulty = False
        self.is_aborted = False
        self.may_be_cut = False
        self._heard = heard
        self._to_listener = b""
        self._device_closed: Literal["", "clean", "reset"] = ""
        self._told_closed = False
        self._is_reading = True
        self._is_closing = False  # all of it, once all has gone
        self._write_closed = False
        self._producer: object = None
        self._is_held_back = False

    def open(self) -> None:
        """Connect."""
        self.connection.makeConnection(self)

    # The device's end.

    def send(self, data: bytes) -> None:
        """Send."""
        if not self._device_closed:
            self._to_listener += data

    def close(self) -> None:
        """Close the sending side."""
        self._device_closed = self._device_closed or "clean"

    def reset(self) -> None:
        """Break the connection; what is on its way may be lost."""
        self._device_closed = "reset"
        self.said.clear()

    @property
    def is_closed_for_device(self) -> bool:
        """Whether the device will hear nothing more."""
        return self._device_closed == "reset" or (
            not self.said and (self.is_lost or self.is_aborted or self._write_closed)
        )

    @property
    def is_sendable(self) -> bool:
        """Whether the device may still send."""
        return not self._device_closed and not self.is_lost

    # What may happen next.

    @property
    def is_due(self) -> bool:
        """Whether something can reach the listener."""
        if self.is_lost:
            return False
        is_flushed = not self.said or self._device_closed == "reset"
        if self.is_aborted or (self._is_closing and is_flushed):
            return True
        return self._is_reading and bool(
            self._to_listener or (self._device_closed and not self._told_closed)
        )

    def deliver(self, chance: Random, most: int) -> None:
        """Let something reach the listener."""
        if self.is_aborted:
            self.lose(ConnectionAborted)
        elif self._is_closing:
            self.lose(ConnectionDone)
        elif self._device_closed == "reset" and (not self._to_listener or chance.random() < 0.5):
            self.lose(ConnectionLost)
        elif self._to_listener:
            size = min(len(self._to_listener), chance.randint(1, most))
            data, self._to_listener = self._to_listener[:size], self._to_listener[size:]
            self.connection.dataReceived(data)
        else:
            self._told_closed = True
            self.connection.readConnectionLost()

    def take(self) -> Message:
        """Let the device read a message."""
        message = self.said.popleft()
        if self._is_held_back and len(self.said) == 0:
            self._is_held_back = False
            try:
                self._producer.resumeProducing()  # type: ignore[attr-defined]
            except OurFault:  # the reactor logs it, and disconnects this one
                self.lose(ConnectionLost)
        return message

    def lose(self, reason: type[Exception]) -> None:
        """Let the listener hear that the connection is gone."""
        if not self.is_lost:
            self.is_lost = True
            self._to_listener = b""
            self.connection.connectionLost(Failure(reason()))

    # The transport.

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        if self.is_faulty:
            raise OurFault
        if self.is_lost or self.is_aborted:
            return
        for message in _messages(data, self.is_msgpack):
            self._heard(self, message)
            if self._device_closed != "reset":
                self.said.append(message)
        if self._producer is not None and not self._is_held_back and 20 * len(self.said) > _ROOM:
            self._is_held_back = True
            self._producer.pauseProducing()  # type: ignore[attr-defined]

    def getPeer(self) -> IAddress:
        """See `ITransport`."""
        return IPv4Address("TCP", "127.0.0.1", 1024 + self.number)

    def loseConnection(self) -> None:
        """See `ITransport`."""
        self._is_closing = self._write_closed = True

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`."""
        self._write_closed = True

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        self.is_aborted = True
        self.said.clear()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """See `IConsumer`."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None
        self._is_held_back = False

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self._is_reading = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        self._is_reading = True


def _messages(data: bytes, is_msgpack: bool) -> Iterator[Message]:
    """Read whole messages, as PROTOCOL.md has them."""
    if is_msgpack and data[:3] != b"ERR":
        unpacker = msgpack.Unpacker(max_buffer_size=4096)
        unpacker.feed(data)
        yield from map(_from_msgpack, unpacker)
        return
    *lines, rest = data.decode().split("\n")
    assert not rest, f"half a message: {data!r}"
    yield from map(_from_text, lines)


def _from_text(line: str) -> Message:
    word, _, rest = line.partition(" ")
    if word == "ACK":
        return Message("ack", int(rest))
    if word == "ERR":
        return Message("err", 0, rest.partition(" ")[0])
    match = _OK.fullmatch(line)
    assert match is not None, f"no message: {line!r}"
    return Message("ok", int(match[1]))


def _from_msgpack(message: dict[str, object]) -> Message:
    match message:
        case {"ack": int(number)}:
            return Message("ack", number)
        case {"err": str(code)}:
            return Message("err", 0, code)
        case {"ok": {"next": int(number)}}:
            return Message("ok", number)
    raise AssertionError(f"no message: {message!r}")
