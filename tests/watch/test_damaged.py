"""A compressed file that was cut short: what is good of it counts, and it is said."""

import orjson
import pytest
from click.testing import CliRunner

from ingest.cli import main
from ingest.layout import Layout
from ingest.log.files import ACTIVE
from ingest.watch.query import Query, QueryError
from tests.log.logs import line, write
from tests.watch.logs import ask, close

_LINES = [line(seq) for seq in range(1, 20_000)]


def test_it_is_said(layout: Layout) -> None:
    cut = close(layout, 10, *_LINES, suffix=".zst").path
    write(layout.log_folder / ACTIVE, line(20_000))
    sql = "SELECT count(*) AS n FROM log"
    assert ask(layout, sql).damaged == ()
    cut.write_bytes(cut.read_bytes()[:-30])
    result = ask(layout, sql)
    ((count,),) = result.rows
    assert isinstance(count, int)
    assert 0 < count < 20_000
    (said,) = result.damaged
    assert said.startswith(f"{cut} is damaged (it ends too early: ")
    with Query(layout, sql, form="json") as query:
        assert orjson.loads(query.json())["damaged"] == [said]
    for command in (["query", sql], ["tail", "-n", "100000"]):
        shown = CliRunner().invoke(main, ["--data", str(layout.data), *command])
        assert f"Warning: {said}" in shown.stderr
    assert shown.exit_code == 1
    assert str(_LINES[0].decode()) in shown.stdout
    assert line(20_000).decode() in shown.stdout


def test_of_gzip_the_query_says_it_and_tail_shows_what_is_good(layout: Layout) -> None:
    cut = close(layout, 10, *_LINES, suffix=".gz").path
    cut.write_bytes(cut.read_bytes()[:-30])
    write(layout.log_folder / ACTIVE, line(20_000))
    with pytest.raises(QueryError, match=f"end of GZIP stream: {cut}"):
        ask(layout, "SELECT count(*) FROM log")
    shown = CliRunner().invoke(main, ["--data", str(layout.data), "tail", "-n", "100000"])
    assert shown.exit_code == 1
    assert f"{cut} is damaged (it ends too early: " in shown.stderr
    assert len(shown.stdout.splitlines()) > 10_000


def test_where_it_is_not_asked_about_nothing_is_said(layout: Layout) -> None:
    cut = close(layout, 10, *_LINES, suffix=".zst").path
    cut.write_bytes(cut.read_bytes()[:-30])
    write(layout.log_folder / ACTIVE, line(20_000))
    result = ask(layout, "SELECT seq FROM log WHERE time > '2026-11-22 16:00:00'")
    assert (result.rows, result.damaged) == ([(20_000,)], ())
