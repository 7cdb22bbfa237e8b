"""The addresses below `/api/`: what the page shows, and others may use. See API.md."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, Final, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import NOT_FOUND, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource

from ingest.log.places import Place
from ingest.ops.control import ControlError, ask
from ingest.record import parse
from ingest.watch.asking import Asking
from ingest.watch.auth import Role
from ingest.watch.explaining import MEANINGS, explain, explain_stranger
from ingest.watch.fields import fields_of
from ingest.watch.known import Known
from ingest.watch.roster import SORTS, STATES
from ingest.watch.saved import SavedQueries, SavedQueriesError
from ingest.watch.series import MAX_FIELDS, MAX_NAME
from ingest.watch.series_api import SeriesApi
from ingest.watch.stream import EVENTS, InThread, Stream
from ingest.watch.tailing import Tail, lines_around
from ingest.watch.web import (
    MAX_TEXT,
    Api,
    Folder,
    PageRequest,
    RequestError,
    argument,
    body,
    header,
    member,
    number,
    send,
)

_MAX_TAILS: Final = 64
_PAGE_SIZE: Final = 50
_TRAFFIC_WIDTH: Final = 10  # seconds
_LOOKED_AT: Final = 200  # last lines of a device in which fields are sought
_STATES_KEPT: Final = 2.0  # seconds
_STRANGERS: Final = 10
_STRANGER: Final = {"name": "device", "error": "kind", "at": "at", "host": "host"}

Shown = list[dict[str, object]]


class IRules(Protocol):
    """Rules that follow the log, as the page sees them; see `ingest.watch.rules.service`."""

    lag: float

    @property
    def firing(self) -> int:
        """How many alerts fire now."""

    def alerts(self, start: int, count: int) -> Shown:
        """Return some of what fires now, the newest first, without the `start` newest."""

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


class PageApi:
    """Answers the requests below `/api/`."""

    def __init__(
        self, known: Known, reactor: IReactorTime, in_thread: InThread, rules: IRules | None
    ) -> None:
        """Begin to answer.

        Args:
            known: what is known.
            reactor: the reactor.
            in_thread: calls something in a thread.
            rules: what fires; None without rules.
        """
        self._known = known
        self._reactor = reactor
        self._in_thread = in_thread
        self._rules = rules
        self.asking = Asking(known.layout, in_thread)
        self._saved = SavedQueries(known.layout.saved_queries)
        self._series = SeriesApi(known, in_thread)
        self._rotations = DeferredSemaphore(1)  # each may wait for the disk
        self._streams: set[Stream] = set()
        self._states: tuple[float, dict[str, int]] = 0.0, {}

    def resource(self) -> Resource:
        """Make the resource `/api`."""
        root = Folder()
        devices = _Devices(self)
        query = Api(post=self.asking.query, changes=False)
        query.isLeaf = False
        query.putChild(b"cancel", Api(post=self.asking.cancel, changes=False))
        for name, child in (
            ("status", Api(self.status)),
            ("traffic", Api(self.traffic)),
            ("devices", devices),
            ("series", Api(self._series.get)),
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
            states = self._known.roster.states(now)
            self._states = now, states
        return states

    def _status(self, role: Role, states: dict[str, int]) -> dict[str, object]:
        known, rules = self._known, self._rules
        answer, progress = known.contact.answer, known.follower.progress
        health, reason = known.health()
        return {
            "time": time.time(),
            "health": health,
            "reason": reason,
            "since": answer.since,
            "asked": answer.at,
            "listener": None if answer.failure else answer.status,
            "errors": _errors(answer.status),
            "strangers": [
                {name: each[key] for name, key in _STRANGER.items()}
                for each in known.roster.strangers[:_STRANGERS]
            ],
            "states": states,
            "devices": len(known.roster.entries),
            "watcher": {
                "behind": round(progress.behind, 1),
                "stride": progress.stride,
                "read": progress.read,
                "trouble": known.trouble,
                "problems": [
                    {"time": at, "text": text} for at, text in list(known.follower.problems)
                ],
                "curves": known.curves.rows,
                "width": known.curves.width,
                "left_out": known.curves.left_out,
                "tails": len(self._streams),
                "queries": len(self.asking),
                "columns": None if known.converting is None else known.converting.shown(),
            },
            "role": role,
            "alerts": None if rules is None else rules.firing,
            "rules": None if rules is None else {"behind": rules.lag, "trouble": rules.trouble},
        }

    def traffic(self, _request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/traffic`."""
        starts, frames, sizes = self._known.traffic.rates(time.time(), _TRAFFIC_WIDTH)
        return {"width": _TRAFFIC_WIDTH, "start": starts, "frames": frames, "bytes": sizes}

    def alerts(self, request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/alerts`."""
        rules = self._rules
        page, size = _page(request)
        if rules is None:
            nothing: dict[str, object] = {
                name: [] for name in ("alerts", "events", "rules", "receivers")
            }
            return {"enabled": False, "firing": 0, "page": 1, "pages": 1, **nothing}
        pages = max(1, -(-rules.firing // size))
        page = min(page, pages)
        return {
            "enabled": True,
            "firing": rules.firing,
            "page": page,
            "pages": pages,
            "alerts": rules.alerts((page - 1) * size, size),
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
        q = argument(request, "q")[:MAX_TEXT]
        page, size = _page(request)
        found = self._in_thread(self._known.roster.page, q, state, sort, page, size, time.time())
        return found.addCallback(asdict)

    def device(self, name: str, _request: PageRequest) -> dict[str, object]:
        """Answer `GET /api/devices/NAME`."""
        known, now = self._known, time.time()
        entry = known.roster.entries.get(name)
        if entry is None:
            claims = (each for each in known.roster.strangers if each["device"] == name)
            raise RequestError(explain_stranger(name, next(claims, None), now), NOT_FOUND)
        registered = entry.registered
        return {
            **entry.shown(now),
            "why": explain(entry, known.contact.answer, now),
            "created": registered.created if registered else None,
            "is_enabled": registered.enabled if registered else False,
            "connection": entry.connection,
            "fields": known.curves.fields(name),
        }

    def fields(self, name: str, _request: PageRequest) -> Deferred[dict[str, object]]:
        """Answer `GET /api/devices/NAME/fields`."""
        return self._in_thread(self._fields, name)

    def _fields(self, name: str) -> dict[str, object]:
        """List the numeric fields that memory has, or else those of the device's last lines."""
        known = self._known
        last = known.curves.last(name)
        entry = known.roster.entries.get(name)
        if not last and entry is not None and entry.last:
            last = numbers_in(lines_around(known.layout, name, entry.last, _LOOKED_AT))
        return {"fields": [{"name": field, "last": value} for field, value in last.items()]}

    def tail(self, request: PageRequest) -> Deferred[object]:
        """Answer `GET /api/tail`, until whoever asks goes away."""
        if request.method == b"HEAD":
            send(request, b"", EVENTS)
            return succeed(None)
        if len(self._streams) >= _MAX_TAILS:
            raise RequestError("too many tails are watched at the moment", SERVICE_UNAVAILABLE)
        after = header(request, "last-event-id") or argument(request, "after")
        try:
            place = Place.from_json(after) if after else None
        except ValueError:
            raise RequestError("after is no place in a log") from None
        device = argument(request, "device")[:MAX_TEXT]
        entry = self._known.roster.entries.get(device)
        heard = 0.0 if entry is None else entry.last
        tail = Tail(
            self._known.layout,
            device,
            argument(request, "grep")[:MAX_TEXT],
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
        done = self._rotations.run(self._in_thread, ask, self._known.layout.control, "rotate")
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


def _errors(status: Mapping[str, Any]) -> Shown:
    """List what went wrong with connections since the listener started, the most often first."""
    counted = Counter(status.get("errors", {})).most_common()
    return [
        {"code": code, "count": count, "meaning": MEANINGS.get(code, "")}
        for code, count in counted
        if count
    ]


def _page(request: PageRequest) -> tuple[int, int]:
    """Read which page of a table is asked for, from 1, and how many rows it has."""
    page = int(number(request, "page", 1, 1, 1e9))
    return page, int(number(request, "size", _PAGE_SIZE, 1, 500))


def numbers_in(lines: Iterable[bytes]) -> dict[str, float]:
    """Return the newest value of each numeric field in lines, of as many as memory keeps."""
    found: dict[str, float] = {}
    for line in lines:
        with suppress(ValueError):
            for name, value in fields_of(parse(line)).items():
                is_kept = name in found or (len(found) < MAX_FIELDS and len(name) <= MAX_NAME)
                if type(value) is float and is_kept:
                    found[name] = value
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _listed(kept: dict[str, str]) -> dict[str, object]:
    return {"queries": [{"name": name, "sql": sql} for name, sql in kept.items()]}


def _not_kept(failure: Failure) -> NoReturn:
    failure.trap(SavedQueriesError)
    raise RequestError(failure.getErrorMessage())


def _not_done(failure: Failure) -> NoReturn:
    failure.trap(ControlError)
    raise RequestError(f"the listener did not do it: {failure.getErrorMessage()}", 503)
