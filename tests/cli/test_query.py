import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from pyarrow import ipc

from ingest.cli import common, main
from ingest.layout import Layout
from ingest.log.files import ACTIVE
from tests.log.logs import at, write
from tests.support.waiting import PATIENCE
from tests.watch.logs import close, convert_all, data_line, text_line

BY_DEVICE = "SELECT device, count(*) AS n, avg(temp) AS temp FROM log GROUP BY 1 ORDER BY 1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    close(layout, 1, *(data_line(seq, {"temp": seq + 0.5}, "a") for seq in range(1, 5)))
    convert_all(layout)
    write(layout.log_folder / ACTIVE, text_line(5, "temp=9 \u001b[2J", "b"), text_line(1, "x", "c"))
    return layout


def run(layout: Layout, *arguments: str, stdin: str | None = None) -> Result:
    command = ["--data", str(layout.data), "query", *arguments]
    return CliRunner().invoke(main, command, input=stdin)


def shown(layout: Layout, *arguments: str) -> str:
    result = run(layout, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_table_for_a_person(layout: Layout) -> None:
    result = run(layout, "SELECT device, text, 1.5 AS x FROM log WHERE kind = 'text' ORDER BY 1")
    lines = [line.strip("│┃ ") for line in result.stdout.splitlines()]
    assert lines[1].split() == ["device", "┃", "text", "┃", "x"]
    assert lines[3].split() == ["b", "│", "temp=9", "\\x1b[2J", "│", "1.5"]
    assert result.stderr == "2 rows\n"


def test_a_table_shows_the_first_thousand(layout: Layout) -> None:
    result = run(layout, "FROM range(1500)")
    assert len(result.stdout.splitlines()) == 1004
    assert run(layout, "FROM range(1)").stderr == "1 row\n"
    assert result.stderr == "1,500 rows, the first 1,000 of them shown; --format csv shows all\n"


def test_json_is_an_object_a_line(layout: Layout) -> None:
    lines = shown(layout, BY_DEVICE, "--format", "json").splitlines()
    assert list(map(orjson.loads, lines)) == [
        {"device": "a", "n": 4, "temp": 3.0},
        {"device": "b", "n": 1, "temp": None},
        {"device": "c", "n": 1, "temp": None},
    ]
    (line,) = shown(layout, "SELECT data FROM log WHERE seq = 2", "--format", "json").splitlines()
    assert line == '{"data":{"temp":2.5}}'


def test_csv_has_a_header(layout: Layout) -> None:
    text = shown(layout, f"SELECT *, [1, 2] AS list FROM ({BY_DEVICE})", "--format", "csv")
    assert list(csv.reader(io.StringIO(text))) == [
        ["device", "n", "temp", "list"],
        ["a", "4", "3.0", "[1,2]"],
        ["b", "1", "", "[1,2]"],
        ["c", "1", "", "[1,2]"],
    ]


def test_arrow_is_a_stream(layout: Layout) -> None:
    result = run(layout, BY_DEVICE, "--format", "arrow")
    table = ipc.open_stream(result.stdout_bytes).read_all()
    assert table.to_pydict() == {
        "device": ["a", "b", "c"],
        "n": [4, 1, 1],
        "temp": [3.0, None, None],
    }


def test_limits_of_time_and_device(layout: Layout) -> None:
    sql = "SELECT count(*) AS n FROM log"
    since = at(3).isoformat()
    assert shown(layout, sql, "--format", "csv", "--since", since).split() == ["n", "3"]
    assert shown(layout, sql, "--format", "csv", "--until", since).split() == ["n", "3"]
    assert shown(layout, sql, "--format", "csv", "--device", "a").split() == ["n", "4"]


def test_the_query_comes_from_standard_input(layout: Layout) -> None:
    result = run(layout, "-", "--format", "csv", stdin="SELECT 1\n  AS x;\n")
    assert result.stdout == "x\n1\n"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELCT 1", 'Error: line 1, column 1: syntax error at or near "SELCT"\n  SELCT 1\n  ^\n'),
        ("SELECT 1\n  FORM x log", "Error: line 2, column 8: "),
        ("SELECT tmep FROM log", "The columns of log are: time, device, "),
        ("SELECT * FROM read_text('/etc/passwd')", "column 15: read_text can't be used here"),
        ("COPY log TO 'x'", "Error: only SELECT is possible"),
    ],
)
def test_a_mistake_is_shown_where_it_is(layout: Layout, sql: str, said: str) -> None:
    result = run(layout, sql)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "a b"], "'a b' names no device"),
        (["--since", "x"], "'x' is not a time"),
        (["--timeout", "x"], "'x' is not a duration"),
        (["--memory", "x"], "'x' is not a size"),
        (["--format", "xml"], "is not one of"),
        (["--plot", "x.xyz"], "xyz"),
    ],
)
def test_a_wrong_option_is_explained(layout: Layout, arguments: list[str], said: str) -> None:
    result = run(layout, "SELECT seq, temp FROM log", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_it_is_ended_in_time_and_within_its_memory(layout: Layout) -> None:
    result = run(layout, "SELECT count(*) FROM range(1000000000000)", "--timeout", "1s")
    assert (result.exit_code, "longer than 1 s" in result.stderr) == (1, True)
    result = run(layout, "FROM range(100000000) ORDER BY hash(range)", "--memory", "64MiB")
    assert (result.exit_code, "64.0 MiB" in result.stderr) == (1, True)


def test_no_log_is_one_line(tmp_path: Path) -> None:
    result = run(Layout(tmp_path / "missing"), "FROM log")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: can't read the log in ")
    assert len(result.stderr.splitlines()) == 1


def test_curves(layout: Layout, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    sql = "SELECT '$\\frac' || device AS d, time, temp, seq FROM log"
    assert shown(layout, sql, "--plot", str(picture)) == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert _size(picture) == (1200, 600)


def _size(picture: Path) -> tuple[int, int]:
    header = picture.read_bytes()[16:24]
    return int.from_bytes(header[:4]), int.from_bytes(header[4:])


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT device FROM log", "needs a column of times or numbers, and another of numbers"),
        ("SELECT time, temp FROM log WHERE false", "no rows to draw"),
        ("SELECT 'infinity'::TIMESTAMP AS x, 1 AS y", "a moment is infinite, or finer"),
        ("SELECT TIME '10:00' AS x, 1 AS y", "needs a column of times or numbers"),
        ("SELECT range::VARCHAR AS name, 1 AS x, 2 AS y FROM range(51)", "more than 50 curves"),
    ],
)
def test_what_makes_no_picture(layout: Layout, tmp_path: Path, sql: str, said: str) -> None:
    result = run(layout, sql, "--plot", str(tmp_path / "x.png"))
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (tmp_path / "x.png").exists()


def test_help_teaches() -> None:
    text = CliRunner().invoke(main, ["query", "--help"]).output
    for said in ("event_time", "data_time", "DESCRIBE log", "--plot temp.png", "now()"):
        assert said in text


@pytest.mark.parametrize("command", [["query", "FROM log"], ["export", "--format", "csv"]])
def test_without_the_extra_it_says_what_to_install(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "WATCH_PACKAGES", ("duckdb", "no_such_package"))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: this command needs more packages: pip install 'ingest[watch]'\n"
    )


def test_a_reader_that_goes_ends_it_quietly(layout: Layout) -> None:
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    with subprocess.Popen(
        [*command, "--data", str(layout.data), "query", "FROM range(10000000)", "--format", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONWARNINGS": "error"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"range\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
