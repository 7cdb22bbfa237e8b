import csv
import io
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result
from pyarrow import ipc

from ingest.cli import main
from ingest.layout import Layout
from ingest.log.files import ACTIVE
from ingest.watch.schema import RECORD
from tests.log.logs import at, line, write
from tests.watch.logs import close, convert_all, data_line, text_line


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.create()
    close(layout, 1, data_line(1, {"temp": 1.5}, "a1"), data_line(2, {"temp": 2.5}, "b1"))
    convert_all(layout)
    close(layout, 3, text_line(3, 'say "x",\ny', "a1"), suffix=".zst")
    write(layout.log_folder / ACTIVE, line(4, '"raw":"/w=="', "b1"))
    return layout


def run(layout: Layout, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(layout.data), "export", *arguments])


def test_csv(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    result = run(layout, "--format", "csv", "--output", str(path))
    assert (result.exit_code, result.stderr) == (0, f"4 records in {path}\n")
    header, *found = csv.reader(io.StringIO(path.read_text(), newline=""))
    assert header == [*RECORD, "temp"]
    kept = ("time", "device", "seq", "text", "data", "raw", "temp")
    assert [[row[header.index(name)] for name in kept] for row in found] == [
        ["2026-11-22 11:00:01", "a1", "1", "", '{"temp":1.5}', "", "1.5"],
        ["2026-11-22 11:00:02", "b1", "2", "", '{"temp":2.5}', "", "2.5"],
        ["2026-11-22 11:00:03", "a1", "3", 'say "x",\ny', "", "", ""],
        ["2026-11-22 11:00:04", "b1", "4", "", "", "/w==", ""],
    ]


def test_csv_on_standard_output(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    run(layout, "--format", "csv", "--output", str(path))
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    done = subprocess.run(
        [*command, "--data", str(layout.data), "export", "--format", "csv"],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == path.read_bytes()
    assert done.stderr == b"4 records\n"


def test_parquet(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert run(layout, "--format", "parquet", "--output", str(path)).exit_code == 0
    with duckdb.connect() as connection:
        found = connection.execute("SELECT seq, temp, data FROM read_parquet(?)", [str(path)])
        assert found.fetchall() == [
            (1, 1.5, '{"temp":1.5}'),
            (2, 2.5, '{"temp":2.5}'),
            (3, None, None),
            (4, None, None),
        ]


def test_the_rows_stand_in_the_order_of_the_files(layout: Layout, tmp_path: Path) -> None:
    """Of which some are Parquet and some are not, and not all have the same columns."""
    path = tmp_path / "x.csv"
    values = [{"a": 1}, {"b": 1}, {"a": 1}, 5, {"a": 1}, {"b": "x"}]
    for seq, value in enumerate(values, 100):
        suffix = ".gz" if seq % 2 else ".zst"
        close(layout, seq, data_line(seq, value), suffix=suffix)
    convert_all(layout)[2].unlink()
    write(layout.log_folder / ACTIVE, line(200))
    assert run(layout, "--format", "csv", "--output", str(path)).exit_code == 0
    numbers = [int(row["seq"]) for row in csv.DictReader(io.StringIO(path.read_text()))]
    assert numbers == sorted(numbers)
    assert numbers[-7:] == [100, 101, 102, 103, 104, 105, 200]


def test_arrow(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    assert run(layout, "--format", "arrow", "--output", str(path)).exit_code == 0
    with ipc.open_file(str(path)) as reader:
        assert reader.read_all()["seq"].to_pylist() == [1, 2, 3, 4]
    result = run(layout, "--format", "arrow")
    assert ipc.open_stream(result.stdout_bytes).read_all()["temp"].to_pylist() == [
        1.5,
        2.5,
        None,
        None,
    ]


def test_a_part(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for arguments, records in (
        (["--since", at(2).isoformat()], 3),
        (["--until", at(2).isoformat()], 1),
        (["--device", "a*"], 2),
        (["--device", "nobody"], 0),
    ):
        result = run(layout, "--format", "parquet", "--output", str(path), *arguments)
        assert result.stderr == f"{records} records in {path}\n"


def test_an_old_file_stays_until_the_new_one_is_whole(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    (layout.log_folder / "ingest-20261122T120000.000Z.log.gz").write_bytes(b"no gzip at all")
    result = run(layout, "--format", "csv", "--output", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.csv"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing option '--format'"),
        (["--format", "parquet"], 2, "add --output FILE.parquet"),
        (["--format", "csv", "--device", "a b"], 2, "'a b' names no device"),
        (["--format", "csv", "--output", "missing/x.csv"], 1, "No such file or directory"),
        (["--format", "arrow", "--output", "missing/x.arrow"], 1, "No such file or directory"),
    ],
)
def test_a_wrong_option_is_explained(
    layout: Layout, arguments: list[str], code: int, said: str
) -> None:
    result = run(layout, *arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_no_log_is_one_line(tmp_path: Path) -> None:
    result = run(Layout(tmp_path / "missing"), "--format", "csv")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
