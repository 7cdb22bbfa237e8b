"""What a listener answers over HTTP: its metrics, and whether it is well.

`/livez` fails when only a restart helps, `/readyz` while no frames are taken; `/healthz` is the
same as `/readyz`. They say no more than that, and say it to anybody who may connect. `/metrics`
wants the bearer token, where there is one.
"""

import hmac
from collections.abc import Callable
from io import BytesIO
from typing import IO, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from ingest.ops.limited import Limited

MAX_CONNECTIONS = 32
"""Connections at once: each takes a descriptor, and those are for devices; see `Limited`."""
_TIMEOUT = 30.0  # seconds that a connection may say nothing

Check = Callable[[], str]
"""Says in a few words why something is not as it should be; empty if it is."""


class Answers:
    """What a listener answers.

    Attributes:
        token: what a reader of `/metrics` must bring; empty for nothing.
    """

    def __init__(
        self, live: Check, ready: Check, metrics: Callable[[], Deferred[bytes]], metrics_type: str
    ) -> None:
        """Make them.

        Args:
            live: why only a restart helps.
            ready: why no frames are taken.
            metrics: writes the metrics.
            metrics_type: the content type of what it writes.
        """
        self.live = live
        self.ready = ready
        self.metrics = metrics
        self.metrics_type = metrics_type
        self.token = ""


def make_factory(answers: Answers) -> IProtocolFactory:
    """Make the factory of the HTTP server's connections."""
    root = Resource()
    root.putChild(b"livez", _Probe(answers.live))
    root.putChild(b"readyz", _Probe(answers.ready))
    root.putChild(b"healthz", _Probe(answers.ready))
    root.putChild(b"metrics", _Metrics(answers))
    site = cast(IProtocolFactory, _Site(root, timeout=_TIMEOUT))
    return cast(IProtocolFactory, Limited(site, MAX_CONNECTIONS))


class _Probe(Resource):
    isLeaf = True

    def __init__(self, check: Check) -> None:
        super().__init__()
        self._check = check

    def render_GET(self, request: Request) -> bytes:
        """Answer 200, or 503 with the reason."""
        reason = self._check()
        if reason:
            request.setResponseCode(http.SERVICE_UNAVAILABLE)
        request.setHeader("content-type", "text/plain; charset=utf-8")
        request.setHeader("cache-control", "no-store")
        return (reason or "ok").encode() + b"\n"


class _Metrics(Resource):
    isLeaf = True
    _log = Logger(namespace="ingest.ops")

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def render_GET(self, request: Request) -> bytes | int:
        """Answer with the metrics, which are written in another thread."""
        if not self._is_allowed(request):
            request.setResponseCode(http.UNAUTHORIZED)
            request.setHeader("www-authenticate", "Bearer")
            return b"a bearer token is wanted: Authorization: Bearer TOKEN\n"
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def finish(content: bytes) -> None:
            if not gone:
                request.setHeader("content-type", self._answers.metrics_type)
                request.write(content)
                request.finish()

        self._answers.metrics().addCallback(finish).addErrback(self._fail, request, gone)
        return NOT_DONE_YET

    def _is_allowed(self, request: Request) -> bool:
        token = self._answers.token
        given = request.getHeader(b"authorization") or b""
        return not token or hmac.compare_digest(given, b"Bearer " + token.encode())

    def _fail(self, failure: Failure, request: Request, gone: list[Failure]) -> None:
        self._log.failure("the metrics can't be written", failure)
        if not gone:
            request.setResponseCode(http.INTERNAL_SERVER_ERROR)
            request.finish()


class _Site(Site):
    noisy = False

    def log(self, request: object) -> None:
        """Log no request: they come every few seconds, and are always the same."""

    def getContentFile(self, length: int | None) -> IO[bytes]:  # noqa: ARG002
        """Keep nothing of what a request brings; Twisted would fill a temporary file with it."""
        return _Nowhere()


class _Nowhere(BytesIO):
    def write(self, data: Any, /) -> int:
        return len(data)
