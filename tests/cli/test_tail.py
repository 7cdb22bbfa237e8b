import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.layout import Layout
from ingest.record import record_time
from tests.log.logs import at, line, write
from tests.support.waiting import PATIENCE


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


@pytest.mark.parametrize(
    "moment", ["1795345202", "1795345202.0", "1795345202000", "1795345202000000", "1795345201.5"]
)
def test_a_unix_time_is_a_moment(layout: Layout, moment: str) -> None:
    made = [line(seq) for seq in range(5)]
    assert datetime.fromtimestamp(1795345202, UTC) == at(2)
    write(layout.log_folder / "ingest.log", *made)
    assert shown(layout, "--since", moment) == made[2:]
    assert shown(layout, "--until", moment) == made[:2]


def test_a_number_of_milliseconds_that_looks_like_a_date_is_none(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    assert shown(layout, "--since", "1711121301234") == [line(1)]  # 2024, and not 1711-12-13
    assert shown(layout, "--until", "1711121301234") == []
    assert shown(layout, "--since", "1711121301234000000") == [line(1)]


def test_what_other_protocols_say_of_a_frame_is_shown(layout: Layout) -> None:
    value = '"event_time":"2026-11-22T10:00:00.5Z","tag":"app.\\u0085x","chunk":"c","text":"y"'
    write(layout.log_folder / "ingest.log", line(1, value))
    [text] = shown(layout, "--pretty")
    assert text == b"2026-11-22T11:00:01.000000Z a 1 2026-11-22T10:00:00.5Z app.\\x85x y"
    assert shown(layout) == [line(1, value)]


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


def test_without_rules_there_are_no_alerts(layout: Layout) -> None:
    result = run(layout, "--alerts")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: there are no alerts in {layout.alerts_folder}: twistd ingest-watch --rules FILE"
        " writes them\n",
    )


def test_a_damaged_copy_is_one_line(layout: Layout) -> None:
    (layout.log_folder / "ingest.log.1.gz").write_bytes(b"no gzip")
    result = run(layout)
    assert result.exit_code == 1
    assert "is damaged" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_left_out_is_named(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1), line(2))
    write(layout.log_folder / "ingest.log.20261125", line(1))
    (layout.log_folder / "ingest.log.1\x1b.xz").touch()
    result = run(layout)
    assert result.stdout_bytes.splitlines() == [line(1), line(2)]
    folder = layout.log_folder
    assert result.stderr.splitlines() == [
        f"Warning: {folder}/ingest.log.1\\x1b.xz is left out: only .gz and .zst are read",
        f"Warning: {folder}/ingest.log.20261125 is left out:"
        " it begins with the same record as ingest.log",
    ]


def test_a_file_that_cannot_be_read_is_named(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    write(layout.log_folder / "ingest-20261122T113900.123Z.log", line(0))

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    result = run(layout)
    assert result.exit_code == 1
    assert result.stderr == f"Error: can't read {layout.log_folder}/ingest.log: Permission denied\n"


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
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (rest, errors, process.returncode) == (b"", b"", 130)


def test_a_reader_that_goes_ends_it_quietly(layout: Layout) -> None:
    active = layout.log_folder / "ingest.log"
    write(active, *map(line, range(1, 20000)))
    with started(layout, "--since", "2026-11-22") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == line(1) + b"\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_full_disk_behind_the_output_is_one_line(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", *map(line, range(1, 20000)))
    for arguments in ([], ["-f"], ["--pretty"], ["--since", "2026-11-22"]):
        assert ended(layout, *arguments, stdout=">/dev/full") == (
            1,
            "Error: can't write to standard output: No space left on device\n",
        )


def test_a_closed_output_is_one_line(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    for arguments in ([], ["-f"]):
        assert ended(layout, *arguments, stdout=">&-") == (
            1,
            "Error: standard output is closed; send it to /dev/null instead\n",
        )


def ended(layout: Layout, *arguments: str, stdout: str) -> tuple[int, str]:
    """Run the command as a shell does, with its output redirected; return its end and stderr."""
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    words = shlex.join([*command, "--data", str(layout.data), "tail", *arguments])
    done = subprocess.run(
        ["sh", "-c", f"exec {words} {stdout}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stderr


def test_a_terminal_gets_colours(layout: Layout) -> None:
    write(layout.log_folder / "ingest.log", line(1))
    assert b"\x1b[36ma\x1b[0m \x1b[33m1\x1b[0m x" in on_a_terminal(layout)


# Ends of a terminal's commands, and what turns text around: DEL, C1, bidirectional marks, lines.
DANGEROUS = [0x7F, *range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F),
             *range(0x2066, 0x206A), 0xFEFF, 0xE0001]  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_a_terminal_gets_no_character_that_it_acts_on(layout: Layout, as_json: bool) -> None:
    text = "é " + "".join(map(chr, DANGEROUS))
    write(
        layout.log_folder / "ingest.log",
        line(1, f'"text":"{text}"'),
        line(2, f'"tag":"{text}","data":{{"{text}":1}}'),
        line(3, device="x\\u009b\\u202e").replace(b"2026", b"\x9b026"),  # no record at all
    )
    shown = on_a_terminal(layout, "--json" if as_json else "--pretty")
    assert "é".encode() in shown
    said = shown.decode().replace("\x1b[", "").replace("\r\n", "")  # colours
    assert [char for char in said if not char.isprintable()] == []
    if as_json:
        first, second, third = shown.splitlines()
        assert orjson.loads(first)["text"] == text
        assert orjson.loads(second)["data"] == {text: 1}
        assert rb"\x9b026" in third


def on_a_terminal(layout: Layout, *arguments: str) -> bytes:
    """Return what the command writes to a terminal."""
    terminal, other_end = os.openpty()
    command = [sys.executable, "-c", "from ingest.cli import main; main()"]
    subprocess.run(
        [*command, "--data", str(layout.data), "tail", *arguments],
        stdout=other_end,
        check=True,
        timeout=PATIENCE,
        cwd=Path(__file__).parents[2],
    )
    os.close(other_end)
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        return stream.read(100_000)
