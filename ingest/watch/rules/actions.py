"""Programs that are told that a rule fires or has cleared: over HTTP, or by running them."""

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from signal import SIGKILL
from time import time
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import (
    IDelayedCall,
    IProcessTransport,
    IReactorTime,
)
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.internet.protocol import Protocol as ByteProtocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http import stringToDatetime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from ingest.watch.rules.mailbox import Mailbox
from ingest.watch.rules.model import MailServer, Target
from ingest.watch.rules.phases import Event, in_utc
from ingest.watch.rules.receiver import (
    PATIENCE,
    DeliveryError,
    IActionReactor,
    Receiver,
    in_one_line,
    is_silent,
)

_T = TypeVar("_T")

PROGRAM_PATIENCE: Final = 60.0
"""Seconds that a program may run."""
_OUTLASTS: Final = timedelta(minutes=15)
"""How long Alertmanager believes a firing without hearing of it again."""
_NEVER: Final = frozenset((400, 413, 422))
"""What HTTP answers to an event that it will never take."""
_SETSID: Final = shutil.which("setsid")
_IN_A_SESSION: Final = [] if _SETSID is None else [_SETSID]
_LONGEST_WAIT: Final = 3600.0
"""Seconds that a receiver may ask for before it is asked again."""
_LINGER: Final = 1.0
"""Seconds that the output of a program is read after its end, if others hold it open."""


def _does_not_end(_: object, seconds: float) -> Failure:
    return Failure(DeliveryError(f"it has not ended within {seconds:g} s, and was killed"))


def receiver_for(
    target: Target, reactor: IActionReactor, mail: Callable[[], MailServer]
) -> Receiver:
    """Make the receiver of a target; `mail` tells where mail is handed in at the moment."""
    match target.kind:
        case "webhook":
            return Webhook(reactor, target.address)
        case "alertmanager":
            return Alertmanager(reactor, target.address)
        case "exec":
            return Program(reactor, target.address)
    return Mailbox(reactor, target.address, mail)


class _Poster:
    """Posts JSON over HTTP."""

    def __init__(self, reactor: IActionReactor, url: str) -> None:
        parts = urlsplit(url)
        user, is_there, host = parts.netloc.rpartition("@")
        self._reactor = reactor
        self._url = parts._replace(netloc=host, fragment="").geturl().encode()
        self._agent = Agent(reactor, connectTimeout=PATIENCE)
        self._headers = {"Content-Type": ["application/json"], "User-Agent": ["ingest"]}
        if is_there:  # RFC 7617
            proof = b64encode(unquote_to_bytes(user)).decode()
            self._headers["Authorization"] = [f"Basic {proof}"]

    def post(self, body: object, headers: dict[str, list[str]]) -> Deferred[None]:
        request = self._agent.request(
            b"POST",
            self._url,
            Headers({**self._headers, **headers}),
            FileBodyProducer(BytesIO(json.dumps(body).encode())),
        )
        answered: Deferred[None] = request.addCallbacks(_judged, _broken_off)
        return answered.addTimeout(PATIENCE, self._reactor, is_silent)


def _judged(response: IResponse) -> Deferred[None]:
    unread = _Unread()
    response.deliverBody(unread)
    code = int(response.code)
    if 200 <= code < 300:
        return unread.done
    error = DeliveryError(f"it answers {code}", final=code in _NEVER, wait=_asks_for(response))
    return unread.done.addCallback(lambda _: Failure(error))


def _asks_for(response: IResponse) -> float:
    """Return for how many seconds a receiver wants to be left alone (RFC 9110, 10.2.3)."""
    (asked,) = response.headers.getRawHeaders("Retry-After", ["0"])[:1]
    try:
        seconds = float(asked) if asked.isdecimal() else stringToDatetime(asked.encode()) - time()
    except (ValueError, LookupError):
        return 0.0  # it is neither a number nor a date
    return min(max(0.0, seconds), _LONGEST_WAIT)


def _broken_off(failure: Failure) -> Failure:
    """Say in words why there is no answer; Twisted lists the reasons as failures."""
    reasons = getattr(failure.value, "reasons", ())
    if not reasons:
        return failure
    what = "; ".join(_reason(reason.value) for reason in reasons)
    return Failure(DeliveryError(f"it breaks off without an answer: {what}", answered=False))


def _reason(error: BaseException) -> str:
    """OpenSSL's errors are lists of library, function and reason."""
    match error.args:
        case ([*errors],):
            return ", ".join(str(each[-1]) if each else "" for each in errors)
    return str(error) or type(error).__name__


class _Unread(ByteProtocol):
    """Passes over what a receiver answers, however long it is."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred(self._abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        self.done.callback(None)

    def _abort(self, _: Deferred[None]) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()


class Webhook:
    """Posts what an event describes; `Idempotency-Key` tells a repetition."""

    def __init__(self, reactor: IActionReactor, url: str) -> None:
        self._poster = _Poster(reactor, url)

    def tell(self, event: Event) -> Deferred[None]:
        """Post it."""
        key = f"{event.id}-{event.state}"
        return self._poster.post(event.described(), {"Idempotency-Key": [key]})

    def remind(self, firing: Sequence[Event]) -> None:
        """It does not forget."""


class Alertmanager:
    """Posts to version 2 of Alertmanager's API.

    Alertmanager takes an alert for resolved that it has not heard of for a while: each is told with
    an end some minutes ahead, and again before that.
    """

    def __init__(self, reactor: IActionReactor, url: str) -> None:
        self._poster = _Poster(reactor, url.rstrip("/") + "/api/v2/alerts")

    def tell(self, event: Event) -> Deferred[None]:
        """Post it."""
        return self._poster.post([_alert(event)], {})

    def remind(self, firing: Sequence[Event]) -> Deferred[None] | None:
        """Post all that fires."""
        return self._poster.post([_alert(event) for event in firing], {}) if firing else None


def _alert(event: Event) -> dict[str, object]:
    ends = datetime.now(UTC) + _OUTLASTS
    labels = {"alertname": event.rule, "device": event.device, "job": "ingest"}
    return {
        # An empty label is no label.
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {
            "summary": event.message,
            "description": event.reason,
            "id": event.id,
            "fields": json.dumps(event.described()["fields"]),
        },
        "startsAt": in_utc(event.fired),
        "endsAt": ends.isoformat() if event.firing else in_utc(event.time),
    }


class Program:
    """Runs a program, without a shell.

    It has a session of its own; if it takes too long, all that it has started is killed with it.

    It gets the event as one line of JSON on its standard input, and its parts as environment:
    `INGEST_RULE`, `INGEST_DEVICE`, `INGEST_STATE`, `INGEST_MESSAGE`, `INGEST_ID`, …, and each field
    as `INGEST_FIELD_temp`. It ends with 0, or is run again later.
    """

    def __init__(self, reactor: IActionReactor, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def tell(self, event: Event) -> Deferred[None]:
        """Run it; fires when it has ended."""
        run = _Run(event, self._reactor)
        command = [*_IN_A_SESSION, self._path]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_environment(event)}
        try:
            self._reactor.spawnProcess(run, command[0], command, environment, "/")
        except OSError as error:
            raise DeliveryError(f"it can't be run: {error.strerror}", answered=False) from error
        return run.done.addTimeout(PROGRAM_PATIENCE, self._reactor, _does_not_end)

    def remind(self, firing: Sequence[Event]) -> None:
        """It does not forget."""


def _environment(event: Event) -> dict[str, str]:
    described = event.described()
    described.pop("fields")
    values = {f"INGEST_{name.upper()}": value for name, value in described.items()}
    for name, value in event.fields.items():
        values["INGEST_FIELD_" + re.sub(r"\W", "_", name, flags=re.ASCII)] = value
    return {name: str(value).replace("\0", "") for name, value in values.items()}


class _Run(ProcessProtocol):
    """A program that runs; the end of its output is kept, to be shown if it fails."""

    def __init__(self, event: Event, reactor: IReactorTime) -> None:
        self._input = json.dumps(event.described()).encode() + b"\n"
        self._reactor = reactor
        self._output = b""
        self._linger: IDelayedCall | None = None
        self.done: Deferred[None] = Deferred(self._kill)

    @property
    def _process(self) -> IProcessTransport:
        assert self.transport is not None
        return self.transport

    def _kill(self, _: Deferred[None]) -> None:
        if self._process.pid:
            with suppress(ProcessLookupError):  # without a session, there is no such group
                os.killpg(self._process.pid, SIGKILL)
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def connectionMade(self) -> None:
        self._process.write(self._input)
        self._process.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: ARG002
        self._output = (self._output + data)[-500:]

    def processExited(self, reason: Failure) -> None:  # noqa: ARG002
        # What it has left running in the background may hold its output open.
        self._linger = self._reactor.callLater(_LINGER, self._process.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        if self.done.called:  # it took too long, and was killed
            return
        if isinstance(reason.value, ProcessTerminated):
            said = in_one_line(self._output.decode(errors="replace"))
            code, number = reason.value.exitCode, reason.value.signal
            how = f"it ended with {code}" if number is None else f"signal {number} ended it"
            self.done.errback(DeliveryError(f"{how}: {said}" if said else how))
        else:
            self.done.callback(None)
