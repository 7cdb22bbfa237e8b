"""Devices that only answer: TCP servers, as the firmware of a meter or a relay board has one."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.support.waiting import PATIENCE

Behaviour = Callable[["AnsweringDevice", socket.socket], None]


class AnsweringDevice:
    """A device on a port of 127.0.0.1, which serves one connection after the other.

    Attributes:
        port: where it listens.
        asked: what it was asked, in order.
        calls: how many connections were made.
        closed: how many of them the other side has closed in good order, after an answer.
    """

    def __init__(self, behaviour: Behaviour, port: int = 0) -> None:
        self._behaviour = behaviour
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self.asked: list[bytes] = []
        self.calls = self.closed = 0
        self._current: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Turn it off; its port is free then."""
        for each in (self._server, self._current):
            if each is not None:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.calls += 1
                self._current = connection
                with connection, suppress(OSError):
                    self._behaviour(self, connection)


def answers(*replies: bytes) -> Behaviour:
    """Answer each question with the next of the replies, the last one for ever; then wait."""

    def behave(device: AnsweringDevice, connection: socket.socket) -> None:
        device.asked.append(connection.recv(4096))
        connection.sendall(replies[min(len(device.asked), len(replies)) - 1])
        device.closed += connection.recv(4096) == b""

    return behave


def answers_and_closes(reply: bytes) -> Behaviour:
    """Answer, and close the connection."""

    def behave(device: AnsweringDevice, connection: socket.socket) -> None:
        device.asked.append(connection.recv(4096))
        connection.sendall(reply)

    return behave


def answers_over_tls(context: ssl.SSLContext, reply: bytes) -> Behaviour:
    """Answer each question, and wait, in TLS."""

    def behave(device: AnsweringDevice, connection: socket.socket) -> None:
        with context.wrap_socket(
            connection, server_side=True, suppress_ragged_eofs=False
        ) as secured:
            answers(reply)(device, secured)

    return behave


def silent(device: AnsweringDevice, connection: socket.socket) -> None:
    """Say nothing, for as long as the other side stays."""
    while connection.recv(4096):
        pass


def talks(*pieces: bytes) -> Behaviour:
    """Say something unasked, piece by piece, and then wait."""

    def behave(device: AnsweringDevice, connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
        connection.recv(4096)

    return behave


def counts(device: AnsweringDevice, connection: socket.socket) -> None:
    """Answer each question with its number, from 1 on, and wait."""
    device.asked.append(connection.recv(4096))
    connection.sendall(b"%d\n" % len(device.asked))
    connection.recv(4096)


def counts_on(device: AnsweringDevice, connection: socket.socket) -> None:
    """Send one number after the other, unasked, from 1 on over all connections."""
    while True:
        device.asked.append(b"")
        connection.sendall(b"%d\n" % len(device.asked))
        time.sleep(0.002)


def drips(reply: bytes, *, closes: bool = False) -> Behaviour:
    """Answer byte by byte."""

    def behave(device: AnsweringDevice, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device.asked.append(connection.recv(4096))
        for byte in reply:
            connection.sendall(bytes([byte]))
        if not closes:
            connection.recv(4096)

    return behave


def drips_for_ever(device: AnsweringDevice, connection: socket.socket) -> None:
    """Send a byte every now and then, for as long as the other side stays."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def never_ends(device: AnsweringDevice, connection: socket.socket) -> None:
    """Send bytes for as long as the other side stays."""
    while True:
        connection.sendall(b"x" * 4096)
