"""Questions that are asked on the page, in SQL: a few at a time, each in a process of its own.

What is asked runs until it has an answer, its time is over, whoever asked goes away, or somebody
who knows its id cancels it.
"""

import threading
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import orjson
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, inlineCallbacks
from twisted.web.http import (
    BAD_REQUEST,
    CONFLICT,
    GATEWAY_TIMEOUT,
    NOT_FOUND,
    SERVICE_UNAVAILABLE,
)

from ingest.layout import Layout
from ingest.watch.query import Limits, Query, QueryCancelledError, QueryError, QueryTimeoutError
from ingest.watch.scope import Scope
from ingest.watch.stream import InThread
from ingest.watch.web import PageRequest, RequestError, body, member

_RUNNING: Final = 2
"""Questions that run at a time; others wait for their turn."""
_WAITING: Final = 8
_SECONDS: Final = 30.0
_MOST_SECONDS: Final = 300.0
_ROWS: Final = 1000
_MOST_ROWS: Final = 10_000
_SIZE: Final = 8 << 20
"""Bytes of an answer's rows, before they are JSON."""
_MEMORY: Final = 512 << 20
_FAR: Final = 4e9  # seconds since 1970: the year 2096
_ID_SIZE: Final = 64


@dataclass(frozen=True)
class Question:
    """What somebody wants to know.

    Attributes:
        id: by which it is cancelled.
        sql: one SELECT.
        scope: which records it is about.
        limits: what it may take.
    """

    id: str
    sql: str
    scope: Scope
    limits: Limits


def read_question(value: dict[str, Any]) -> Question:
    """Read the body of `POST /api/query`.

    Raises:
        RequestError: it makes no sense.
    """
    since, until = (_moment(value, name) for name in ("since", "until"))
    device = member(value, "device", str, "")
    try:
        scope = Scope(since, until, device or None)
    except ValueError as error:
        raise RequestError(str(error)) from error
    name = member(value, "id", str, "") or uuid4().hex
    if len(name) > _ID_SIZE:
        raise RequestError(f"id has at most {_ID_SIZE} characters")
    seconds = _number(value, "seconds", _SECONDS, 0.1, _MOST_SECONDS)
    rows = int(_number(value, "rows", _ROWS, 1, _MOST_ROWS))
    limits = Limits(seconds=seconds, memory=_MEMORY, rows=rows, size=_SIZE)
    return Question(name, member(value, "sql", str), scope, limits)


class Asking:
    """Answers `/api/query`."""

    def __init__(self, layout: Layout, in_thread: InThread) -> None:
        """Nothing is asked yet.

        Args:
            layout: the data folder.
            in_thread: calls something in a thread.
        """
        self._layout = layout
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(_RUNNING)
        self._asked: dict[str, _Asked] = {}

    def __len__(self) -> int:
        """Return how many questions wait or run."""
        return len(self._asked)

    @inlineCallbacks
    def query(self, request: PageRequest) -> Generator[Deferred[Any], Any, orjson.Fragment]:
        """Answer `POST /api/query`."""
        question = read_question(body(request))
        if len(self._asked) >= _RUNNING + _WAITING:
            raise RequestError("too many queries wait at the moment", SERVICE_UNAVAILABLE)
        if question.id in self._asked:
            raise RequestError("a query with this id runs already", CONFLICT)
        asked = self._asked[question.id] = _Asked(question)
        request.notifyFinish().addErrback(lambda _: asked.cancel())
        try:
            answer = yield from self._answer(asked)
        finally:
            del self._asked[question.id]
        return orjson.Fragment(answer)

    def cancel(self, request: PageRequest) -> dict[str, object]:
        """Answer `POST /api/query/cancel`."""
        asked = self._asked.get(member(body(request), "id", str))
        if asked is None:
            raise RequestError("no query with this id runs", NOT_FOUND)
        asked.cancel()
        return {"cancelled": True}

    def stop(self) -> None:
        """End all that is asked."""
        for asked in list(self._asked.values()):
            asked.cancel()

    def _answer(self, asked: "_Asked") -> Generator[Deferred[Any], Any, bytes]:
        """Wait for a turn, and for the answer.

        Raises:
            RequestError: there is none.
        """
        try:
            asked.turn = self._turns.acquire()
            yield asked.turn
            try:
                answer: bytes = yield self._in_thread(asked.run, self._layout)
            finally:
                self._turns.release()
        except CancelledError:
            raise RequestError("the query was cancelled", CONFLICT) from None
        except QueryError as error:
            raise RequestError(str(error), _code(error), **_place(error, asked)) from error
        return answer


class _Asked:
    """One question, from when it comes to its end. Only `run` is called in a thread."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._is_cancelled = False
        self.turn: Deferred[Any] | None = None
        self._lock = threading.Lock()
        self._query: Query | None = None

    def run(self, layout: Layout) -> bytes:
        """Ask the log; blocks.

        Raises:
            QueryError: there is no answer.
        """
        asked = self.question
        query = Query(layout, asked.sql, scope=asked.scope, limits=asked.limits, form="json")
        with self._lock:
            self._query = query
            is_cancelled = self._is_cancelled
        if is_cancelled:
            query.cancel()
        return query.json()

    def cancel(self) -> None:
        """End it, whether it waits or runs."""
        with self._lock:
            self._is_cancelled = True
            query = self._query
        if query is not None:
            query.cancel()
        elif self.turn is not None and not self.turn.called:
            self.turn.cancel()


def _code(error: QueryError) -> int:
    match error:
        case QueryTimeoutError():
            return GATEWAY_TIMEOUT
        case QueryCancelledError():
            return CONFLICT
        case _:
            return BAD_REQUEST


def _place(error: QueryError, asked: _Asked) -> dict[str, object]:
    """Say where in the SQL the mistake is: in characters from 0, and for people from 1."""
    at = error.position
    if at is None:
        return {}
    before = asked.question.sql[:at]
    return {
        "position": at,
        "line": before.count("\n") + 1,
        "column": at - (before.rfind("\n") + 1) + 1,
    }


def _moment(value: dict[str, Any], name: str) -> datetime | None:
    if value.get(name) is None:
        return None
    return datetime.fromtimestamp(_number(value, name, 0.0, 0.0, _FAR), UTC)


def _number(value: dict[str, Any], name: str, default: float, least: float, most: float) -> float:
    number = value.get(name)
    if number is None:
        return default
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise RequestError(f"{name} is not a number")
    if not least <= number <= most:
        raise RequestError(f"{name} is from {least:g} to {most:g}")
    return float(number)
