"""The service of `twistd ingest-watch`: its threads, and the page."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.application.service import MultiService
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import (
    Deferred,
    DeferredSemaphore,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorTime,
)
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import Resource
from twisted.web.server import Site

from ingest.layout import Layout
from ingest.ops.accepting import RestingPort, stop_listening
from ingest.ops.limited import Limited
from ingest.ops.notify import Notifier
from ingest.watch.access import AccessError, names_at
from ingest.watch.api import IRules, PageApi
from ingest.watch.auth import Passwords, Role
from ingest.watch.converting import Converting
from ingest.watch.known import Known
from ingest.watch.repeated import RegistryReader, Repeated
from ingest.watch.systemd import Systemd
from ingest.watch.web import Door, PageRequest, static_files

_T = TypeVar("_T")

_POLL: Final = 0.25
"""Seconds between two looks at a log that holds nothing new."""
_SHARE: Final = 0.5  # of a core that following may take
_THREADS: Final = 9
_CONNECTIONS: Final = 256
"""Connections of browsers at a time: each takes a descriptor, and each tail a file or two."""
_CHECKS: Final = 8
"""Passwords that may wait to be checked: each takes a tenth of a second."""
_AFTER_A_GUESS: Final = 0.5  # seconds until the next password is checked


class _QuietSite(Site):
    """A site that does not write a line for each request: a page that is open asks every second."""

    noisy = False
    displayTracebacks = False
    requestFactory = PageRequest

    def log(self, request: object) -> None:
        """See `Site.log`."""


class IWatchReactor(IReactorCore, IReactorTime, IReactorFromThreads):
    """What this service needs of a reactor."""


@dataclass(frozen=True)
class Settings:
    """What `twistd ingest-watch` is told.

    Attributes:
        data: the listener's data folder.
        http: where the page is, as a Twisted server endpoint.
        password_file: users and their roles; None for none.
        columns: whether closed files are made into Parquet.
        hosts: names by which a browser may call the page besides those of this machine, where
            there are no passwords.
    """

    data: Path
    http: str
    password_file: Path | None = None
    columns: bool = True
    hosts: tuple[str, ...] = ()


class WatchService(MultiService):
    """Follows the log, asks the listener, and serves the page.

    Rules, if there are any, are a child of it. SIGHUP lets them read their file again.
    """

    log = Logger(namespace="ingest.watch")

    def __init__(self, settings: Settings, reactor: Any, rules: IRules | None = None) -> None:
        """Read what must be there.

        Args:
            settings: what is wanted.
            reactor: the reactor.
            rules: what fires; None without rules.

        Raises:
            PasswordFileError: the file of passwords can't be used.
            OSError: a file of the page is missing.
        """
        super().__init__()
        self._settings = settings
        self._reactor = cast(IWatchReactor, reactor)
        self._rules = rules
        self._layout = Layout(settings.data)
        file = settings.password_file
        self._passwords = None if file is None else Passwords(file)
        self._checks = 0
        self._one_check = DeferredSemaphore(1)
        self._static = static_files()
        self._converting = Converting(self._layout) if settings.columns else None
        self._follow_pool = ThreadPool(1, 1, "follow")
        self._pool = ThreadPool(0, _THREADS, "page")
        self._ports: list[IListeningPort] = []
        self._repeated: list[Repeated] = []

    def startService(self) -> None:
        """Open the state, listen, and begin to follow.

        Raises:
            SystemExit: that can't be; a line on stderr says why.
        """
        is_there = self._layout.log_folder.is_dir()
        try:
            self._layout.create()
            self._known = Known(self._layout, self._converting)
            self._listen()
        except (OSError, ValueError, sqlite3.Error, CannotListenError, AccessError) as error:
            print(no_start(error), file=sys.__stderr__)
            raise SystemExit(1) from None
        if not is_there:
            folder = self._layout.log_folder
            self.log.warn("no listener has used {folder} yet; is --data right?", folder=str(folder))
        super().startService()  # first: rules that can't start end the process, without threads
        signal.signal(signal.SIGHUP, self._hang_up)
        self._follow_pool.start()
        self._pool.start()
        known = self._known
        self._repeated = [
            Repeated("following the log", self._follow, self._reactor, self._in_follow, self._note),
            Repeated("asking the listener", known.contact.look, self._reactor, self._in_thread),
            Repeated(
                "reading the registry", RegistryReader(known).look, self._reactor, self._in_thread
            ),
        ]
        if self._converting is not None:
            step = self._converting.step
            self._repeated.append(Repeated("making Parquet", step, self._reactor, self._in_thread))
        for each in self._repeated:
            each.start()
        self._systemd = Systemd(Notifier(os.environ), known.in_words, self._reactor)
        # Only then signals, and what else comes, are answered.
        self._reactor.callWhenRunning(self._systemd.setServiceParent, self)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Answer no more, finish what is under way, and keep the place."""
        if self._systemd.running:
            yield self._systemd.disownServiceParent() or succeed(None)
        for port in self._ports:
            yield stop_listening(port)
        self._api.asking.stop()
        if self._converting is not None:
            self._converting.stop()
        for each in self._repeated:
            yield each.stop()
        yield super().stopService() or succeed(None)
        yield self._in_follow(self._known.follower.close)
        self._follow_pool.stop()
        self._pool.stop()

    def _hang_up(self, *_: object) -> None:
        if self._rules is not None:
            self._reactor.callFromThread(self._reload, self._rules)

    def _reload(self, rules: IRules) -> None:
        with self._systemd.reloading():
            rules.reload()

    def _listen(self) -> None:
        """Listen, unless the page must not be reached there: nobody is let in before that is known.

        Raises:
            AccessError: it must not.
            OSError, ValueError, CannotListenError: that can't be.
        """
        endpoint = self._settings.http
        root = Resource()
        site = _QuietSite(root)
        limited = Limited(cast(IProtocolFactory, site), _CONNECTIONS)
        outcome: list[Any] = []
        maybeDeferred(serverFromString(self._reactor, endpoint).listen, limited).addBoth(
            outcome.append
        )
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        port = cast(IListeningPort, outcome[0])
        self._ports.append(port)
        RestingPort(port, self._reactor)
        address = port.getHost()
        names = names_at(
            endpoint, address, self._settings.hosts, has_passwords=self._passwords is not None
        )
        self._api = PageApi(self._known, self._reactor, self._in_thread, self._rules)
        self._static.putChild(b"api", self._api.resource())
        check = None if self._passwords is None else self._check
        site.resource = Door(self._static, check, names)
        self.log.info("the page is at {where}", where=_described(endpoint, address))

    def _follow(self) -> float:
        """Take a step through the log; in its thread."""
        begun = time.thread_time()
        more = self._known.follower.step()
        took = time.thread_time() - begun
        return took * (1 / _SHARE - 1) if more else _POLL

    def _note(self, trouble: str) -> None:
        self._known.trouble = trouble

    def _check(self, authorization: bytes) -> Role | Deferred[Role | None] | None:
        """Return the role that a header proves; see `Door`."""
        assert self._passwords is not None
        role = self._passwords.remembered(authorization)
        if role is not None or not authorization or self._checks >= _CHECKS:
            return role
        self._checks += 1
        return self._one_check.run(self._check_slowly, authorization).addBoth(self._checked)

    def _check_slowly(self, authorization: bytes) -> Deferred[Role | None]:
        assert self._passwords is not None
        done: Deferred[Role | None] = self._in_thread(self._passwords.check, authorization)
        # Who guesses waits, so guesses take a fifth of a core at most.
        return done.addCallback(
            lambda role: role or deferLater(self._reactor, _AFTER_A_GUESS, lambda: None)
        )

    def _checked(self, outcome: _T) -> _T:
        self._checks -= 1
        return outcome

    def _in_follow(self, call: Callable[..., _T], *values: Any) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._follow_pool, call, *values)

    def _in_thread(self, call: Callable[..., _T], *values: Any) -> Deferred[_T]:
        return deferToThreadPool(self._reactor, self._pool, call, *values)


def _described(endpoint: str, address: IAddress) -> str:
    """Say where the page is, so that one may click on it."""
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    kind = "https" if endpoint.startswith("ssl:") else "http"
    if isinstance(address, IPv6Address):
        return f"{kind}://[{address.host}]:{address.port}/"
    return f"{kind}://{address.host}:{address.port}/"  # type: ignore[attr-defined]


def no_start(error: Exception) -> str:
    """Say why nothing starts, in one line, and what to do about a folder or a file."""
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"ingest-watch: can't start: {error.filename}: {error.strerror};"
            " check --data, and run it as the user of the listener"
        )
    return f"ingest-watch: can't start: {error}"
