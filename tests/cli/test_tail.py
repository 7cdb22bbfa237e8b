import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.layout import Layout
from ingest.record import record_time
from tests.log.logs import line, write

DEADLINE = 20.0  # seconds


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    return layout


def run(layout: Layout, *arguments: str, color: bool = False) -> Result:
    command = ["--data", str(layout.data), "tail", *arguments]
    return CliRunner().invoke(main, command, color=color)


def shown(layout: Layout, *arguments: str) -> list[bytes]:
    result = run(layout, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout_bytes.splitlines()


def test_ten_lines_come_as_they_are_when_piped(layout: Layout) -> None:
    made = [line(seq) for seq in range(1, 31)]
    write(layout.log_folder / "ingest.log.1.gz", *made[:25])
    write(layout.log_folder / "ingest.log", *made[25:])
    assert shown(layout) == made[-10:]
    assert shown(layout, "-n", "3") == made[-3:]
    assert shown(layout, "-n", "0") == []


def test_records_are_picked(layout: Layout) -> None:
    made = [line(seq, f'"text":"t{seq}"', device) for seq in range(20) for device in ("a1", "b1")]
    write(layout.log_folder / "ingest.log", *made)
    assert shown(layout, "--device", "a?", "-n", "2") == [made[36], made[38]]
    assert shown(layout, "--grep", '"t1[0-2]"', "--device", "b*") == made[21:27:2]
    begin, end = "2026-11-22T11:00:02Z", "2026-11-22T12:00:15+01:00"
    assert shown(layout, "--since", begin, "--until", end) == made[4:30]
    assert shown(layout, "--since", begin, "-n", "1") == made[-1:]
    assert shown(layout, "--since", "2026-11-22") == made
    assert shown(layout, "--until", "2026-11-22") == []


def test_a_duration_is_that_long_ago(layout: Layout) -> None:
    now = datetime.now(UTC)
    made = [
        line(seq).replace(line(seq)[9:36], record_time(now - timedelta(minutes=ago)))
        for seq, ago in enumerate((90, 50), 1)
    ]
    write(layout.log_folder / "ingest.log", *made)
    assert shown(layout, "--since", "1h") == made[1:]
    assert shown(layout, "--until", "1h") == made[:1]


def test_for_a_person_there_are_columns(layout: Layout) -> None:
    values = [
        '"text":"20 °C"',
        '"data":{"a":[1,"b"]}',
        '"raw":"/wD+"',
        '"text":"\\u001b[2J\\u202e"',
    ]
    write(layout.log_folder / "ingest.log", *[line(i, value) for i, value in enumerate(values, 1)])
    assert [text.decode() for text in shown(layout, "--pretty")] == [
        "2026-11-22T11:00:01.000000Z a 1 20 °C",
        '2026-11-22T11:00:02.000000Z a 2 {"a":[1,"b"]}',
        '2026-11-22T11:00:03.000000Z a 3 "/wD+"',
        "2026-11-22T11:00:04.000000Z a 4 \\x1b[2J\\u202e",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "'yesterday' is not a time; write 2026-11-22T11:39:00Z"),
        (["--since", "99999999w"], "'99999999w' is not a time"),
        (["--grep", "("], "'(' is not a regular expression"),
        (["-n", "-1"], "-1 is not in the range"),
    ],
)
def test_a_wrong_option_is_explained(layout: Layout, arguments: list[str], said: str) -> None:
    result = run(layout, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_missing_log_is_one_line(tmp_path: Path) -> None:
    result = run(Layout(tmp_path / "missing"))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: can't read the log in ")
    assert len(result.stderr.splitlines()) == 1


def test_a_damaged_copy_is_one_line(layout: Layout) -> None:
    (layout.log_folder / "ingest.log.1.gz").write_bytes(b"no gzip")
    result = run(layout)
    assert result.exit_code == 1
    assert "is damaged" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@contextmanager
def started(layout: Layout, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    with subprocess.Popen(
        [*command, "--data", str(layout.data), "tail", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_follow_goes_on_until_it_is_interrupted(layout: Layout) -> None:
    active = layout.log_folder / "ingest.log"
    write(active, line(1), line(2))
    with started(layout, "-f", "-n", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line(2) + b"\n"
        active.rename(layout.log_folder / "ingest-20261122T113900.123Z.log")
        write(active, line(3))
        assert process.stdout.readline() == line(3) + b"\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=DEADLINE)
    assert (rest, errors, process.returncode) == (b"", b"", 130)


def test_a_reader_that_goes_ends_it_quietly(layout: Layout) -> None:
    active = layout.log_folder / "ingest.log"
    write(active, *map(line, range(1, 20000)))
    with started(layout, "--since", "2026-11-22") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line(1) + b"\n"
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_gets_colours(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    terminal, other_end = os.openpty()
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    subprocess.run(
        [*command, "--data", str(layout.data), "tail"],
        stdout=other_end,
        check=True,
        timeout=DEADLINE,
        cwd=Path(__file__).parents[2],
    )
    os.close(other_end)
    text = os.read(terminal, 1000)
    os.close(terminal)
    assert b"\x1b[36ma\x1b[0m \x1b[33m1\x1b[0m x" in text
