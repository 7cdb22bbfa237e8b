"""Questions to the log, in SQL.

    result = run_query(Layout(Path("ingest-data")), "SELECT device, count(*) FROM log GROUP BY 1")
    print(result.columns, result.rows)

The query reads one view, `log`: the columns of `schema.RECORD` and one for each field that
devices send. It can do nothing else. It runs in a process of its own, at a low priority, within
limits of time and memory: whatever it is, it harms neither the log nor the process that asks.

A program that must not wait runs `Query.result` in a thread, and calls `Query.cancel` from any.
"""

import math
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, cast

import orjson
import pyarrow
from pyarrow import ipc

from ingest.layout import Layout
from ingest.watch.scope import Scope

_MAX_SQL = 1 << 20  # characters
_PROGRAM = (
    "import sys; sys.modules['numpy'] = None;"  # pyarrow does without it; a quarter of the start
    " from ingest.watch.query_process import main; main()"
)
_EVERYTHING = Scope()
_FIVE_DIGITS = re.compile("-|[0-9]{5}")  # a year that RFC 3339 has not
TYPES = b"types"  # the key of the columns' types in the metadata of the Arrow stream


@dataclass(frozen=True)
class Limits:
    """What a query may take.

    Attributes:
        seconds: until it is ended.
        memory: bytes.
        rows: of the result; what comes behind is left out. None for all.
        size: bytes of the result; as `rows`.
        threads: that work on it.
    """

    seconds: float = 30.0
    memory: int = 512 << 20
    rows: int | None = 10_000
    size: int | None = 64 << 20
    threads: int = 1


_DEFAULT = Limits()


class QueryError(Exception):
    """A query has no result; the text says why, for the one who wrote it.

    Attributes:
        position: where in the SQL the mistake is, in characters from 0; None if that is unknown.
    """

    def __init__(self, text: str, position: int | None = None) -> None:
        super().__init__(text)
        self.position = position


class QueryTimeoutError(QueryError):
    """It took longer than it may."""


class QueryCancelledError(QueryError):
    """`Query.cancel` was called."""


@dataclass(frozen=True)
class Result:
    """The rows of a query.

    Attributes:
        table: the rows, as Arrow.
        truncated: whether rows are missing because of `Limits.rows` or `Limits.size`.
        seconds: how long it took.
        damaged: says of which files only the first part was read, and what to do.
    """

    table: pyarrow.Table
    truncated: bool
    seconds: float
    damaged: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns' names. Two may be alike."""
        return cast(list[str], self.table.column_names)

    @property
    def types(self) -> list[str]:
        """The columns' types, as DuckDB names them."""
        return column_types(self.table.schema)

    @cached_property
    def rows(self) -> list[tuple[object, ...]]:
        """The rows, as values that JSON has: see `plain`."""
        return list(plain_rows(self.table.schema, self.table.to_batches()))


class Query:
    """A query that runs. Its process is started at once, and ended by `close` at the latest.

    Attributes:
        damaged: after `finish`, see `Result.damaged`.
    """

    def __init__(
        self,
        layout: Layout,
        sql: str,
        *,
        scope: Scope = _EVERYTHING,
        limits: Limits = _DEFAULT,
        form: Literal["arrow", "json"] = "arrow",
    ) -> None:
        """Start it.

        Args:
            layout: the data folder.
            sql: one SELECT.
            scope: which records the view has.
            limits: what it may take.
            form: how its process writes the rows: for `result` and `open`, or for `json`.

        Raises:
            QueryError: `sql` is too long, or no text.
        """
        if len(sql) > _MAX_SQL:
            raise QueryError(f"a query has at most {_MAX_SQL:,} characters")
        request: dict[str, Any] = {
            "data": str(layout.data),
            "sql": sql,
            "scope": asdict(scope),
            "limits": asdict(limits),
            "form": form,
            "begun": time.monotonic(),  # the same clock in all processes
        }
        try:
            line = orjson.dumps(request) + b"\n"
        except orjson.JSONEncodeError as error:
            raise QueryError("the query is not UTF-8") from error
        self._why: QueryError | None = None
        self.damaged: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._begun = request["begun"]
        self._process = subprocess.Popen(
            # Without -P it would import what lies in the folder where it is started.
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        late = QueryTimeoutError(f"the query took longer than {limits.seconds:g} s, and was ended")
        self._timer = threading.Timer(limits.seconds, self._end, [late])
        self._timer.daemon = True
        self._timer.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is told when its answer is read

    def __enter__(self) -> "Query":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """End it; whoever waits for its result gets `QueryCancelledError`."""
        self._end(QueryCancelledError("the query was cancelled"))

    def close(self) -> None:
        """End it if it still runs, and let go of everything."""
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def result(self) -> Result:
        """Wait for all rows, and close.

        Raises:
            QueryError: there is no result.
        """
        with self:
            reader = self.open()
            try:
                table = reader.read_all()
            except (pyarrow.ArrowException, OSError):
                table = reader.schema.empty_table()  # it broke off; `finish` says why
            truncated = self.finish()
            return Result(table, truncated, time.monotonic() - self._begun, self.damaged)

    def json(self) -> bytes:
        """Wait for all rows as one object of JSON, and close.

        It has `columns`, each an object with `name` and `type`, `rows`, each an array,
        `truncated`, `seconds`, perhaps `damaged`. Nothing of it is made in this process.

        Raises:
            QueryError: there is no result.
        """
        with self:
            assert self._process.stdout is not None
            answer = self._process.stdout.read()
            self.finish()
            return answer

    def open(self) -> ipc.RecordBatchStreamReader:
        """Wait for the first rows, and return what reads them all; then call `finish`.

        Raises:
            QueryError: there is no result.
        """
        try:
            return ipc.open_stream(self._process.stdout)
        except (pyarrow.ArrowException, OSError) as error:
            self.finish()
            raise QueryError("the query ended without a result") from error

    def finish(self) -> bool:
        """Wait for the end, after all rows were read, and tell whether some were left out.

        Raises:
            QueryError: the rows are not all that there are.
        """
        process = self._process
        assert process.stderr is not None
        said = process.stderr.read()
        code = process.wait()
        with self._lock:
            if self._why is not None:
                raise self._why
            self._timer.cancel()
        try:
            outcome = orjson.loads(said)
        except orjson.JSONDecodeError as error:
            raise QueryError(_why_ended(code, said)) from error
        if "error" in outcome:
            raise QueryError(outcome["error"], outcome["position"])
        self.damaged = tuple(outcome["damaged"])
        return bool(outcome["truncated"])

    def _end(self, why: QueryError) -> None:
        with self._lock:
            if self._why is None and self._process.poll() is None:
                self._why = why
                self._process.kill()


def run_query(
    layout: Layout, sql: str, *, scope: Scope = _EVERYTHING, limits: Limits = _DEFAULT
) -> Result:
    """Ask the log. See `Query` for the arguments.

    Raises:
        QueryError: there is no result.
    """
    return Query(layout, sql, scope=scope, limits=limits).result()


def column_types(schema: pyarrow.Schema) -> list[str]:
    """Return the types of a query's columns, as DuckDB names them."""
    return cast(list[str], orjson.loads(schema.metadata[TYPES]))


def plain_rows(
    schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch]
) -> Iterator[tuple[object, ...]]:
    """Go through the rows of a query, with values that JSON has; a column of JSON is text."""
    return _rows(batches, [plain] * len(schema))


def json_rows(
    schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch]
) -> Iterator[tuple[object, ...]]:
    """Go through the rows of a query, with values for `orjson.dumps`."""
    return _rows(batches, [_fragment if kind == "JSON" else plain for kind in column_types(schema)])


def _rows(
    batches: Iterable[pyarrow.RecordBatch], converters: Sequence[Callable[[object], object]]
) -> Iterator[tuple[object, ...]]:
    for batch in batches:
        columns = [
            map(convert, _values(column))
            for convert, column in zip(converters, batch.columns, strict=True)
        ]
        yield from zip(*columns, strict=True)


def _values(column: pyarrow.Array) -> list[object]:
    """Return the values of a column as Python has them."""
    try:
        return cast(list[object], column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(each) for each in column]


def _value(scalar: pyarrow.Scalar) -> object:
    """Return a value, a moment as text if Python has none so fine, or None if it is too far."""
    match scalar:
        case pyarrow.Scalar(is_valid=False):
            return None
        case pyarrow.StructScalar():
            return {name: _value(each) for name, each in scalar.items()}
        case pyarrow.MapScalar():
            return [(_value(pair["key"]), _value(pair["value"])) for pair in scalar.values]
        case pyarrow.ListScalar():
            return [_value(each) for each in scalar.values]
        case pyarrow.TimestampScalar() | pyarrow.Date32Scalar() | pyarrow.Time64Scalar():
            text = str(scalar.cast(pyarrow.string()).as_py())
            is_moment = isinstance(scalar, pyarrow.TimestampScalar)
            spelled = f"{text.removesuffix('Z').replace(' ', 'T')}Z" if is_moment else text
            return None if text.startswith("<") or _FIVE_DIGITS.match(text) else spelled
    return scalar.as_py()


def _fragment(value: object) -> object:
    """Make of a text that is JSON what `orjson.dumps` puts in as it is."""
    return None if value is None else orjson.Fragment(cast(str, value))


def plain(value: object) -> object:
    """Make of a value of Arrow what JSON has.

    Integers beyond 64 bits are rounded; times are RFC 3339 in UTC; NaN, infinities and moments
    outside of the years 1 to 9999 are null; bytes are hexadecimal digits; a map is a list of pairs;
    what JSON has nothing for, such as an interval, is text.
    """
    match value:
        case int():
            return value if -(1 << 63) <= value < 1 << 64 else float(value)
        case None | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return plain(int(value)) if value == value.to_integral_value() else float(value)
        case datetime():
            utc = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return utc.isoformat() + "Z"
        case bytes():
            return value.hex()
        case list():
            return [plain(item) for item in value]
        case (_, _) if type(value) is tuple:  # of a map; an interval is a named one
            return [plain(item) for item in value]
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case _:
            return str(value)


def _why_ended(code: int, said: bytes) -> str:
    if code == -signal.SIGXCPU:
        return "the query took more time of the processor than it may, and was ended"
    lines = said.decode(errors="replace").strip().splitlines()
    return f"the query's process ended ({code}): {lines[-1] if lines else 'out of memory?'}"
