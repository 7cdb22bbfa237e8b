"""The control socket: how the `ingest` command talks to a running listener.

One JSON object a line: `{"command": "rotate"}` gets `{"ok": ...}` or `{"error": "..."}`.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import orjson
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorUNIX
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

Command = Callable[[], Deferred[object] | object]

TIMEOUT = 60.0
"""Seconds that an answer may take: a rotation waits for the disk."""

CONNECTIONS = 16
"""Connections at once, each of which takes a descriptor; then a new one takes the place of the
oldest, so that programs that were forgotten keep nobody out."""


class ControlError(Exception):
    """The listener does not answer, or says no; the text is for a person."""


class _ControlProtocol(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, all_: "_ControlFactory", commands: Mapping[str, Command]) -> None:
        self._all = all_
        self._commands = commands

    def connectionMade(self) -> None:
        self._all.made(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        self._all.lost(self)

    def lineReceived(self, line: bytes) -> None:
        try:
            command = self._commands[json.loads(line)["command"]]
        except (ValueError, KeyError, TypeError):
            self._reply({"error": "unknown command"})
            return
        answer = maybeDeferred(command)
        answer.addCallback(lambda value: self._reply({"ok": value})).addErrback(self._fail)

    def _fail(self, failure: Failure) -> None:
        self._reply({"error": failure.getErrorMessage()})

    def _reply(self, reply: dict[str, object]) -> None:
        self.sendLine(orjson.dumps(reply, option=orjson.OPT_NON_STR_KEYS))


class _ControlFactory(Factory):
    noisy = False

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._connections: dict[_ControlProtocol, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> _ControlProtocol:  # noqa: ARG002
        return _ControlProtocol(self, self._commands)

    def made(self, connection: _ControlProtocol) -> None:
        """Called when a connection is there; where there are too many, the oldest is cut."""
        if len(self._connections) >= CONNECTIONS:
            oldest = next(iter(self._connections))
            self.lost(oldest)
            cast(Any, oldest.transport).abortConnection()
        self._connections[connection] = None

    def lost(self, connection: _ControlProtocol) -> None:
        """Called when a connection is over."""
        self._connections.pop(connection, None)


class ControlSocket:
    """Answers commands on a Unix socket that only its owner may open."""

    def __init__(self, reactor: IReactorUNIX, path: Path, commands: Mapping[str, Command]) -> None:
        """Begin to answer.

        Raises:
            CannotListenError: the socket can't be made.
        """
        path.unlink(missing_ok=True)  # left by a crash; the lock says that nobody uses it
        self._folder, short = _shortened(path)
        self._port = reactor.listenUNIX(short, _ControlFactory(commands), mode=0o600)

    def stop(self) -> Deferred[None]:
        """Answer no more; fires when the socket is gone."""
        stopped: Deferred[Any] = maybeDeferred(cast(Any, self._port.stopListening))
        return stopped.addCallback(lambda _: os.close(self._folder))


def ask(path: Path, command: str, timeout: float = TIMEOUT) -> Any:
    """Send a command to the listener at a control socket and return its answer; blocks.

    Args:
        path: the socket.
        command: its name.
        timeout: seconds to wait for each part of the answer.

    Raises:
        ControlError: no listener answers there in time, or it says no.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            _connect(connection, path, timeout)
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline())
    except (TimeoutError, BlockingIOError) as error:  # or too many wait for an answer before us
        raise ControlError(
            f"the listener at {path} does not answer within {timeout:g} s:"
            " it is frozen or overloaded"
        ) from error
    except (OSError, ValueError) as error:
        raise ControlError(f"no listener answers at {path}: {error}") from error
    if "error" in reply:
        raise ControlError(reply["error"])
    return reply["ok"]


def _connect(connection: socket.socket, path: Path, timeout: float) -> None:
    folder, short = _shortened(path)
    try:
        connection.settimeout(timeout)
        connection.connect(short)
    finally:
        os.close(folder)


def _shortened(path: Path) -> tuple[int, str]:
    """Name a socket so that it fits its 108 bytes (unix(7)), however deep its folder is.

    Returns:
        A descriptor of the folder, which must stay open while the name is in use, and the name.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return folder, f"/proc/self/fd/{folder}/{path.name}"
