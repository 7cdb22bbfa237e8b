"""The listener's HTTP server: for Prometheus, and for those who look whether it is well."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ingest.listener.doors import DoorError, describe, listen, parse_door
from ingest.ops.accepting import RestingPort, stop_listening
from ingest.ops.metrics import CONTENT_TYPE, Metrics
from ingest.ops.status import RESTART_HELPS, TAKES_FRAMES, Summary
from ingest.ops.web import Answers, make_factory
from ingest.service.parts import IListenerReactor
from ingest.service.process import StartError

_BEAT = 0.25  # seconds between two looks how late the reactor is


@dataclass(frozen=True)
class View:
    """What the server sees of the listener.

    Attributes:
        summary: returns a snapshot.
        health: returns `Summary.health` and `Summary.reason` alone.
        is_running: tells whether it was not told to stop.
    """

    summary: Callable[[], Summary]
    health: Callable[[], tuple[str, str]]
    is_running: Callable[[], bool]

    def not_live(self) -> str:
        """Return why only a restart helps; empty if it is not so."""
        kind, reason = self.health()
        return f"{kind}: {reason}" if kind in RESTART_HELPS else ""

    def not_ready(self) -> str:
        """Return why no frames are taken; empty if they are."""
        if not self.is_running():
            return "stopping: what was accepted becomes durable, and nothing more is taken"
        kind, reason = self.health()
        return "" if kind in TAKES_FRAMES else f"{kind}: {reason}"


class Web(Service):
    """Answers over HTTP, until the last frame is on disk."""

    def __init__(
        self,
        endpoint: str,
        token_file: Path | None,
        view: View,
        metrics: Metrics,
        reactor: IListenerReactor,
    ) -> None:
        """Make sense of the endpoint.

        Args:
            endpoint: where to listen, a server endpoint of Twisted.
            token_file: holds the bearer token of those who read the metrics, if they need one.
            view: what is seen of the listener.
            metrics: what is observed.
            reactor: whose sockets and clock to use.

        Raises:
            StartError: it makes no sense.
        """
        self._token_file = token_file
        self._view = view
        self._metrics = metrics
        self._reactor = reactor
        self._beat: IDelayedCall | None = None
        self._answers = Answers(view.not_live, view.not_ready, self._render, CONTENT_TYPE)
        self._log = Logger(namespace="ingest")
        try:
            self._door = parse_door(endpoint, reactor)
        except DoorError as error:
            raise _refused(error) from None
        if self._door.is_proxied:
            raise StartError(f"--http {endpoint}: behind a PROXY header nobody can be on loopback")

    def startService(self) -> None:
        """Begin to answer.

        Raises:
            StartError: the system does not let us, or others could read the metrics.
        """
        if self._token_file is not None:
            self._answers.token = _read_token(self._token_file)
        try:
            self._port = listen(self._door, make_factory(self._answers))
        except DoorError as error:
            raise _refused(error) from None
        RestingPort(self._port, self._reactor)
        if not (self._answers.token or _is_local(self._port)):
            self._port.stopListening()
            raise StartError(
                f"--http {self._door.text}: other hosts could read the metrics; give a token by"
                " --http-token-file FILE, or listen on 127.0.0.1: tcp:7680:interface=127.0.0.1"
            )
        self._log.info("metrics and health on {address}", address=describe(self._port))
        self._expect_beat()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Answer no more."""
        super().stopService()
        if self._beat is not None:
            self._beat.cancel()
        return stop_listening(self._port)

    def reload(self) -> None:
        """Read the token again; where that fails, the old one goes on to count."""
        if self._token_file is not None:
            try:
                self._answers.token = _read_token(self._token_file)
            except StartError as error:
                self._log.error("the token stays as it is: {error}", error=str(error))

    def _render(self) -> Deferred[bytes]:
        # In a thread: there may be thousands of descriptors, and the kernel lists them slowly.
        is_ready = not self._view.not_ready()
        return deferToThread(self._metrics.render, self._view.summary(), is_ready=is_ready)

    def _expect_beat(self) -> None:
        due = self._reactor.seconds() + _BEAT
        self._beat = self._reactor.callLater(_BEAT, self._observe_beat, due)

    def _observe_beat(self, due: float) -> None:
        self._expect_beat()
        self._metrics.reactor_seconds.observe(max(0.0, self._reactor.seconds() - due))


def _refused(error: DoorError) -> StartError:
    return StartError(f"--http {error.text}: {error.reason}")


def _read_token(path: Path) -> str:
    """Read a token: all of the file's text, but for white space around it.

    Raises:
        StartError: there is none.
    """
    try:
        token = path.read_text("ascii").strip()
    except OSError as error:
        raise StartError(f"--http-token-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"--http-token-file {path}: a token is of ASCII characters") from None
    if not token:
        raise StartError(f"--http-token-file {path}: it is empty")
    return token


def _is_local(port: IListeningPort) -> bool:
    """Tell whether only this machine's programs can connect."""
    address: Any = port.getHost()
    return isinstance(address, UNIXAddress) or ip_address(address.host).is_loopback
