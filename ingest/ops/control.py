"""The control socket: how the `ingest` command talks to a running listener.

One JSON object a line: `{"command": "rotate"}` gets `{"ok": ...}` or `{"error": "..."}`.
"""

import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, cast

import orjson
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorUNIX
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ingest.ops.accepting import RestingPort, stop_listening

Command = Callable[[], Deferred[object] | object]

SOON = 5.0
"""Seconds that a listener may take to say anything; one that is well needs some milliseconds."""

TIMEOUT = 60.0
"""Seconds that an answer may take: a rotation waits for the disk."""

CONNECTIONS = 16
"""Connections at once, each of which takes a descriptor; then a new one takes the place of the
oldest, so that programs that were forgotten keep nobody out."""


class ControlError(Exception):
    """The listener does not answer, or says no; the text is for a person."""


class Refusal(ControlError):  # noqa: N818 - it is the listener's word, and no fault of the way
    """The listener says no."""


class _ControlProtocol(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, all_: "_ControlFactory", commands: Mapping[str, Command]) -> None:
        self._all = all_
        self._commands = commands
        self._waiting: set[Deferred[object]] = set()

    def connectionMade(self) -> None:
        self._all.made(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        self._all.lost(self)
        for answer in tuple(self._waiting):  # nobody is there to hear it
            answer.cancel()

    def lineReceived(self, line: bytes) -> None:
        try:
            command = self._commands[json.loads(line)["command"]]
        except (ValueError, KeyError, TypeError):
            self._reply({"error": "unknown command"})
            return
        answer: Deferred[object] = maybeDeferred(command)
        self._waiting.add(answer)
        answer.addBoth(self._answered, answer)
        answer.addCallback(lambda value: self._reply({"ok": value})).addErrback(self._fail)

    def _answered(self, result: object, answer: Deferred[object]) -> object:
        self._waiting.discard(answer)
        return result

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
        RestingPort(self._port, reactor)

    def stop(self) -> Deferred[None]:
        """Answer no more; fires when the socket is gone."""
        return stop_listening(self._port).addCallback(lambda _: os.close(self._folder))


def ask(path: Path, command: str, timeout: float = TIMEOUT) -> Any:
    """Send a command to the listener at a control socket and return its answer; blocks.

    Args:
        path: the socket.
        command: its name.
        timeout: seconds to wait for each part of the answer.

    Raises:
        ControlError: no listener answers there in time, or it says no.
    """
    with _Question(path, command, timeout) as question:
        return question.answer(timeout)


def ask_patiently(
    path: Path,
    command: str,
    wait: Callable[[], object],
    *,
    soon: float = SOON,
    timeout: float = TIMEOUT,
    then: str,
) -> Any:
    """Send a command that may have to wait for the disk, and return its answer; blocks.

    It is sent once the listener has answered something else: one that is frozen never gets it, and
    so does not carry it out later, when nobody waits for it any more.

    Args:
        path: the socket.
        command: its name.
        wait: called once when the answer is not there soon, though the listener is well.
        soon: seconds that a listener which is well may take to say anything.
        timeout: seconds that the command may wait for the disk.
        then: what becomes of the command after that.

    Raises:
        ControlError: no listener answers there, or not in time, or it says no.
    """
    with _Question(path, "", soon) as another, suppress(Refusal):
        another.answer(soon)
    with _Question(path, command, soon) as question:
        if not question.is_answered(soon):
            wait()
            if not question.is_answered(timeout):
                raise ControlError(
                    f"the listener's disk still takes nothing after {timeout:g} s: `ingest status`"
                    f" says why; {command} {then}"
                )
        return question.answer(soon)


class _Question:
    """A command that was sent to a listener; a context manager."""

    def __init__(self, path: Path, command: str, timeout: float) -> None:
        """Send it.

        Raises:
            ControlError: nobody takes it.
        """
        self._path = path
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            with self._explained(timeout):
                self._connect(timeout)
                self._connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        except ControlError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def is_answered(self, timeout: float) -> bool:
        """Tell whether the first part of the answer comes within so many seconds."""
        readable, _, _ = select.select([self._connection], [], [], timeout)
        return bool(readable)

    def answer(self, timeout: float) -> Any:
        """Wait for the answer, so many seconds for each part.

        Raises:
            ControlError: it does not come.
            Refusal: the listener says no.
        """
        with self._explained(timeout):
            self._connection.settimeout(timeout)
            with self._connection.makefile("rb") as lines:
                reply = json.loads(lines.readline())
        if "error" in reply:
            raise Refusal(reply["error"])
        return reply["ok"]

    def _connect(self, timeout: float) -> None:
        folder, short = _shortened(self._path)
        try:
            self._connection.settimeout(timeout)
            self._connection.connect(short)
        finally:
            os.close(folder)

    @contextmanager
    def _explained(self, timeout: float) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, BlockingIOError) as error:  # or too many wait for it before us
            raise ControlError(
                f"the listener at {self._path} does not answer within {timeout:g} s:"
                f" it is frozen or overloaded{_advice(self._connection)}"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"no listener answers at {self._path}: none runs on this data folder"
            ) from error
        except (OSError, ValueError) as error:
            raise ControlError(f"no listener answers at {self._path}: {error}") from error


def _advice(connection: socket.socket) -> str:
    """Say which process does not answer at the other end, and what to do."""
    size = struct.calcsize("3i")
    try:
        # Who listens there (unix(7)), and its state: pid (comm) state ... (proc_pid_stat(5)).
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid = struct.unpack("3i", credentials)[0]
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:  # it is not of our container, or we did not get so far
        return ""
    if state in {"T", "t"}:
        return f"; pid {pid} was stopped, and goes on by: kill -CONT {pid}"
    return f"; if pid {pid} stays so, restart it: nothing that was acknowledged is lost"


def _shortened(path: Path) -> tuple[int, str]:
    """Name a socket so that it fits its 108 bytes (unix(7)), however deep its folder is.

    Returns:
        A descriptor of the folder, which must stay open while the name is in use, and the name.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return folder, f"/proc/self/fd/{folder}/{path.name}"
