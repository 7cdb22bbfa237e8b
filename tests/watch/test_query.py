"""Queries: every record once whatever happens beside them, and nothing but the view."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import orjson
import pytest

from ingest.journal.archive import ArchivePolicy, Archivist
from ingest.journal.clock import Clock
from ingest.journal.rotation import RetentionPolicy
from ingest.layout import Layout
from ingest.log.files import ACTIVE, rotated_name
from ingest.watch.checking import RefusedError, check
from ingest.watch.columns import Converter
from ingest.watch.query import (
    Limits,
    Query,
    QueryCancelledError,
    QueryError,
    QueryTimeoutError,
    run_query,
)
from ingest.watch.schema import MAX_FIELDS, RECORD, quoted
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Snapshot
from ingest.watch.view import LogView, connect
from tests.log.logs import WrittenLog, at, line, write
from tests.support.journals import Report
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.logs import LIMITS, ask, close, convert_all, data_line, rows, text_line

COUNT = "SELECT count(*), count(DISTINCT seq), coalesce(max(seq), 0) FROM log"


@pytest.fixture
def readings(layout: Layout) -> Layout:
    """Six readings: in Parquet, in files of each kind, and in the active one."""
    close(layout, 1, data_line(1, {"temp": 1.5}, "a1"))
    convert_all(layout)
    close(layout, 2, data_line(2, {"temp": 2.5}, "a2"))
    close(layout, 3, text_line(3, "temp=3.5", "b1"), suffix=".zst")
    close(layout, 4, data_line(4, {"temp": 4.5}, "b2"), suffix=".gz")
    write(layout.log_folder / "ingest.log.1", text_line(5, '{"temp":5.5}', "a1"))
    (layout.log_folder / ACTIVE).write_bytes(line(6, '"raw":"/w=="') + b"\n" + line(7)[:-3])
    return layout


def test_the_view_is_all_of_the_log(readings: Layout) -> None:
    assert rows(readings, "SELECT seq, device, kind, temp FROM log ORDER BY seq") == [
        (1, "a1", "data", 1.5),
        (2, "a2", "data", 2.5),
        (3, "b1", "text", 3.5),
        (4, "b2", "data", 4.5),
        (5, "a1", "text", 5.5),
        (6, "a", "raw", None),
    ]


def test_a_result_has_names_types_and_values_of_json(readings: Layout) -> None:
    result = ask(readings, "SELECT time, device, seq, temp, data FROM log WHERE seq = 1")
    assert result.columns == ["time", "device", "seq", "temp", "data"]
    assert result.types == ["TIMESTAMP", "VARCHAR", "BIGINT", "DOUBLE", "JSON"]
    assert result.rows == [("2026-11-22T11:00:01Z", "a1", 1, 1.5, '{"temp":1.5}')]
    answer = as_json(readings, "SELECT time, device, seq, temp, data FROM log WHERE seq = 1")
    assert b'"rows":[["2026-11-22T11:00:01Z","a1",1,1.5,{"temp":1.5}]]' in answer
    result = ask(readings, "SELECT 'nan'::DOUBLE, 1.25::DECIMAL(9, 2), sum(seq), '\\xFF'::BLOB, "
                 "[{'a': 1}], INTERVAL 1 DAY, NULL FROM log")  # fmt: skip
    *values, interval, nothing = result.rows[0]
    assert values == [None, 1.25, 21, "ff", [{"a": 1}]]
    assert isinstance(interval, str)
    assert nothing is None


MOMENTS = {
    "TIMESTAMP_NS '2026-01-01 00:00:00.123456789'": "2026-01-01T00:00:00.123456789Z",
    "TIME_NS '10:00:00.123456789'": "10:00:00.123456789",
    "'infinity'::TIMESTAMP": None,
    "'infinity'::TIMESTAMPTZ": None,
    "'290000-01-01 (BC)'::TIMESTAMP": None,
    "'-infinity'::DATE": None,
    "['infinity'::DATE, NULL, '2026-01-01'::DATE]": [None, None, "2026-01-01"],
    "{'a': [MAP {'k': 'infinity'::TIMESTAMP}]}": {"a": [[["k", None]]]},
    "MAP {'k': 1, 'l': NULL}": [["k", 1], ["l", None]],
}


def test_moments_that_python_has_not(layout: Layout) -> None:
    assert ask(layout, f"SELECT {', '.join(MOMENTS)}").rows == [tuple(MOMENTS.values())]


def test_no_bar_of_progress_stands_among_the_rows() -> None:
    """DuckDB writes one to standard output, where the rows are, once a query takes two seconds."""
    with connect(threads=1, memory=1 << 28) as connection:
        found = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    assert found == [(False,)]


def test_integers_beyond_64_bits_are_rounded(layout: Layout) -> None:
    sql = "SELECT 18446744073709551615::UBIGINT, 2::HUGEINT * 9223372036854775808, true"
    result = ask(layout, sql)
    assert result.rows == [(2**64 - 1, 2.0**64, True)]
    assert b"[[18446744073709551615,1.8446744073709552e+19,true]]" in as_json(layout, sql)


def as_json(layout: Layout, sql: str, limits: Limits = LIMITS) -> bytes:
    return Query(layout, sql, limits=limits, form="json").json()


def test_json_is_the_same_as_the_rows(layout: Layout) -> None:
    texts = ['\\n\u2028"', "é" * 50, '{"x": [1, 2]}', "last"]
    lines = (text_line(seq, texts[seq % 4]) for seq in range(20_000))
    write(layout.log_folder / ACTIVE, *lines)
    sql = "SELECT seq, text, x, {'a': [seq]} AS deep FROM log ORDER BY seq"
    answer = orjson.loads(as_json(layout, sql))
    result = ask(layout, sql)
    kinds = {"seq": "BIGINT", "text": "VARCHAR", "x": "JSON", "deep": "STRUCT(a BIGINT[])"}
    assert answer["columns"] == [{"name": name, "type": kind} for name, kind in kinds.items()]
    for row, wanted in zip(answer["rows"], result.rows, strict=True):
        assert [*row[:2], row[3]] == [*wanted[:2], wanted[3]]
        assert row[2] == (None if wanted[2] is None else orjson.loads(str(wanted[2])))
    assert answer["truncated"] is False
    assert 0 < answer["seconds"] < 3600
    for rows_, size, count in [(9000, None, 9000), (0, None, 0), (None, 1, 0)]:
        cut = orjson.loads(as_json(layout, sql, Limits(60, rows=rows_, size=size)))
        assert cut["truncated"] is True
        assert cut["rows"] == answer["rows"][:count]
    assert orjson.loads(as_json(layout, "FROM log WHERE seq < 0"))["rows"] == []
    with pytest.raises(QueryError, match="Could not convert"):
        as_json(layout, "SELECT text::INT FROM log ORDER BY seq")


def test_a_query_that_is_no_text(layout: Layout) -> None:
    with pytest.raises(QueryError, match="not UTF-8"):
        run_query(layout, "SELECT '\udcff'")
    with pytest.raises(QueryError, match="at most"):
        run_query(layout, "SELECT 1" + " " * (1 << 20))


def test_the_columns_of_a_record_that_may_be_missing(layout: Layout) -> None:
    extra = '"event_time":"2026-11-22T12:30:00.5+01:00","tag":"t","chunk":"c","text":"x"'
    lines = [line(1), line(2, extra)]
    close(layout, 1, *lines)
    sql = "SELECT event_time, tag, chunk, text FROM log ORDER BY seq"
    expected = [(None, None, None, "x"), ("2026-11-22T11:30:00.500000Z", "t", "c", "x")]
    assert rows(layout, sql) == expected
    convert_all(layout)
    assert rows(layout, sql) == expected


def test_a_log_without_lines(layout: Layout) -> None:
    assert rows(layout, "SELECT count(*) FROM log") == [(0,)]
    assert [name for name, *_ in rows(layout, "DESCRIBE log")] == list(RECORD)


def test_no_log_at_all(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"can't read the log in .*No such file.*--data"):
        run_query(Layout(tmp_path / "missing"), "FROM log")


def test_a_copy_that_copytruncate_makes_counts_once(layout: Layout) -> None:
    write(layout.log_folder / ACTIVE, line(1), line(2), line(3))
    write(layout.log_folder / "ingest.log.1", line(1), line(2))
    assert rows(layout, COUNT) == [(3, 3, 3)]


class Churn:
    """A log that grows, and is rotated, compressed and converted many times a second."""

    def __init__(self, layout: Layout) -> None:
        self.written = 0
        self._layout = layout
        self._stopped = threading.Event()
        work = (self._write, self._archive, self._convert)
        self._threads = [threading.Thread(target=self._repeat, args=[step]) for step in work]
        self._failures: list[BaseException] = []
        self._newest: str | None = None
        self._archivist = Archivist(layout.log_folder, ArchivePolicy("zstd"), Report(), Clock())
        self._converter = Converter(layout)

    def __enter__(self) -> "Churn":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._converter.stop()
        assert self._failures == []

    def _repeat(self, step: object) -> None:
        assert callable(step)
        try:
            while not self._stopped.wait(0.05):
                step()
        except BaseException as error:
            self._failures.append(error)

    def _write(self) -> None:
        active = self._layout.log_folder / ACTIVE
        for _ in range(3):
            first = self.written + 1
            block = b"".join(data_line(seq, {"n": seq}) + b"\n" for seq in range(first, first + 50))
            with active.open("ab", buffering=0) as stream:
                stream.write(block[:1000])  # a query may see a torn line
                stream.write(block[1000:])
            self.written += 50
        self._newest = rotated_name(at(self.written), self._newest)
        active.rename(self._layout.log_folder / self._newest)

    def _archive(self) -> None:
        self._archivist.tidy()

    def _convert(self) -> None:
        self._converter.convert_next()


def test_every_record_is_counted_once_while_files_are_rotated_compressed_and_converted(
    layout: Layout,
) -> None:
    states = set()
    with Churn(layout) as churn:
        for _ in range(12):
            before = churn.written
            ((count, distinct, last),) = rows(layout, COUNT)
            after = churn.written + 50
            assert count == distinct == last
            assert before <= int(str(count)) <= after
            with Snapshot(layout) as snapshot:
                states |= {(piece.parquet, piece.compressed) for piece in snapshot.pieces}
    assert rows(layout, COUNT) == [(churn.written,) * 3]
    assert states == {(True, ""), (False, ""), (False, ".zst")}


def test_a_snapshot_outlives_its_files(readings: Layout) -> None:
    with connect(threads=1, memory=1 << 28) as connection, Snapshot(readings) as snapshot:
        for path in [*readings.log_folder.iterdir(), *readings.columns_folder.glob("*/*.parquet")]:
            path.unlink()
        LogView(connection, snapshot).create(Scope(), snapshot.pieces)
        assert connection.execute("SELECT count(*) FROM log").fetchall() == [(6,)]


def test_parquet_without_its_file_does_not_count(layout: Layout) -> None:
    file = close(layout, 1, line(1))
    convert_all(layout)
    file.path.unlink()
    assert rows(layout, COUNT) == [(0, 0, 0)]


def test_a_log_that_is_cut_meanwhile_is_noticed(layout: Layout) -> None:
    log = WrittenLog(layout.log_folder)
    log.write(1000)
    with Snapshot(layout) as snapshot:
        assert not snapshot.was_cut()
        log.copy_and_truncate()
        assert snapshot.was_cut()


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        (Scope(since=at(4)), [4, 5, 6]),
        (Scope(until=at(3)), [1, 2]),
        (Scope(since=at(2), until=at(5)), [2, 3, 4]),
        (Scope(device="a1"), [1, 5]),
        (Scope(device="b*"), [3, 4]),
        (Scope(device="?2", since=at(3)), [4]),
    ],
)
def test_a_scope(readings: Layout, scope: Scope, found: list[int]) -> None:
    assert rows(readings, "SELECT seq FROM log ORDER BY seq", scope) == [(seq,) for seq in found]


def test_a_scope_has_no_sql_in_it() -> None:
    with pytest.raises(ValueError, match="names no device"):
        Scope(device="' OR true --")


TEN, ELEVEN = datetime.fromisoformat("2026-11-22T10Z"), datetime.fromisoformat("2026-11-22T11Z")
AFTER_ELEVEN = datetime.fromisoformat("2026-11-22T11:00:00.000001Z")


@pytest.mark.parametrize(
    ("sql", "limits"),
    [
        ("FROM log", (None, None)),
        ("FROM log WHERE time >= '2026-11-22 10:00:00'", (TEN, None)),
        ("FROM log WHERE time > '2026-11-22 10:00' AND device = 'a'", (TEN, None)),
        ("FROM log WHERE time <= TIMESTAMP '2026-11-22 11:00'", (None, AFTER_ELEVEN)),
        ("FROM log WHERE time BETWEEN '2026-11-22 10:00' AND '2026-11-22 11:00'",
         (TEN, AFTER_ELEVEN)),
        ("FROM log WHERE date_trunc('hour', time) = '2026-11-22 10:00'", (TEN, AFTER_ELEVEN)),
        ("WITH x AS (FROM log) SELECT max(temp) FROM x WHERE time >= '2026-11-22 10:00'",
         (TEN, None)),
        ("FROM log WHERE time >= '2026-11-22 10:00' OR temp > 1", (None, None)),
        ("FROM log WHERE time <= '9999-12-31 23:59:59.999999'", (None, None)),
        ("FROM log WHERE time < '9999-12-31'",
         (None, datetime.fromisoformat("9999-12-31T00:00:00.000001Z"))),
        ("FROM log WHERE NOT time >= '2026-11-22 10:00'",
         (None, datetime.fromisoformat("2026-11-22T10:00:00.000001Z"))),
        ("FROM log WHERE time >= '2026-11-22 11:00' UNION ALL FROM log WHERE time >= "
         "'2026-11-22 10:00'", (TEN, None)),
        ("FROM log WHERE time >= '2026-11-22 11:00' UNION ALL FROM log", (None, None)),
        ("FROM log a JOIN log b USING (seq) WHERE a.time >= '2026-11-22 11:00'", (None, None)),
        ("SELECT time + INTERVAL 1 HOUR AS time FROM log WHERE device > '2026-11-22'",
         (None, None)),
        ("FROM (SELECT device AS time, temp FROM log) WHERE time >= '2026-11-22 11:00'",
         (None, None)),
    ],
)  # fmt: skip
def test_the_times_that_a_query_asks_about(
    readings: Layout, sql: str, limits: tuple[datetime | None, datetime | None]
) -> None:
    with connect(threads=1, memory=1 << 28) as connection, Snapshot(readings) as snapshot:
        since, until, _ = LogView(connection, snapshot).plan(sql)
    wanted_since, wanted_until = limits
    # A wider span is no mistake; here it must be the right one up to a microsecond.
    assert since == wanted_since
    assert until == wanted_until


def test_files_that_do_not_matter_are_not_read(layout: Layout) -> None:
    day = 86_400
    for number in range(5):
        close(layout, number * day + 1, data_line(number * day, {"temp": number}))
    (old,) = [path for path in layout.log_folder.iterdir() if "20261122" in path.name]
    write(old.with_name(old.name + ".gz"), line(1))
    damaged = old.with_name(old.name + ".gz")
    damaged.write_bytes(damaged.read_bytes()[:10] + b"no gzip at all")
    old.unlink()
    with pytest.raises(QueryError, match="gzip"):
        rows(layout, "SELECT count(*) FROM log")
    limited = "SELECT temp FROM log WHERE time >= '2026-11-25' ORDER BY time"
    assert rows(layout, limited) == [(3,), (4,)]
    assert rows(layout, "SELECT temp FROM log ORDER BY time", Scope(since=at(3 * day - 1))) == [
        (3,),
        (4,),
    ]
    with Snapshot(layout) as snapshot:
        assert len(snapshot.between(None, at(day))) == 3  # a record may be late by a day
        assert len(snapshot.between(at(2 * day), None)) == 3


def test_files_with_different_fields(layout: Layout) -> None:
    close(layout, 1, data_line(1, {"a": 1, "n": 1}))
    close(layout, 2, data_line(2, {"b": "x", "n": 2}))
    close(layout, 3, data_line(3, {"n": 3.5, "a": True}))
    convert_all(layout)
    assert rows(layout, "SELECT count(*), sum(n) FROM log") == [(3, 6.5)]
    assert rows(layout, "SELECT seq FROM log WHERE b = 'x'") == [(2,)]
    assert rows(layout, "SELECT count(*) FROM log WHERE COLUMNS('^b$') = 'x'") == [(1,)]
    assert rows(layout, "SELECT data FROM log ORDER BY seq") == [
        ('{"a":1,"n":1}',),
        ('{"b":"x","n":2}',),
        ('{"n":3.5,"a":true}',),
    ]
    result = ask(layout, "FROM log WHERE seq = 2")
    row = dict(zip(result.columns, result.rows[0], strict=True))
    assert {name: row[name] for name in "abn"} == {"a": None, "b": "x", "n": 2.0}


def test_times_at_the_end_of_time(readings: Layout) -> None:
    sql = "SELECT count(*) FROM log WHERE time BETWEEN '0001-01-01' AND '9999-12-31'"
    assert rows(readings, sql) == [(6,)]
    assert rows(readings, "SELECT count(*) FROM log WHERE time < 'infinity'") == [(6,)]


def test_parquet_of_somebody_else_is_named(layout: Layout) -> None:
    close(layout, 1, line(1))
    (path,) = convert_all(layout)
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT 1 AS x) TO '{path}'")
    with pytest.raises(QueryError, match=r"parquet: it is none of ours"):
        rows(layout, "FROM log")
    path.write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(QueryError, match=path.name):
        rows(layout, "FROM log")


NESTED = [
    {"measurement": "w", "tags": {"place": "roof"}, "fields": {"temp": 20, "ok": True}},
    {"measurement": "w", "tags": {"place": "hall"}, "fields": {"temp": 21.5, "a/b": "x"}},
    {"fields": "none", "tags": {"place": None, "deep": {"er": {"x": [1, {"y": 2}]}}}},
    {"fields": {}, "pos.lat": 1.5},
    [{"fields": 1}],
]


@pytest.mark.parametrize("converted", [0, 3, len(NESTED)])
def test_keys_within_objects_are_columns(layout: Layout, converted: int) -> None:
    for number, frame in enumerate(NESTED):
        if number == converted:
            convert_all(layout)
        close(layout, 10 + number, data_line(number, frame))
    if converted == len(NESTED):
        convert_all(layout)
    text = '{"tags":{"place":"text"},"fields":{"temp":1e1}}'
    write(layout.log_folder / ACTIVE, text_line(8, text), text_line(9, "pos.lat=2.5"))
    assert rows(layout, '''
        SELECT seq, "tags.place", "fields.temp", "fields.ok", "fields.a/b", "pos.lat",
            "tags.deep.er.x", fields.temp
        FROM log ORDER BY seq''') == [
        (0, "roof", 20.0, True, None, None, None, "20"),
        (1, "hall", 21.5, None, "x", None, None, "21.5"),
        (2, None, None, None, None, None, '[1,{"y":2}]', None),
        (3, None, None, None, None, 1.5, None, None),
        (4, None, None, None, None, None, None, None),
        (8, "text", 10.0, None, None, None, None, "10.0"),
        (9, None, None, None, None, 2.5, None, None),
    ]  # fmt: skip
    assert rows(layout, 'SELECT avg(f."fields.temp") FROM log f') == [(51.5 / 3,)]
    with pytest.raises(QueryError, match=r'avg.*JSON(?s:.*)"fields.temp", in quotes'):
        rows(layout, "SELECT avg(fields.temp) FROM log")


SAID = 'say "\\hi"'


def rare(seq: int) -> bytes:
    """A record that has the rare fields, among many that have others."""
    values = {"n": seq, "big": 2**60 + seq, "rare": seq, "Odd one, 50%": "yes", "o": {"in": 7}}
    values[SAID] = "ho"
    return data_line(seq, values if seq == 25_000 else {"n": seq, "pad": "x" * 60})


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_a_field_that_no_sample_shows_is_found_by_its_name(layout: Layout, suffix: str) -> None:
    close(layout, 1, *map(rare, range(40_000)), suffix=suffix)
    sql = f"""SELECT seq, big, rare, "Odd one, 50%", "o.in", typeof(rare), typeof("o.in"),
        {quoted(SAID)} FROM log
        WHERE rare > 0 AND l IS NULL AND "sub.key" IS NULL"""
    wanted = [(25_000, 2**60 + 25_000, 25_000, "yes", 7.0, "BIGINT", "DOUBLE", "ho")]
    pairs = text_line(40_000, "l=1 sub.key=x")
    write(layout.log_folder / ACTIVE, *map(rare, range(40_001, 70_000)), pairs)
    with Snapshot(layout) as snapshot, connect(threads=1, memory=1 << 28) as connection:
        assert not {"rare", "o.in", "Odd one, 50%"} & LogView(connection, snapshot).columns.keys()
    assert rows(layout, sql) == wanted
    convert_all(layout)
    assert rows(layout, sql) == wanted


def test_names_that_are_no_fields_are_not_made_columns(readings: Layout) -> None:
    write(readings.log_folder / "ingest.log.2", data_line(9, {"rowid": 1, "log": 2, "$pairs": 3}))
    for name in ["rowid", "filename", "a" * 10_000, "'; FROM log --"]:
        with pytest.raises(QueryError, match="not found"):
            rows(readings, f'SELECT "{name}" FROM log')
    assert rows(readings, 'SELECT data_log, "$pairs" FROM log WHERE data_rowid = 1') == [(2, 3)]
    with pytest.raises(QueryError, match="more than 100 columns"):
        rows(readings, f"SELECT {', '.join(f'u{number}' for number in range(1000))} FROM log")


def test_what_fails_after_the_first_rows_is_explained(layout: Layout) -> None:
    texts = (text_line(seq, "x" if seq == 30_000 else "1") for seq in range(40_000))
    write(layout.log_folder / ACTIVE, *texts)
    with pytest.raises(QueryError, match=r"^Could not convert string 'x' to INT32"):
        ask(layout, "SELECT text::INTEGER FROM log")
    with pytest.raises(QueryError, match="more memory than it may take, 512"):
        as_json(layout, "SELECT repeat('x', 1000000) FROM range(100000)")


def test_a_field_beyond_the_columns_of_parquet_is_found_by_its_name(layout: Layout) -> None:
    many = [{f"k{number}": seq for number in range(MAX_FIELDS + 20)} for seq in range(3)]
    close(layout, 1, *(data_line(seq, frame) for seq, frame in enumerate(many)))
    sql = f"SELECT sum(k0), sum(k{MAX_FIELDS + 19}) FROM log"
    assert rows(layout, sql) == [(3, 3)]
    convert_all(layout)
    assert rows(layout, sql) == [(3, 3)]


def test_a_fraction_in_a_file_that_is_not_sampled_is_not_rounded(layout: Layout) -> None:
    for number in range(30):
        close(layout, number, data_line(number, {"n": 0.5 if number == 3 else number}))
    assert rows(layout, "SELECT sum(n) FROM log") == [(sum(range(30)) - 2.5,)]


def test_a_record_as_a_whole_has_all_fields(layout: Layout) -> None:
    close(layout, 1, data_line(1, {"temp": 1.5, "tags": {"place": "roof"}}))
    sql = "SELECT to_json(l)->>'temp', to_json(l)->>'/tags.place' FROM log AS l"
    assert rows(layout, sql) == [("1.5", "roof")]
    convert_all(layout)
    assert rows(layout, sql) == [("1.5", "roof")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_fraction_that_no_sample_shows_is_not_rounded(layout: Layout, suffix: str) -> None:
    values = [{"n": seq + 0.5 if seq == 25_000 else seq, "m": seq} for seq in range(40_000)]
    lines = [data_line(seq, frame | {"pad": "x" * 60}) for seq, frame in enumerate(values)]
    close(layout, 1, *lines, suffix=suffix)
    sql = "SELECT sum(n), typeof(any_value(m)) FROM log"
    assert rows(layout, sql) == [(sum(frame["n"] for frame in values), "BIGINT")]
    convert_all(layout)
    assert rows(layout, sql) == [(sum(frame["n"] for frame in values), "BIGINT")]


def test_what_nests_deeply_is_text(layout: Layout) -> None:
    deep = '{"a":' * 10_000 + "1" + "}" * 10_000
    lists = '{"b":' + "[" * 30_000 + "]" * 30_000 + "}"
    close(layout, 1, text_line(1, deep), text_line(2, lists), text_line(3, '{"c":1}'))
    sql = "SELECT text FROM log ORDER BY seq"
    expected = [(deep,), (lists,), ('{"c":1}',)]
    assert rows(layout, sql) == expected
    converter = Converter(layout)
    assert converter.convert_next()
    converter.stop()
    assert rows(layout, sql) == expected
    assert rows(layout, "SELECT c FROM log WHERE seq = 3") == [(1,)]


def test_now_is_utc_as_times_are(layout: Layout) -> None:
    assert rows(layout, "SELECT abs(epoch(now()) - epoch(current_timestamp)) < 60") == [(True,)]
    assert rows(layout, "SELECT count(*) FROM log WHERE time > now() - INTERVAL 1 HOUR") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "said", "position"),
    [
        ("SELEC 1", "syntax error", 0),
        ("SELECT 'é',\n FROM FROM log", "syntax error", 18),
        ("SELECT tmep FROM log", r'"tmep" not found(?s:.*)columns of log are: time, .*temp', 7),
        ("SELECT 'é',\n tmep FROM log", '"tmep" not found', 13),
        ("SELECT foo(1)", "foo does not exist", 7),
        ("SELECT text + 1 FROM log", "No function matches", 12),
        ("SELECT 1 +", "syntax error", None),
        ("", "one SELECT is wanted, not 0", None),
        ("SELECT 'x'::INT", "Could not convert", None),
    ],
)  # fmt: skip
def test_mistakes_are_explained(
    readings: Layout, sql: str, said: str, position: int | None
) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        rows(readings, sql)
    if position is not None:
        assert caught.value.position == position


REFUSED = [
    "SELECT * FROM '/etc/passwd'",
    'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('/proc/self/fd/5')",
    "SELECT * FROM parquet_metadata('/proc/self/fd/5')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM 'http://127.0.0.1/x.csv'",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM memory.main.log",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('log')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT (SELECT max(content) FROM read_text('/etc/passwd'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "WITH x AS (FROM read_text('/etc/passwd')) FROM x",
    'SELECT * FROM "/etc/passwd", (WITH "/etc/passwd" AS (SELECT 1) SELECT 1) AS x',
    "SELECT * FROM log, LATERAL (SELECT * FROM read_text(device)) AS x",
    "SELECT getenv('HOME')",
    "SELECT current_setting('allowed_paths')",
    "SELECT getvariable('x')",
    "SELECT write_log('x')",
    "SELECT system.main.getenv('HOME')",
    "COPY log TO '/tmp/x'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "ATTACH '/tmp/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 99",
    "RESET lock_configuration",
    "PRAGMA version",
    "CREATE TABLE x (i INT)",
    "CREATE MACRO log() AS 1",
    "INSERT INTO log VALUES (1)",
    "DELETE FROM log",
    "DROP VIEW log",
    "WITH x AS (COPY log TO '/tmp/x') FROM x",
    "WITH x AS (DELETE FROM log RETURNING *) FROM x",
    "WITH x AS (INSERT INTO log VALUES (1) RETURNING *) FROM x",
    "SELECT (WITH x AS (UPDATE log SET seq = 1 RETURNING seq) FROM x)",
    "EXPORT DATABASE '/tmp/x'",
    "CALL pragma_version()",
    "CHECKPOINT",
    "USE memory",
    "PREPARE x AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "BEGIN",
    "SHOW TABLES",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '/tmp/x'",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
]


@pytest.mark.parametrize("sql", REFUSED)
def test_a_way_out_is_refused(sql: str) -> None:
    with duckdb.connect() as connection, pytest.raises(RefusedError):
        check(connection, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM log",
        "TABLE log",
        "SELECT * FROM LOG AS l JOIN log USING (device, seq)",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < 5) FROM r",
        "SELECT * FROM range(3), generate_series(1, 2), unnest([1])",
        "SELECT device, row_number() OVER (PARTITION BY device ORDER BY seq) FROM log",
        "VALUES (1), (2)",
        "DESCRIBE log",
        "SUMMARIZE SELECT temp FROM log",
        "FROM log PIVOT (avg(temp) FOR device IN ('a', 'b'))",
        "SELECT data->>'$.a.b', regexp_extract(text, 'x') FROM log QUALIFY seq > 1",
    ],
)
def test_what_reads_the_view_is_not(sql: str) -> None:
    with duckdb.connect() as connection:
        check(connection, sql)


LOCKED = """
import os, socket, sys
from pathlib import Path
from ingest.layout import Layout
from ingest.watch import confinement
from ingest.watch.query_process import lock
from ingest.watch.scope import Scope
from ingest.watch.snapshot import Snapshot
from ingest.watch.view import LogView, connect
layout = Layout(Path(sys.argv[1]))
with Snapshot(layout) as snapshot:
    confinement.allow_only(piece.fd for piece in snapshot.pieces)
    connection = connect(threads=4, memory=1 << 28)
    LogView(connection, snapshot).create(Scope(), snapshot.pieces)
    lock(connection, layout)
    print(connection.execute("SELECT count(*) FROM log").fetchall())
    for sql in sys.stdin.read().splitlines():
        try:
            connection.execute(sql).fetchall()
            print("done", sql)
        except Exception as error:
            pass
    for what in (
        lambda: open("/etc/hostname"),
        lambda: open(sys.argv[1] + "/log/ingest.log", "a"),
        lambda: open(snapshot.pieces[-1].path, "r+"),
        lambda: open(sys.argv[1] + "/new", "w"),
        lambda: os.unlink(sys.argv[1] + "/log/ingest.log"),
        lambda: os.listdir("/"),
        lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2]))),
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: os.execv("/bin/true", ["true"]),
    ):
        try:
            what()
            print("done", what)
        except PermissionError:
            pass
    print(os.pread(snapshot.pieces[-1].fd, 8, 0))
"""


def test_a_query_that_got_past_the_check_would_still_reach_nothing(readings: Layout) -> None:
    active = readings.log_folder / ACTIVE
    attempts = [
        f"COPY (SELECT 1) TO '{readings.data}/evil.csv'",
        f"COPY (SELECT 1) TO '{active}'",
        f"ATTACH '{readings.data}/evil.db'",
        "SELECT * FROM read_text('/etc/hostname')",
        f"SELECT * FROM read_text('{readings.devices}')",
        "SELECT * FROM glob('/etc/*')",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/etc/hostname']",
        "SET memory_limit = '100GB'",
        "RESET lock_configuration",
        "INSTALL httpfs",
        "LOAD httpfs",
    ]
    readings.devices.write_bytes(b"secret")
    content = active.read_bytes()
    with _server() as port:
        done = subprocess.run(
            [sys.executable, "-c", LOCKED, str(readings.data), str(port)],
            input="\n".join(attempts),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stderr == ""
    assert done.stdout == f"[(6,)]\n{content[:8]!r}\n"
    assert active.read_bytes() == content
    assert {path.name for path in readings.data.iterdir()} == {"log", "state", "columns"}


@contextmanager
def _server() -> Iterator[int]:
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
        "SELECT count(*) FROM range(1000000000000)",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range + b.range = 3",
    ],
)
def test_what_never_ends_is_ended(readings: Layout, sql: str) -> None:
    with pytest.raises(QueryTimeoutError, match=r"longer than 2 s"):
        run_query(readings, sql, limits=Limits(seconds=2))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM range(100000000) ORDER BY hash(range)",
        "SELECT string_agg(repeat('x', 1000000)) FROM range(100000)",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT DISTINCT hash(range) FROM range(1000000000)",
    ],
)
def test_what_eats_memory_is_ended(readings: Layout, sql: str) -> None:
    with pytest.raises(QueryError, match=r"more memory than it may take, 64\.0 MiB"):
        run_query(readings, sql, limits=Limits(seconds=PATIENCE, memory=64 << 20))


def test_no_more_rows_than_wanted(layout: Layout) -> None:
    result = ask(layout, "FROM range(100000)", limits=Limits(rows=12_345))
    assert (len(result.rows), result.truncated) == (12_345, True)
    result = ask(layout, "FROM range(100000)", limits=Limits(rows=100_000))
    assert (len(result.rows), result.truncated) == (100_000, False)
    wide = "SELECT repeat('x', 1000) FROM range(100000)"
    result = ask(layout, wide, limits=Limits(rows=None, size=20_000_000))
    assert 0 < len(result.rows) < 20_000
    assert result.truncated


def test_a_query_is_cancelled_from_another_thread(layout: Layout) -> None:
    query = Query(layout, "SELECT count(*) FROM range(1000000000000)")
    threading.Timer(0.5, query.cancel).start()
    with pytest.raises(QueryCancelledError):
        query.result()


def test_a_query_ends_with_the_process_that_asked(layout: Layout) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom ingest.layout import Layout\n"
        "from ingest.watch.query import Query\n"
        f"query = Query(Layout(Path({str(layout.data)!r})), "
        "'SELECT count(*) FROM range(1000000000000)')\n"
        "print(query._process.pid, flush=True)\nquery.result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not _runs(child), "the end of the query")


def _runs(pid: int) -> bool:
    try:
        return b"ingest.watch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_it_lets_others_go_first(layout: Layout) -> None:
    with Query(layout, "SELECT count(*) FROM range(1000000000000)") as query:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        wait_for(lambda: os.getpriority(os.PRIO_PROCESS, query._process.pid) > own)


def test_retention_takes_files_from_under_a_query(layout: Layout) -> None:
    for number in range(1, 6):
        close(layout, number, line(number))
    convert_all(layout)
    policy = ArchivePolicy(retention=RetentionPolicy(files=2))
    Archivist(layout.log_folder, policy, Report(), Clock()).tidy()
    assert rows(layout, "SELECT seq FROM log ORDER BY seq") == [(4,), (5,)]
    converter = Converter(layout)
    assert not converter.convert_next()
    converter.stop()
    assert len(list(layout.columns_folder.glob("*/*.parquet"))) == 2
