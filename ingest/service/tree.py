"""The service tree of a listener: what starts in which order, and stops in the reverse."""

import fcntl
import gc
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Collection, Generator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
    IReactorUNIX,
    IStreamServerEndpoint,
)
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from ingest.devices.registry import Registry, RegistryError
from ingest.journal.events import Event
from ingest.journal.file import FileJournal
from ingest.journal.writer import HOLD
from ingest.layout import Layout, open_own
from ingest.listener.authentication import Authenticator
from ingest.listener.books import Account, total
from ingest.listener.fleet import Hub
from ingest.log.files import ACTIVE
from ingest.ops.control import Command, ControlSocket
from ingest.service.settings import Settings, SettingsError

BACKLOG = 4096
"""Connections that may wait to be accepted: a fleet that reconnects comes all at once."""

DRAIN = 10.0
"""Seconds that stopping may take: for frames to become durable and devices to hear of it."""

_REVOCATIONS = 0.25  # seconds between two looks at what was revoked
_ROUND = 15.0  # seconds between two rounds at most, each of which notes who was seen
_COLLECT_AFTER = 20_000
"""New containers between two passes of the garbage collector. One read brings a thousand maps that
are gone before the next: they are no reason to look for garbage, as they are by Python's 700."""

_DRAIN_SWEEP = 0.5


class StartError(Exception):
    """The listener can't start; the text is one line for a person."""


class IListenerReactor(IReactorCore, IReactorFromThreads, IReactorTime, IReactorUNIX):
    """What a listener needs of a reactor."""


_journal_log = Logger(namespace="ingest.journal")


def _report(event: Event) -> None:
    """Put an event of the journal into the log; what it says is a field, never a format."""
    level = LogLevel.warn if event.is_warning else LogLevel.info
    _journal_log.emit(level, "{event}", event=event)


class ListenerService(Service):
    """A listener: its ports, its connections, its journal and its timers."""

    def __init__(
        self, settings: Settings, reactor: IListenerReactor, reread: Callable[[], Settings]
    ) -> None:
        """Make the service.

        Args:
            settings: by which to start.
            reactor: whose sockets, threads and clock to use.
            reread: gives the settings afresh, for SIGHUP; may raise SettingsError.

        Raises:
            StartError: an endpoint makes no sense.
        """
        self.setName("ingest")
        self._settings = settings
        self._reactor = reactor
        self._reread = reread
        self._layout = Layout(settings.data)
        self._log = Logger(namespace="ingest")
        self._ports: list[IListeningPort] = []
        self._timers: list[LoopingCall] = []
        self._endpoints = [_endpoint(reactor, text) for text in settings.listen]

    def startService(self) -> None:
        """Open the files, bind the ports and begin.

        Raises:
            SystemExit: one of them can't be had; a line on stderr says which and why.
        """
        try:
            self._start()
        except (StartError, RegistryError, CannotListenError, OSError, sqlite3.Error) as error:
            # twistd sends sys.stderr to its log; this line is for who started it.
            print(f"ingest: can't start: {_in_words(error)}", file=sys.__stderr__)
            raise SystemExit(1) from None
        super().startService()

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Take no more connections, make all frames durable, say so, and close the files."""
        yield maybeDeferred(super().stopService)
        self._stop_timers()
        yield self._control.stop()
        yield DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        self._hub.check_times()
        sweep = LoopingCall(self._hub.check_times)
        sweep.clock = self._reactor
        sweep.start(_DRAIN_SWEEP, now=False)
        deadline = self._reactor.callLater(DRAIN, self._hub.abort)
        yield self._hub.stop()
        sweep.stop()
        if deadline.active():
            deadline.cancel()
        yield deferToThread(self._journal.close)
        self._authenticator.stop()
        self._save_seen(self._hub.take_seen())
        self._registry.close()
        os.close(self._lock)
        self._log.info("stopped: all acknowledged frames are on disk")

    def _start(self) -> None:
        self._layout.create()
        self._lock = _lock(self._layout)
        _raise_file_limit()
        self._registry = Registry(self._layout.devices)
        self._authenticator = Authenticator(self._registry, self._reactor)
        self._hub = Hub(self._settings, self._reactor, self._registry, self._authenticator)
        for text, endpoint in zip(self._settings.listen, self._endpoints, strict=True):
            self._ports.append(_listen(text, endpoint, self._hub))
        self._journal = FileJournal(
            self._layout,
            self._settings.journal_policy(),
            self._reactor.callFromThread,
            self._hub,
            _report,
        )
        self._journal.start()
        self._hub.journal = self._journal
        self._authenticator.start()
        commands: dict[str, Command] = {
            "hold": self._hold,
            "release": self._journal.release_hold,
            "rotate": self._rotate,
            "status": self._status,
        }
        self._control = ControlSocket(self._reactor, self._layout.control, commands)
        self._start_timers()
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        self._announce()
        _spare_the_collector()

    def _start_timers(self) -> None:
        settings = self._settings
        self._every(min(settings.handshake_timeout, 4.0) / 4, self._hub.check_times)
        self._every(_REVOCATIONS, self._hub.check_revocations)
        self._every(min(_ROUND, settings.idle_timeout / 4 or _ROUND), self._go_round)

    def _stop_timers(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.running:  # one whose call has failed is not
                timer.stop()

    def _every(self, seconds: float, call: Callable[[], object]) -> None:
        timer = LoopingCall(call)
        timer.clock = self._reactor
        timer.start(seconds, now=False).addErrback(self._timer_failed, call)
        self._timers.append(timer)

    def _timer_failed(self, failure: Failure, call: Callable[[], object]) -> None:
        self._log.failure("{call} failed and is tried again", failure, call=call.__name__)
        self._reactor.callLater(1.0, self._every, 1.0, call)

    def _announce(self) -> None:
        for port in self._ports:
            self._log.info("listening on {address}", address=_describe(port))
        self._log.info("logging to {path}", path=str(self._layout.log_folder / ACTIVE))
        count = self._registry.count()
        self._log.info("{count} devices may connect", count=count)
        if not count:
            self._log.info(
                "add one with: ingest --data {data} device add NAME", data=str(self._layout.data)
            )

    def reload(self) -> None:
        """Re-read the settings and reopen the log. Ports, data folder and durability stay."""
        self._journal.reopen()
        try:
            settings = self._reread()
        except SettingsError as error:
            self._log.error("the settings stay as they are: {error}", error=str(error))
            return
        self._settings = settings
        self._hub.set_settings(settings)
        self._journal.set_policy(settings.journal_policy())
        self._stop_timers()
        self._start_timers()
        self._log.info("the log is reopened and the settings are read again")

    def _rotate(self) -> Deferred[object]:
        done: Deferred[object] = Deferred()
        self._journal.rotate(lambda closed: done.callback(closed and closed.name))
        return done

    def _hold(self) -> Deferred[object]:
        done: Deferred[object] = Deferred()
        self._journal.hold(lambda: done.callback(HOLD))
        return done

    def _status(self) -> dict[str, object]:
        accounts = self._hub.accounts()
        trouble = self._journal.health
        return {
            "health": "ok" if trouble is None else trouble.kind,
            "reason": "" if trouble is None else trouble.reason,
            "connections": len(self._hub),
            "devices_connected": len(list(self._hub.devices())),
            "waiting_bytes": self._journal.backlog,
            "errors": self._hub.books.errors,
            "total": _account_fields(total(accounts.values())),
            "devices": {name: _account_fields(account) for name, account in accounts.items()},
        }

    @inlineCallbacks
    def _go_round(self) -> Generator[Deferred[Any], Any, None]:
        yield self._hub.go_round()
        yield deferToThread(self._save_seen, self._hub.take_seen())

    def _save_seen(self, seen: Collection[tuple[str, str, str]]) -> None:
        if seen:
            # A full disk is the journal's to tell of; who is seen will be noted the next time.
            # The registry is this thread's own.
            with suppress(RegistryError), Registry(self._layout.devices) as registry:
                registry.record_seen(seen)


def _account_fields(account: Account) -> dict[str, object]:
    fields = asdict(account)
    # `asdict` copies a Counter as if it counted its items.
    return fields | {
        "refused_frames": dict(account.refused_frames),
        "waiting_frames": account.waiting_frames,
    }


def _endpoint(reactor: IListenerReactor, text: str) -> IStreamServerEndpoint:
    try:
        return cast(IStreamServerEndpoint, serverFromString(reactor, text))
    except Exception as error:  # each kind of endpoint has errors of its own, OpenSSL's among them
        raise StartError(f"--listen {text}: no such endpoint: {error}") from None


def _listen(text: str, endpoint: IStreamServerEndpoint, hub: Hub) -> IListeningPort:
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    endpoint.listen(hub).addCallbacks(ports.append, failures.append)
    if failures:
        error = failures[0].value
        reason = getattr(error, "socketError", None) or error
        raise StartError(f"--listen {text}: {getattr(reason, 'strerror', None) or reason}")
    if not ports:
        raise StartError(f"--listen {text}: this endpoint does not listen at once")
    port = ports[0]
    if hasattr(port, "fileno"):
        # Whatever the endpoint says: the default of 50 refuses most of a fleet that comes at once.
        with socket.fromfd(port.fileno(), socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.listen(BACKLOG)
    return port


def _describe(port: IListeningPort) -> str:
    address: Any = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return os.fsdecode(getattr(address, "name", None) or b"a socket")
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _lock(layout: Layout) -> int:
    """Hold the folder, so that no second listener writes the same log."""
    fd = open_own(layout.lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StartError(f"{layout.data} is in use by another listener") from None
    return fd


def _spare_the_collector() -> None:
    """Let the garbage collector pass seldom, and over nothing that is there since the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
