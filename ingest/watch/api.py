"""The addresses below `/api/`: what the page shows, and others may use. See API.md."""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import NOT_FOUND, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource

from ingest.layout import Layout
from ingest.log.places import Place
from ingest.names import is_device_name
from ingest.ops.control import ControlError, ask
from ingest.record import parse
from ingest.watch.asking import Asking
from ingest.watch.auth import Role
from ingest.watch.contact import Contact
from ingest.watch.converting import Converting
from ingest.watch.explaining import explain
from ingest.watch.fields import fields_of
from ingest.watch.follower import Follower, Traffic
from ingest.watch.history import read_history
from ingest.watch.query import QueryError
from ingest.watch.rendering import TYPES, RenderingError, render
from ingest.watch.roster import SORTS, STATES, Roster
from ingest.watch.saved import SavedQueries, SavedQueriesError
from ingest.watch.series import SPAN, Buckets, Curves, round_width
from ingest.watch.stream import InThread, Stream
from ingest.watch.tailing import Tail, lines_around
from ingest.watch.web import (
    Api,
    PageRequest,
    RequestError,
    argument,
    body,
    member,
    number,
    send,
)

_MAX_TAILS: Final = 64
_MAX_QUERIES: Final = 2
"""Questions to the log's files at a time; others wait for their turn."""
_MAX_POINTS: Final = 5000
_MAX_CURVES: Final = 8
_MAX_TEXT: Final = 1000
_PAGE_SIZE: Final = 50
_TRAFFIC_WIDTH: Final = 10  # seconds
_LOOKED_AT: Final = 200  # last lines of a device in which fields are sought
_STATES_KEPT: Final = 2.0  # seconds
_FAR: Final = 4e9  # seconds since 1970: the year 2096

Shown = list[dict[str, object]]


class IRules(Protocol):
    """Rules that follow the log, as the page sees them; see `ingest.watch.rules.service`."""

    lag: float

    def alerts(self) -> Shown:
        """Return what fires now."""

    @property
    def trouble(self) -> str:
        """What is wrong, in words; empty if all is well."""

    def events(self) -> Shown:
        """Return what fired and cleared of late."""

    def rules(self) -> Shown:
        """Return what is defined."""

    def receivers(self) -> Shown:
        """Return who is told."""

    def reload(self) -> None:
        """Read the file of rules again."""


class Watch:
    """All that is known, and the threads that fetch it.

    Attributes:
        layout: the data folder.
        roster: the devices.
        curves: the last hour.
        traffic: the fleet's frames.
        follower: who reads the log.
        contact: who asks the listener.
        converting: what makes Parquet of closed files; None if nothing does.
    """

    def __init__(self, layout: Layout, converting: Converting | None = None) -> None:
        """Nothing is read yet.

        Raises:
            OSError, sqlite3.Error: the state can't be written.
        """
        self.layout = layout
        self.roster = Roster()
        self.curves = Curves()
        self.traffic = Traffic()
        self.follower = Follower(layout, self.roster, self.curves, self.traffic)
        self.contact = Contact(layout.control, self.roster)
        self.converting = converting
        self.trouble = ""
        """Why the log can't be followed at the moment; empty if it is."""


class PageApi:
    """Answers the requests below `/api/`."""

    def __init__(
        self, watch: Watch, reactor: IReactorTime, in_thread: InThread, rules: IRules | None
    ) -> None:
        """Begin to answer.

        Args:
            watch: what is known.
            reactor: the reactor.
            in_thread: calls something in a thread.
            rules: what fires; None without rules.
        """
        self._watch = watch
        self._reactor = reactor
        self._in_thread = in_thread
        self._rules = rules
        self.asking = Asking(watch.layout, in_thread)
        self._saved = SavedQueries(watch.layout.saved_queries)
        self._queries = DeferredSemaphore(_MAX_QUERIES)
        self._rotations = DeferredSemaphore(1)  # each may wait for the disk
        self._streams: set[Stream] = set()
        self._states: tuple[float, dict[str, int]] = 0.0, {}

    def resource(self) -> Resource:
        """Make the resource `/api`."""
        root = Resource()
        devices = _Devices(self)
        query = Api(post=self.asking.query, changes=False)
        query.isLeaf = False
        query.putChild(b"cancel", Api(post=self.asking.cancel, changes=False))
        for name, child in (
            ("status", Api(self.status)),
            ("traffic", Api(self.traffic)),
            ("devices", devices),
            ("series", Api(self.series)),
            ("tail", Api(self.tail)),
            ("alerts", Api(self.alerts)),
            ("query", query),
            ("queries", Api(self.queries, self.keep_query)),
            ("rotate", Api(post=self.rotate)),
        ):
            root.putChild(name.encode(), child)
        return root

    def status(self, request: PageRequest) -> Deferred[dict[str, object]]:
        """Answer `GET /api/status`."""
        role = request.role
        return self._in_thread(self._count_states).addCallback(
            lambda states: self._status(role, states)
        )

    def _count_states(self) -> dict[str, int]:
        """Count the devices by state, for all who ask within two seconds."""
        now = time.time()
        counted_at, states = self._states
        if not counted_at <= now < counted_at + _STATES_KEPT:
            states = self._watch.roster.states(now)
            self._states = now, states
        return states

    def _status(self, role: Role, states: dict[str, int]) -> dict[str, object]:
        watch, rules = self._watch, self._rules
        answer, progress = watch.contact.answer, watch.follower.progress
        status = dict(answer.status)
        health, reason = status.get("health", "down"), status.get("reason", answer.failure)
        if answer.failure:
            health = "down"
        elif health == "ok" and watch.trouble:
            health, reason = "log-unreadable", watch.trouble
        return {
            "time": time.time(),
            "health": health,
            "reason": reason,
            "since": answer.since,
            "asked": answer.at,
            "listener": None if answer.failure else status,
            "states": states,
            "devices": len(watch.roster.entries),
            "watcher": {
                "behind": round(progress.behind, 1),
                "stride": progress.stride,
                "read": progress.read,
                "trouble": watch.trouble,
                "problems": [
                    {"time": at, "text": text} for at, text in list(watch.follower.problems)
                ],
                "curves": watch.curves.rows,
                "width": watch.curves.width,
                "left_out": watch.curves.left_out,
                "tails": len(self._streams),
                "queries": len(self.asking),
                "columns": None if watch.converting is None else watch.converting.shown(),
            },
            "role": role,
            "alerts": None if rules is None else len(rules.alerts()),
            "rules": None if rules is None else {"behind": rules.lag, "trouble": rules.trouble},
        }

    def traffic(self, _request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/traffic`."""
        starts, frames, sizes = self._watch.traffic.rates(time.time(), _TRAFFIC_WIDTH)
        return {"width": _TRAFFIC_WIDTH, "start": starts, "frames": frames, "bytes": sizes}

    def alerts(self, _request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/alerts`."""
        rules = self._rules
        if rules is None:
            return {"enabled": False, "alerts": [], "events": [], "rules": [], "receivers": []}
        return {
            "enabled": True,
            "alerts": rules.alerts(),
            "events": rules.events(),
            "rules": rules.rules(),
            "receivers": rules.receivers(),
            "behind": rules.lag,
            "trouble": rules.trouble,
        }

    def queries(self, _request: PageRequest) -> Deferred[object]:
        """Answer `GET /api/queries`."""
        done = self._in_thread(self._saved.all)
        return done.addCallbacks(_listed, _not_kept)

    def keep_query(self, request: PageRequest) -> Deferred[object]:
        """Answer `POST /api/queries`."""
        value = body(request)
        name, sql = member(value, "name", str), member(value, "sql", str, "")
        done = self._in_thread(self._saved.keep, name, sql)
        return done.addCallbacks(lambda _: self.queries(request), _not_kept)

    def devices(self, request: PageRequest) -> Deferred[dict[str, object]]:
        """Answer `GET /api/devices`."""
        state, sort = argument(request, "state"), argument(request, "sort", "name")
        if state and state not in STATES:
            raise RequestError(f"state is one of {', '.join(STATES)}")
        if sort.removeprefix("-") not in SORTS:
            raise RequestError(f"sort is one of {', '.join(SORTS)}, perhaps with - before it")
        q = argument(request, "q")[:_MAX_TEXT]
        page = int(number(request, "page", 1, 1, 1e9))
        size = int(number(request, "size", _PAGE_SIZE, 1, 500))
        found = self._in_thread(self._watch.roster.page, q, state, sort, page, size, time.time())
        return found.addCallback(asdict)

    def device(self, name: str, _request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/devices/NAME`."""
        watch, now = self._watch, time.time()
        entry = watch.roster.entries.get(name)
        if entry is None:
            raise RequestError(f"no device {name!r} is known", NOT_FOUND)
        registered = entry.registered
        return {
            **entry.shown(now),
            "why": explain(entry, watch.contact.answer, now),
            "created": registered.created if registered else None,
            "is_enabled": registered.enabled if registered else False,
            "connection": entry.connection,
            "fields": watch.curves.fields(name),
        }

    def fields(self, name: str, _request: PageRequest) -> Deferred[dict[str, object]]:
        """Answer `GET /api/devices/NAME/fields`."""
        return self._in_thread(self._fields, name)

    def _fields(self, name: str) -> dict[str, object]:
        """List the numeric fields that memory has, or else those of the device's last lines."""
        watch = self._watch
        last = watch.curves.last(name)
        entry = watch.roster.entries.get(name)
        if not last and entry is not None and entry.last:
            last = numbers_in(lines_around(watch.layout, name, entry.last, _LOOKED_AT))
        return {"fields": [{"name": field, "last": value} for field, value in last.items()]}

    def series(self, request: PageRequest) -> Deferred[object]:
        """Answer `GET /api/series`."""
        now = time.time()
        until = number(request, "to", now, 0, _FAR)
        since = number(request, "from", until - SPAN, 0, _FAR)
        points = int(number(request, "points", 600, 1, _MAX_POINTS))
        form = argument(request, "format", "json")
        if since >= until:
            raise RequestError("from must be before to")
        if form != "json" and form not in TYPES:
            raise RequestError(f"format is json, {', '.join(TYPES)}")
        wanted = _curves(request)
        width = round_width((until - since) / points)
        done = self._in_thread(self._from_memory, wanted, since, until, width)
        done.addCallback(lambda found: found or self._ask_log(request, wanted, since, until, width))
        done.addCallback(lambda curves: {"from": since, "to": until, "curves": curves})
        if form != "json":
            done.addCallback(partial(self._file, request, form))
        return done

    def _from_memory(
        self, wanted: list[tuple[str, str]], since: float, until: float, width: float
    ) -> list[dict[str, object]] | None:
        """Return curves as far as memory has them; None if the log has more, or finer ones."""
        curves = self._watch.curves
        is_finer = width < curves.width / 2 and until < time.time() - 2 * curves.width
        if since < curves.since - curves.width or is_finer:
            return None
        progress, found = self._watch.follower.progress, []
        is_partial = progress.thinned_at > since or progress.is_late
        for device, field in wanted:
            buckets = curves.read(device, field) or Buckets.none(curves.width)
            shown = buckets.between(since, until).coarser(width)
            found.append(_curve(device, field, shown, "memory", is_partial=is_partial))
        return found

    def _ask_log(
        self,
        request: PageRequest,
        wanted: list[tuple[str, str]],
        since: float,
        until: float,
        width: float,
    ) -> Deferred[list[dict[str, object]]]:
        return self._queries.run(
            self._in_thread, self._from_log, request, wanted, since, until, width
        ).addErrback(_not_read)

    def _from_log(
        self,
        request: PageRequest,
        wanted: list[tuple[str, str]],
        since: float,
        until: float,
        width: float,
    ) -> list[dict[str, object]]:
        found = []
        for device, field in wanted:
            if request.is_gone:  # who zooms does not wait for what was seen before
                break
            buckets, is_partial = read_history(
                self._watch.layout, device, field, since, until, width
            )
            found.append(_curve(device, field, buckets, "log", is_partial=is_partial))
        return found

    def _file(self, request: PageRequest, form: str, answer: dict[str, Any]) -> Deferred[None]:
        def finish(content: bytes) -> None:
            request.setHeader("Content-Disposition", f'attachment; filename="curves.{form}"')
            send(request, content, TYPES[form])

        done = self._queries.run(self._in_thread, render, form, answer["curves"])
        return done.addCallbacks(finish, _not_rendered)

    def tail(self, request: PageRequest) -> Deferred[object]:
        """Answer `GET /api/tail`, until whoever asks goes away."""
        if len(self._streams) >= _MAX_TAILS:
            raise RequestError("too many tails are watched at the moment", SERVICE_UNAVAILABLE)
        after = request.getHeader("last-event-id") or argument(request, "after")
        try:
            place = Place.from_json(after) if after else None
        except ValueError:
            raise RequestError("after is no place in a log") from None
        device = argument(request, "device")[:_MAX_TEXT]
        entry = self._watch.roster.entries.get(device)
        heard = 0.0 if entry is None else entry.last
        tail = Tail(
            self._watch.layout,
            device,
            argument(request, "grep")[:_MAX_TEXT],
            place=place,
            count=int(number(request, "last", 200, 0, 2000)),
            heard=heard,
        )
        stream = Stream(request, tail, self._reactor, self._in_thread)
        self._streams.add(stream)
        stream.done.addCallback(lambda _: self._streams.discard(stream))
        stream.start()
        return Deferred()  # it answers itself

    def rotate(self, _request: PageRequest) -> Deferred[object]:
        """Answer `POST /api/rotate`."""
        done = self._rotations.run(self._in_thread, ask, self._watch.layout.control, "rotate")
        return done.addCallbacks(lambda closed: {"closed": closed}, _not_done)


class _Devices(Api):
    """`/api/devices`, and below it `NAME` and `NAME/fields`."""

    isLeaf = False

    def __init__(self, api: PageApi) -> None:
        super().__init__(api.devices)
        self._api = api

    def getChild(self, path: bytes, request: PageRequest) -> Resource:  # noqa: ARG002
        """See `Resource.getChild`."""
        name = path.decode("utf-8", "replace")
        child = Api(partial(self._api.device, name))
        child.isLeaf = False
        child.putChild(b"fields", Api(partial(self._api.fields, name)))
        return child


def _curves(request: PageRequest) -> list[tuple[str, str]]:
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
    if any(len(field) > _MAX_TEXT for field in fields):
        raise RequestError(f"a field has at most {_MAX_TEXT} characters")
    return list(zip(devices, fields, strict=True))


def numbers_in(lines: Iterable[bytes]) -> dict[str, float]:
    """Return the newest value of each numeric field in lines of the log."""
    found: dict[str, float] = {}
    for line in lines:
        with suppress(ValueError):
            fields = fields_of(parse(line))
            found |= {name: value for name, value in fields.items() if type(value) is float}
    return found


def _curve(
    device: str, field: str, buckets: Buckets, source: str, *, is_partial: bool
) -> dict[str, object]:
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


def _not_read(failure: Failure) -> NoReturn:
    failure.trap(QueryError, OSError)
    raise RequestError(f"the log does not tell: {failure.getErrorMessage()}", 503)


def _not_rendered(failure: Failure) -> NoReturn:
    failure.trap(RenderingError)
    raise RequestError(f"the file was not made: {failure.getErrorMessage()}", 503)


def _listed(kept: dict[str, str]) -> dict[str, object]:
    return {"queries": [{"name": name, "sql": sql} for name, sql in kept.items()]}


def _not_kept(failure: Failure) -> NoReturn:
    failure.trap(SavedQueriesError)
    raise RequestError(failure.getErrorMessage())


def _not_done(failure: Failure) -> NoReturn:
    failure.trap(ControlError)
    raise RequestError(f"the listener did not do it: {failure.getErrorMessage()}", 503)
