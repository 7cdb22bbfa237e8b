"""A tail as server-sent events (HTML, section 9.2).

Each event is what one read brought: `data` is a JSON array of lines, `id` the place behind them.
A browser that lost its connection sends the last id, and gets what it missed. Nothing is read
while it does not take what it has.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

from ingest.watch.tailing import Lines, Tail

EVENTS: Final = "text/event-stream"
_POLL: Final = 0.25
"""Seconds between two looks at a log that holds nothing new."""
_COMMENT: Final = 15.0
"""Seconds between two comments: proxies cut what is quiet for 30."""
_AFTER_A_FAILURE: Final = 2.0

InThread = Callable[..., Deferred[Any]]


@implementer(IPushProducer)
class Stream:
    """One browser's tail."""

    _log = Logger(namespace="ingest.watch")

    def __init__(
        self, request: Request, tail: Tail, reactor: IReactorTime, in_thread: InThread
    ) -> None:
        """Answer a request until whoever sent it goes away.

        Args:
            request: the request.
            tail: what is read; it is closed at the end.
            reactor: the reactor.
            in_thread: calls something in a thread.
        """
        self._request = request
        self._tail = tail
        self._reactor = reactor
        self._in_thread = in_thread
        self._is_reading = False
        self._is_paused = False
        self._is_over = False
        self._is_first = True
        self._next: IDelayedCall | None = None
        self._comments = LoopingCall(self._comment)
        self._comments.clock = reactor
        self.done = request.notifyFinish().addBoth(lambda _: self._end())

    def start(self) -> None:
        """Begin."""
        request = self._request
        request.setHeader("Content-Type", EVENTS)
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Accel-Buffering", "no")  # nginx would keep what is to be seen at once
        request.write(b": lines of the log\n\n")
        request.registerProducer(self, True)
        self._comments.start(_COMMENT, now=False)
        self._read()

    def pauseProducing(self) -> None:
        """Called when the browser does not take what it has."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Called when it takes more."""
        self._is_paused = False
        if self._next is None:
            self._read()

    def stopProducing(self) -> None:
        """Called when the connection is lost."""

    def _comment(self) -> None:
        if not self._is_paused:
            self._request.write(b": still here\n\n")

    def _read(self) -> None:
        self._next = None
        if self._is_reading or self._is_paused or self._is_over:
            return
        self._is_reading = True
        self._in_thread(self._look).addCallbacks(self._came, self._failed)

    def _look(self) -> tuple[bytes, bool]:
        """Read, and write the events; in a thread, since they may be long.

        Returns:
            The events, and whether there may be more at once.
        """
        lines = self._tail.look()
        events = [_event("missing", lines.missing, lines)] if lines.missing else []
        if lines.lines or self._is_first:  # the first event tells the place, whatever comes
            self._is_first = False
            # As text: a line may hold what a browser's JSON takes for another number.
            texts = [line.decode("utf-8", "replace") for line in lines.lines]
            events.append(_event("lines", texts, lines))
        return b"".join(events), lines.more

    def _came(self, found: tuple[bytes, bool]) -> None:
        self._is_reading = False
        if self._is_over:
            self._tail.close()
            return
        events, more = found
        if events:
            self._request.write(events)
        self._again(0.0 if more else _POLL)

    def _failed(self, failure: Failure) -> None:
        self._is_reading = False
        if self._is_over:
            self._tail.close()
            return
        if not failure.check(OSError):
            self._log.failure("a tail failed", failure)
        self._request.write(
            b"event: trouble\ndata: " + orjson.dumps(failure.getErrorMessage()) + b"\n\n"
        )
        self._again(_AFTER_A_FAILURE)

    def _again(self, seconds: float) -> None:
        self._next = self._reactor.callLater(seconds, self._read)

    def _end(self) -> None:
        self._is_over = True
        if self._comments.running:
            self._comments.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()
        if not self._is_reading:
            self._tail.close()


def _event(kind: str, value: object, lines: Lines) -> bytes:
    place = lines.place.to_json().encode()
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), place, orjson.dumps(value))
