"""Devices that only answer: the shell that connects to them, again and again.

A device is asked every so often, or the connection to it stays. What it replies are frames of that
device like any other: the same `Connection` carries them to the journal.

A device that is down costs little: it is tried less and less often, at random moments, and said
once when it goes down and once when it is back.
"""

import os
import random
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from math import ceil

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ingest.listener.connection import Connection
from ingest.listener.fleet import Fleet
from ingest.wire.conversation import Claim, Event, Standing
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.poll import Poll, Question

_SPREAD = 10.0
"""Seconds over which first calls are spread at most: not all devices are to be asked at once."""
_SPREAD_EACH = 0.01  # seconds; a few devices are asked soon
_TOGETHER = 0.0625
"""Calls that are due within so many seconds are made in one turn of the reactor, and what they
bring tends to come together too, and to be written together: so a thousand devices cost half as
much. A power of two, of which a second has a whole number without a rest."""
_LONG = 10 * _TOGETHER  # seconds; what is to be waited for no longer than that is done on time
_RETRY = 1.0  # seconds after a first failure, doubled by each further one
_LONGEST = 300.0
"""Seconds between two calls to a device that is down; more only if `every` is longer."""
_MOST_DOUBLINGS = 16
_NETWORK = ("tcp", "tls", "ssl")  # kinds of endpoints that have a host and a port
_IN_BRACKETS = re.compile(r"(?<=[:=])\[([0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*(?:%\w+)?)\](?=:)")
_UNESCAPED_COLON = re.compile(r"(?<!\\):")


class DialError(Exception):
    """A `[[dial]]` makes no sense; the text is one line that says which and why."""


@dataclass(frozen=True, slots=True)
class Dial:
    """A device that is dialled.

    Attributes:
        connect: where it is: a client endpoint of Twisted.
        question: what it is asked, and how it replies.
        every: seconds from one question to the next; None where the connection stays.
    """

    connect: str
    question: Question
    every: float | None

    def __str__(self) -> str:
        how = "stay" if self.every is None else f"every {self.every:g} s"
        return f"{self.question.device} at {self.connect} ({how})"


@dataclass(frozen=True)
class DialCounts:
    """What became of the calls to all devices.

    Attributes:
        devices: how many are dialled.
        down: how many of them did not answer the last time.
        calls: how often one was called since the start.
        failures: how often it did not answer.
    """

    devices: int
    down: int
    calls: int
    failures: int


def check_dials(dials: Iterable[Dial], reactor: object) -> None:
    """See that the endpoints make sense.

    Raises:
        DialError: one does not.
    """
    for number, dial in enumerate(dials, 1):
        try:
            _endpoint_of(dial, reactor)
        except Exception as fault:  # each kind of endpoint has errors of its own
            raise DialError(
                f"[[dial]] table {number}, {dial.question.device}: connect = {dial.connect!r}:"
                f" {fault}; the form is tcp:192.0.2.1:12345, tcp:[2001:db8::1]:12345 or"
                " tls:plant.example:12345"
            ) from None


def _endpoint_of(dial: Dial, reactor: object) -> IStreamClientEndpoint:
    """Make the endpoint of a device.

    An address of IPv6 may stand in brackets; Twisted wants its colons escaped. What gives up after
    the `timeout` is the line, and not the endpoint, which else does so after 30 s.
    """
    text = _IN_BRACKETS.sub(lambda match: match[1].replace(":", r"\:"), dial.connect)
    kind, *words = _UNESCAPED_COLON.split(text)
    if kind in _NETWORK:
        _check_address(words)
        if not any(word.startswith("timeout=") for word in words):
            text += f":timeout={ceil(dial.question.timeout) + 1}"
    endpoint: IStreamClientEndpoint = clientFromString(reactor, text)
    return endpoint


def _check_address(words: Collection[str]) -> None:
    """See what Twisted sees only when it connects, or says in words of its own."""
    ports = [word for word in words if re.fullmatch(r"(?:port=)?-?[0-9]+", word)]
    if not ports or not 0 < int(ports[0].removeprefix("port=")) < 65536:
        raise ValueError("a port is from 1 to 65535")
    if "" in words:
        raise ValueError("a host is wanted")


class Dialer:
    """Calls devices. Its owner says which, and tells it when to stop."""

    def __init__(self, fleet: Fleet, reactor: IReactorTime) -> None:
        """Begin without devices.

        Args:
            fleet: which the connections join.
            reactor: whose sockets and clock to use.
        """
        self._fleet = fleet
        self._reactor = reactor
        self._lines: dict[str, _Line] = {}
        self._calls = self._failures = 0  # of devices that are dialled no more

    def dial(self, dials: Collection[Dial]) -> None:
        """Call these devices from now on, and no others; one that has not changed goes on.

        Raises:
            DialError: an endpoint makes no sense; nothing has changed.
        """
        check_dials(dials, self._reactor)
        wanted = {dial.question.device: dial for dial in dials}
        for device, line in list(self._lines.items()):
            if wanted.get(device) != line.dial:
                del self._lines[device]
                self._hang_up(line)
        for device, dial in wanted.items():
            if device not in self._lines:
                self._lines[device] = line = _Line(dial, self._fleet, self._reactor)
                line.begin(min(_SPREAD, _SPREAD_EACH * len(wanted)))

    def stop(self) -> None:
        """Call nobody; connections that are there are the fleet's to end."""
        for line in self._lines.values():
            self._hang_up(line)
        self._lines.clear()

    def counts(self) -> DialCounts:
        """Return what became of the calls so far."""
        lines = self._lines.values()
        return DialCounts(
            len(lines),
            sum(line.is_down for line in lines),
            self._calls + sum(line.calls for line in lines),
            self._failures + sum(line.failures for line in lines),
        )

    def _hang_up(self, line: "_Line") -> None:
        self._calls += line.calls
        self._failures += line.failures
        line.hang_up()


class _Line:
    """The line to one device.

    Attributes:
        dial: the device.
        calls: how often it was called.
        failures: how often it did not answer.
        is_down: whether it did not answer the last time.
    """

    _log = Logger(namespace="ingest.dialer")

    def __init__(self, dial: Dial, fleet: Fleet, reactor: IReactorTime) -> None:
        self.dial = dial
        self.calls = self.failures = 0
        self.is_down = False
        self._fleet = fleet
        self._reactor = reactor
        self._endpoint = _endpoint_of(dial, reactor)
        self._factory = _CallFactory(fleet, dial.question, self)
        self._in_a_row = 0  # failures
        self._pending: Deferred[IProtocol] | None = None
        self._due = 0.0  # when it was to be called the last time
        self._is_over = False
        self._timer: IDelayedCall

    def begin(self, spread: float) -> None:
        """Begin to call, at some moment of the next `spread` seconds."""
        self._call_in(random.uniform(0.0, spread))

    def hang_up(self) -> None:
        """Call no more; a connection that is there comes to its end."""
        self._is_over = True
        if self._timer.active():
            self._timer.cancel()
        if self._pending is not None:
            self._pending.cancel()
        elif self._factory.call is not None:
            self._factory.call.abort()

    def answered(self) -> None:
        """Called when the device has replied."""
        self._in_a_row = 0
        if self.is_down:
            self.is_down = False
            self._log.info("{device} at {where} answers again", **self._who())

    def ended(self, reason: str) -> None:
        """Called when a call is over.

        Args:
            reason: why it brought nothing; empty if it did.
        """
        if self._is_over:
            return
        if reason:
            self._failed(reason)
        every = self.dial.every
        if reason or every is None:
            self._call_in(self._pause())
        else:
            self._call_in(self._until_next(every))

    def _who(self) -> dict[str, str]:
        return {"device": self.dial.question.device, "where": self.dial.connect}

    def _call_in(self, seconds: float) -> None:
        self._due = self._fleet.now() + seconds
        late = -self._due % _TOGETHER if seconds > _LONG else 0.0
        self._timer = self._reactor.callLater(seconds + late, self._call)

    def _until_next(self, every: float) -> float:
        """Return how long to wait until it is time again; times that have passed are left out.

        It counts from when the last call was due, not from when it was made: devices that were all
        called at once, because the process was stopped for a while, are then spread as before.
        """
        return every - max(0.0, self._fleet.now() - self._due) % every

    def _pause(self) -> float:
        """Return how long to wait after a failure, or before a lost connection is made again."""
        doubled = _RETRY * 2.0 ** min(self._in_a_row, _MOST_DOUBLINGS)
        longest = max(self.dial.every or 0.0, min(doubled, _LONGEST))
        return random.uniform(longest / 2, longest)

    def _failed(self, reason: str) -> None:
        self.failures += 1
        self._in_a_row += 1
        if not self.is_down:
            self.is_down = True
            self._log.warn(
                "{device} at {where} is down: {reason}; the next line tells when it answers",
                reason=reason, **self._who(),
            )  # fmt: skip

    def _call(self) -> None:
        try:
            may_call = self._may_call()
        except Exception:
            may_call = False  # or nobody would ever call again
            self._log.failure("{device} is not called now", device=self.dial.question.device)
        if not may_call:
            self._call_in(self.dial.every or _SPREAD)
            return
        self.calls += 1
        self._pending = connected = self._endpoint.connect(self._factory)
        connected.addTimeout(self.dial.question.timeout, self._reactor)
        connected.addCallbacks(self._connected, self._not_connected)

    def _may_call(self) -> bool:
        """Tell whether the device may be called now, and whether that would be of any use."""
        if self._fleet.paused or self._fleet.refusal() is not None:
            return False  # the disk takes nothing, or there is no room
        try:
            self._fleet.identities.check_claim(
                Claim(self.dial.question.device, Standing.REGISTERED), 0
            )
        except PeerError as refusal:
            if refusal.code is ErrorCode.AUTH_FAILED:
                self._failed("it is not registered, or disabled")
            return False
        return True

    def _connected(self, _: IProtocol) -> None:
        self._pending = None

    def _not_connected(self, failure: Failure) -> None:
        self._pending = None
        self.ended(_in_words(failure, self.dial.question.timeout))


class _CallFactory(Factory):
    """Makes the connections of one line, one after the other.

    Attributes:
        call: the one that is there; None in between.
    """

    noisy = False

    def __init__(self, fleet: Fleet, question: Question, line: _Line) -> None:
        self._fleet = fleet
        self._question = question
        self._line = line
        self.call: _Call | None = None

    def buildProtocol(self, addr: object) -> "_Call":  # noqa: ARG002
        """Make the connection that was just accepted."""
        self.call = _Call(self._fleet, self._question, self._line, self._gone)
        return self.call

    def _gone(self) -> None:
        self.call = None


class _Call(Connection):
    """A connection that we have made."""

    def __init__(
        self, fleet: Fleet, question: Question, line: _Line, gone: Callable[[], None]
    ) -> None:
        super().__init__(fleet, "dial", partial(Poll, question=question))
        self._line = line
        self._gone = gone
        self._question = question
        self._reason = ""

    def _end(self, error: PeerError | None) -> None:
        self._reason = "" if error is None else error.text
        super()._end(error)

    def _carry_out(self, events: Iterable[Event]) -> None:
        super()._carry_out(events)
        if self._has_answered():
            self._line.answered()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the line what has become of the call."""
        super().connectionLost(reason)
        self._gone()
        if self._has_answered():
            self._line.ended("")
        elif self._reason or reason.check(ConnectionDone):
            self._line.ended(self._reason or f"it closed without a {self._question.ending}")
        else:
            self._line.ended(_in_words(reason, self._question.timeout))

    def _has_answered(self) -> bool:
        poll = getattr(self, "_conversation", None)  # there is none where its making has failed
        return isinstance(poll, Poll) and poll.replies > 0


_TIMEOUTS = (error.TimeoutError, defer.TimeoutError, ConnectingCancelledError)


def _in_words(failure: Failure, seconds: float) -> str:
    reason = failure.value
    if isinstance(reason, _TIMEOUTS):
        return f"no connection within {seconds:g} s"
    if isinstance(reason, VerificationError):
        return "TLS: its certificate is for another name"
    if isinstance(reason, SSL.Error):
        return f"TLS: {reason.args[0][-1][-1]}" if reason.args and reason.args[0] else "TLS failed"
    if isinstance(reason, ConnectionLost):
        return "it has cut the connection"
    if isinstance(reason, ConnectError) and isinstance(reason.osError, int):
        return os.strerror(reason.osError)
    return str(reason).rstrip(".") or type(reason).__name__
