"""What is done in a thread again and again, and what the registry has, which is read so."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ingest.devices.registry import Registry, RegistryError
from ingest.watch.known import Known

_AFTER_A_FAILURE: Final = 2.0  # seconds
_REGISTRY: Final = 5.0  # seconds between two looks at the registry
_REGISTRY_WHOLE: Final = 60.0  # and between two readings, though no device has changed


class Repeated:
    """Something that is done in a thread again and again; it says itself when next."""

    _log = Logger(namespace="ingest.watch")

    def __init__(
        self,
        what: str,
        call: Callable[[], float],
        reactor: IReactorTime,
        in_thread: Callable[..., Deferred[Any]],
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Nothing is done before `start`.

        Args:
            what: is done, for people.
            call: does it, and returns seconds until it is done again.
            reactor: the reactor.
            in_thread: calls something in a thread.
            failed: is told why it failed, or an empty text when it did not.
        """
        self._what = what
        self._call = call
        self._reactor = reactor
        self._in_thread = in_thread
        self._tell = failed
        self._failure = ""
        self._is_running = False
        self._going: Deferred[None] | None = None
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self._is_running = True
        self._go()

    def stop(self) -> Deferred[None]:
        """End; fires when what is under way is done."""
        self._is_running = False
        if self._next is not None and self._next.active():
            self._next.cancel()
        return self._going or succeed(None)

    def _go(self) -> None:
        self._going = self._in_thread(self._call).addCallbacks(self._done, self._failed)

    def _done(self, seconds: float) -> None:
        if self._failure:
            self._log.info("{what} works again", what=self._what)
        self._failure = ""
        self._tell("")
        self._again(seconds)

    def _failed(self, failure: Failure) -> None:
        text = failure.getErrorMessage()
        if text != self._failure:
            if failure.check(OSError, sqlite3.Error, RegistryError):
                self._log.error("{what} fails: {text}", what=self._what, text=text)
            else:
                self._log.failure("{what} fails", failure, what=self._what)
        self._failure = text
        self._tell(text)
        self._again(_AFTER_A_FAILURE)

    def _again(self, seconds: float) -> None:
        if self._is_running:
            self._next = self._reactor.callLater(seconds, self._go)


class RegistryReader:
    """Reads the registry when it has changed."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._revision = b""
        self._read_at = 0.0

    def look(self) -> float:
        """Read it if that is due.

        Returns:
            Seconds until the next look.

        Raises:
            RegistryError: it can't be read.
        """
        if not self._known.layout.devices.exists():
            return _REGISTRY  # no device was added yet
        with Registry(self._known.layout.devices, make=False) as registry:
            revision = registry.revision()
            is_old = time.monotonic() - self._read_at > _REGISTRY_WHOLE
            if revision != self._revision or is_old:
                self._known.roster.note_registry(registry.devices(), time.time())
                self._revision, self._read_at = revision, time.monotonic()
        return _REGISTRY
