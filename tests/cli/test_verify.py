import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.layout import Layout
from ingest.log.jumps import note_jump
from tests.log.logs import at, line, write
from tests.support.waiting import PATIENCE


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    return layout


def run(layout: Layout) -> Result:
    return CliRunner().invoke(main, ["--data", str(layout.data), "verify"], env={"COLUMNS": "100"})


def save_position(layout: Layout, device: str, last: int) -> None:
    with sqlite3.connect(layout.positions) as database:
        database.execute("CREATE TABLE positions (device TEXT PRIMARY KEY, last INTEGER NOT NULL)")
        database.execute("INSERT INTO positions VALUES (?, ?)", (device, last))
    database.close()


def test_a_good_log(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log.1.zst", line(1))
    write(layout.log_folder / "ingest.log", line(2), line(3))
    save_position(layout, "a", 3)
    result = run(layout)
    assert result.exit_code == 0, result.output
    row = next(text for text in result.stdout.splitlines() if text.startswith("│"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:3] == ["2", "3", "1"]
    assert cells[-1] == "0"


def test_a_breach_is_named_with_its_file_line_and_byte(layout: Layout) -> None:
    path = layout.log_folder / "ingest.log"
    write(path, line(1), line(3))
    result = run(layout)
    assert result.exit_code == 1
    expected = f"{path}: line 2, byte {len(line(1)) + 1}: a: number 3 follows 1, 1 missing"
    assert expected in result.stdout.splitlines()


def test_a_position_ahead_of_the_log_is_a_breach(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    save_position(layout, "a", 2)
    result = run(layout)
    assert result.exit_code == 1
    assert "a: the log ends at 1, its position is 2" in result.stdout


def test_many_breaches_end_in_a_count(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", *[b"junk"] * 150)
    result = run(layout)
    assert result.exit_code == 1
    assert result.stdout.count("not JSON") == 100
    assert "and 50 more breaches" in result.stdout


def test_a_line_without_an_end_is_told_and_no_breach(layout: Layout) -> None:
    (layout.log_folder / "ingest.log").write_bytes(line(1) + b"\n" + b"torn")
    result = run(layout)
    assert result.exit_code == 0
    assert "ingest.log ends in 4 bytes of a line without an end" in result.stdout


def test_a_missing_log_is_an_error_of_its_own(tmp_path: Path) -> None:
    result = run(Layout(tmp_path / "missing"))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: there is no log in ")


def test_positions_that_cannot_be_read_are_one_line(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    layout.positions.write_bytes(b"this is no database" * 100)
    result = run(layout)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: can't read ")
    assert len(result.stderr.splitlines()) == 1


def test_a_jump_that_was_noted_is_said_and_no_breach(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1), line(101))
    note_jump(layout.log_folder, at(2), {"a": 101})
    result = run(layout)
    assert result.exit_code == 0
    assert "in 1 place numbers were left out on purpose" in result.stdout


def test_what_is_left_out_is_named(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1), line(2))
    write(layout.log_folder / "ingest.log.20261125", line(1))
    (layout.log_folder / "ingest.log.1.xz").touch()
    result = run(layout)
    assert result.exit_code == 0, result.output
    folder = layout.log_folder
    assert result.stderr.splitlines() == [
        f"Warning: {folder}/ingest.log.1.xz is left out: only .gz and .zst are read",
        f"Warning: {folder}/ingest.log.20261125 is left out:"
        " it begins with the same record as ingest.log",
    ]


@pytest.mark.parametrize(
    ("stdout", "why"),
    [
        (">/dev/full", "can't write to standard output: No space left on device"),
        (">&-", "standard output is closed; send it to /dev/null instead"),
    ],
)
def test_an_output_that_fails_is_one_line(layout: Layout, stdout: str, why: str) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    words = shlex.join([*command, "--data", str(layout.data), "verify"])
    done = subprocess.run(
        ["sh", "-c", f"exec {words} {stdout}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == f"Error: {why}\n"
    assert done.returncode == 1
