"""Answers `/api/series`: curves from memory or from the log's files, as JSON or as a file."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import orjson
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE

from ingest.names import is_device_name
from ingest.watch.history import read_history
from ingest.watch.known import Known
from ingest.watch.query import QueryError
from ingest.watch.rendering import TYPES, RenderingError, render
from ingest.watch.series import SPAN, Buckets, round_width
from ingest.watch.stream import InThread
from ingest.watch.web import FAR, MAX_TEXT, PageRequest, RequestError, argument, number, send

_MAX_QUERIES: Final = 2
"""Questions to the log's files at a time; others wait for their turn."""
_MAX_WAITING: Final = 32
_MAX_POINTS: Final = 5000
_MAX_CURVES: Final = 8

Curve = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to see.

    Attributes:
        curves: devices and their fields.
        since: seconds since 1970.
        until: seconds since 1970; later than `since`.
        width: seconds of a bucket.
        form: `json`, or one of `TYPES`.
        is_fine: whether the newest values, too, are read from the log where memory is too coarse.
    """

    curves: list[tuple[str, str]]
    since: float
    until: float
    width: float
    form: str
    is_fine: bool


class SeriesApi:
    """Answers `/api/series`."""

    def __init__(self, known: Known, in_thread: InThread) -> None:
        """Begin to answer.

        Args:
            known: what is known.
            in_thread: calls something in a thread.
        """
        self._known = known
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(_MAX_QUERIES)

    def get(self, request: PageRequest) -> Deferred[Any]:
        """Answer `GET /api/series`."""
        wanted = read_wanted(request, time.time())
        done = self._in_thread(self._from_memory, wanted)
        done.addCallback(lambda found: found or self._ask_log(request, wanted))
        if wanted.form == "json":
            return done.addCallback(lambda curves: self._in_thread(_as_json, wanted, curves))
        return done.addCallback(partial(self._as_file, request, wanted.form))

    def _from_memory(self, wanted: Wanted) -> list[Curve] | None:
        """Return curves as far as memory has them; None if the log has more, or finer ones."""
        memory = self._known.curves
        is_old = wanted.until < time.time() - 2 * memory.width
        is_finer = wanted.width < memory.width / 2 and (is_old or wanted.is_fine)
        if wanted.since < memory.since - memory.width or is_finer:
            return None
        progress = self._known.follower.progress
        is_partial = progress.thinned_at > wanted.since or progress.is_late
        found = []
        for device, field in wanted.curves:
            buckets = memory.read(device, field) or Buckets.none(memory.width)
            shown = buckets.between(wanted.since, wanted.until).coarser(wanted.width)
            found.append(_curve(device, field, shown, "memory", is_partial=is_partial))
        return found

    def _ask_log(self, request: PageRequest, wanted: Wanted) -> Deferred[list[Curve]]:
        if len(self._turns.waiting) >= _MAX_WAITING:
            raise RequestError("too many curves of the log are waited for", SERVICE_UNAVAILABLE)
        done = self._turns.run(self._in_thread, self._from_log, request, wanted)
        return done.addErrback(_not_read)

    def _from_log(self, request: PageRequest, wanted: Wanted) -> list[Curve]:
        found = []
        for device, field in wanted.curves:
            if request.is_gone:  # who zooms does not wait for what was seen before
                break
            buckets, is_partial = read_history(
                self._known.layout, device, field, wanted.since, wanted.until, wanted.width
            )
            found.append(_curve(device, field, buckets, "log", is_partial=is_partial))
        return found

    def _as_file(self, request: PageRequest, form: str, curves: list[Curve]) -> Deferred[None]:
        def finish(content: bytes) -> None:
            request.setHeader("Content-Disposition", f'attachment; filename="curves.{form}"')
            send(request, content, TYPES[form])

        done = self._turns.run(self._in_thread, render, form, curves)
        return done.addCallbacks(finish, _not_rendered)


def read_wanted(request: PageRequest, now: float) -> Wanted:
    """Read the arguments of a request.

    Args:
        request: the request.
        now: seconds since 1970.

    Raises:
        RequestError: they make no sense.
    """
    until = number(request, "to", now, 0, FAR)
    since = number(request, "from", until - SPAN, 0, FAR)
    points = int(number(request, "points", 600, 1, _MAX_POINTS))
    form = argument(request, "format", "json")
    if since >= until:
        raise RequestError("from must be before to")
    if form != "json" and form not in TYPES:
        raise RequestError(f"format is json, {', '.join(TYPES)}")
    width = round_width((until - since) / points)
    is_fine = number(request, "fine", 0, 0, 1) == 1
    return Wanted(_pairs(request), since, until, width, form, is_fine)


def _pairs(request: PageRequest) -> list[tuple[str, str]]:
    """Return the devices and fields that a request names, in pairs."""
    args = request.args or {}
    try:
        devices, fields = (
            [value.decode() for value in args.get(name, ())] for name in (b"device", b"field")
        )
    except UnicodeDecodeError:
        raise RequestError("device and field are UTF-8") from None
    if not devices or len(devices) != len(fields) or len(devices) > _MAX_CURVES:
        raise RequestError(f"give device and field, up to {_MAX_CURVES} times, in pairs")
    for device in devices:
        if not is_device_name(device):
            raise RequestError(f"{device!r} is no name of a device")
    if any(len(field) > MAX_TEXT for field in fields):
        raise RequestError(f"a field has at most {MAX_TEXT} characters")
    return list(zip(devices, fields, strict=True))


def _curve(device: str, field: str, buckets: Buckets, source: str, *, is_partial: bool) -> Curve:
    return {
        "device": device,
        "field": field,
        "source": source,
        "width": buckets.width,
        "partial": is_partial,
        "start": buckets.start.tolist(),
        "low": buckets.low.tolist(),
        "high": buckets.high.tolist(),
        "mean": buckets.mean.tolist(),
        "count": buckets.count.tolist(),
    }


def _as_json(wanted: Wanted, curves: list[Curve]) -> orjson.Fragment:
    """Write the answer, one curve after another, so that no other thread waits for all of them."""
    written = b",".join(map(orjson.dumps, curves))
    ends = b'{"from":%r,"to":%r,"curves":[' % (wanted.since, wanted.until)
    return orjson.Fragment(ends + written + b"]}")


def _not_read(failure: Failure) -> NoReturn:
    failure.trap(QueryError, OSError)
    text = f"the log does not tell: {failure.getErrorMessage()}"
    raise RequestError(text, SERVICE_UNAVAILABLE)


def _not_rendered(failure: Failure) -> NoReturn:
    failure.trap(RenderingError)
    text = f"the file was not made: {failure.getErrorMessage()}"
    raise RequestError(text, SERVICE_UNAVAILABLE)
