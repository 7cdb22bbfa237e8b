"""`ingest device`, run as a person runs it."""

import csv
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings

from ingest.cli import main
from ingest.cli.device import device
from ingest.devices.registry import Registry
from ingest.devices.verifier import matches
from ingest.layout import Layout
from tests.devices.tokens import made_tokens
from tests.support.waiting import PATIENCE, wait_for

Run = Callable[..., Result]
_PROGRAM = [sys.executable, "-c", "from ingest.cli import main; main(prog_name='ingest')"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "my data")


@pytest.fixture
def run(layout: Layout) -> Run:
    def run(*arguments: str, data: bytes | None = None) -> Result:
        command = ["--data", str(layout.data), "device", *arguments]
        return CliRunner().invoke(main, command, input=data, prog_name="ingest")

    return run


def _registry(layout: Layout) -> Registry:
    return Registry(layout.devices)


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def _has_token(layout: Layout, name: str, token: str) -> bool:
    with _registry(layout) as registry:
        verifier = registry.verifier(name)
    return verifier is not None and matches(verifier, token)


def _assert_prints_token(result: Result, layout: Layout, name: str) -> str:
    assert result.exit_code == 0, result.output
    token, auth, pipeline = result.stdout.splitlines()
    assert b64decode(auth.removeprefix("AUTH PLAIN ")).decode() == f"\0{name}\0{token}"
    assert pipeline == rf"printf '{auth}\ntemp=20.5\n' | nc -N 127.0.0.1 7650"
    assert _has_token(layout, name, token)
    return token


def test_add_makes_a_token(run: Run, layout: Layout) -> None:
    token = _assert_prints_token(run("add", "sensor-1"), layout, "sensor-1")
    assert len(token) == 43
    assert layout.devices.stat().st_mode & 0o777 == 0o600


def test_add_with_token_and_note(run: Run, layout: Layout) -> None:
    result = run("add", "a", "--token", 'it\'s 100% \\n "x" é', "--note", "hall 3")
    assert _assert_prints_token(result, layout, "a") == 'it\'s 100% \\n "x" é'
    with _registry(layout) as registry:
        found = registry.get("a")
    assert found is not None
    assert found.note == "hall 3"


@settings(deadline=None, max_examples=25)
@given(made_tokens)
def test_the_printed_line_survives_a_shell(token: str) -> None:
    with TemporaryDirectory() as folder:
        arguments = ["add", "a", f"--token={token}"]
        result = CliRunner().invoke(device, arguments, obj=Layout(Path(folder)))
    pipeline = result.stdout.splitlines()[-1]
    printf, _, _ = pipeline.rpartition(" | nc ")
    sent = subprocess.run(["sh", "-c", printf], capture_output=True, check=True).stdout
    auth, frame, rest = sent.split(b"\n")
    assert (frame, rest) == (b"temp=20.5", b"")
    assert b64decode(auth.removeprefix(b"AUTH PLAIN ")).decode() == f"\0a\0{token}"


def test_blanks_around_a_token_are_no_part_of_it(run: Run, layout: Layout) -> None:
    result = run("add", "a", "--token", " s3cr3t \n")
    assert _assert_prints_token(result, layout, "a") == "s3cr3t"
    assert _assert_prints_token(run("new-token", "a", "--token", "t\r\n"), layout, "a") == "t"


def test_add_says_where_and_that_it_is_new(run: Run, layout: Layout) -> None:
    first, second = run("add", "a").stderr, run("add", "b").stderr
    assert f"The registry is in {layout.data.absolute()}\n" in first
    assert "It is new: no listener has used that folder yet" in first
    assert f"The registry is in {layout.data.absolute()}\n" in second
    assert "no listener" not in second


def test_import_says_where_and_that_it_is_new(run: Run, layout: Layout) -> None:
    for is_new in (True, False):
        result = run("import", "-", data=b"name,token\na,t\n")
        assert f"The registry is in {layout.data.absolute()}\n" in result.stderr
        assert ("no listener has used" in result.stderr) == is_new


def test_names_of_old_that_would_be_a_nuisance_can_be_removed(run: Run, layout: Layout) -> None:
    run("add", "a")
    with _registry(layout) as registry:
        registry.add("-rf", "token")
        registry.add("..", "token")
    assert run("remove", "--", "-rf", "..").stdout == "removed -rf\nremoved ..\n"


def test_what_steers_a_terminal_is_escaped(run: Run, layout: Layout) -> None:
    forged = "\x1b[2J\x7f\x9b\u202e\u2028:1"
    run("add", "a", "--note", "\u202egnp.exe\u2028")
    with _registry(layout) as registry:
        registry.record_seen([("a", "2026-11-22T11:39:00Z", forged)])
    for arguments in (["list"], ["show", "a"], ["list", "--json"], ["show", "a", "--json"]):
        text = run(*arguments).stdout
        assert all(char.isprintable() or char == "\n" for char in text), arguments
    assert json.loads(run("show", "a", "--json").stdout)["last_peer"] == forged
    [row] = list(csv.DictReader(run("export").stdout.splitlines()))
    assert row["last_peer"].isprintable()
    assert row["note"].isprintable()


def test_list_of_the_silent(run: Run, layout: Layout) -> None:
    for name in ("never", "long-ago", "now"):
        run("add", name)
    with _registry(layout) as registry:
        registry.record_seen(
            [("long-ago", "2026-01-01T00:00:00Z", "h:1"), ("now", "9999-01-01T00:00:00Z", "h:1")]
        )
    listed = json.loads(run("list", "--silent", "1h", "--json").stdout)
    assert [each["name"] for each in listed] == ["long-ago", "never"]
    assert "is not a duration" in run("list", "--silent", "soon").stderr
    assert "no listener answers" in run("list", "--connected").stderr


def test_add_twice_names_the_command_for_a_new_token(run: Run, layout: Layout) -> None:
    run("add", "a")
    result = run("add", "a")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: device a is registered already; give it a new token with:"
        f" ingest --data '{layout.data}' device new-token a\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["add", "a b"], "'a b' is not a device name: 1 to 128 characters"),
        (["show", "\udcff"], "is not a device name"),
        (["disable", "a", "é"], "'é' is not a device name"),
        (["add", "a", "--token", ""], "a token can't be empty"),
        (["add", "a", "--token", " \n"], "a token can't be empty"),
        (["add", "a", "--token", "two\nlines"], "control characters forbidden"),
        (["add", "a", "--token", "x" * 1025], "a token has at most 1,024 bytes"),
        (["add", "--", "-rf"], "'-rf' begins with -, so commands would take it for an option"),
        (["add", ".."], "'..' means a folder"),
        (["add", "a", "--token", "\udcff"], "surrogate codes forbidden"),
        (["add", "a", "--note", "two\nlines"], "a note is one line of text"),
    ],
)
def test_what_can_not_be_registered(run: Run, arguments: list[str], reason: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert reason in result.stderr.splitlines()[-1]


def test_new_token(run: Run, layout: Layout) -> None:
    run("add", "a", "--token", "old")
    _assert_prints_token(run("new-token", "a"), layout, "a")
    _assert_prints_token(run("new-token", "a", "--token", "mine"), layout, "a")
    assert not _has_token(layout, "a", "old")


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "a"],
        ["disable", "a"],
        ["enable", "a"],
        ["remove", "a"],
        ["new-token", "a"],
        ["export"],
    ],
)
def test_no_registry(run: Run, layout: Layout, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: no devices: {layout.devices} does not exist;"
        f" add one with: ingest --data '{layout.data}' device add NAME\n"
    )
    assert not layout.data.exists()


@pytest.mark.parametrize("arguments", [["list"], ["disable", "a"], ["export"]])
def test_an_empty_registry_is_not_taken_for_one(
    run: Run, layout: Layout, arguments: list[str]
) -> None:
    layout.create()
    layout.devices.touch()
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"{layout.devices} is empty; bring back a backup" in result.stderr
    assert layout.devices.stat().st_size == 0


def test_commands_for_the_default_folder_do_not_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["device", "list"], env={"INGEST_DATA": None})
    assert result.stderr.endswith("add one with: ingest device add NAME\n")


@pytest.mark.parametrize("arguments", [["show", "b"], ["new-token", "b"]])
def test_unknown_device(run: Run, layout: Layout, arguments: list[str]) -> None:
    run("add", "a")
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: device b is not registered; list those that are with:"
        f" ingest --data '{layout.data}' device list\n"
    )


def test_disable_enable_remove(run: Run, layout: Layout) -> None:
    for name in "abc":
        run("add", name, "--token", "token")
    assert run("disable", "a", "b").stdout == "disabled a\ndisabled b\n"
    assert not _has_token(layout, "a", "token")
    assert run("enable", "a").stdout == "enabled a\n"
    assert _has_token(layout, "a", "token")
    assert run("remove", "a", "c").stdout == "removed a\nremoved c\n"
    with _registry(layout) as registry:
        assert [device.name for device in registry.devices()] == ["b"]


def test_an_unknown_name_does_not_save_the_others(run: Run, layout: Layout) -> None:
    run("add", "a", "--token", "token")
    result = run("disable", "b", "a")
    assert result.exit_code == 1
    assert result.stdout == "disabled a\n"
    assert result.stderr.startswith("Error: device b is not registered;")
    assert not _has_token(layout, "a", "token")


@pytest.fixture
def filled(run: Run, layout: Layout) -> None:
    run("add", "sensor-1", "--note", "hall [3]")
    run("add", "s2")
    run("disable", "s2")
    with _registry(layout) as registry:
        registry.record_seen([("sensor-1", "2026-11-22T11:39:00Z", "127.0.0.1:9")])
    with closing(sqlite3.connect(layout.positions)) as positions, positions:
        positions.execute(
            "CREATE TABLE positions (device TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID"
        )
        positions.execute("INSERT INTO positions VALUES ('sensor-1', 41)")


@pytest.mark.usefixtures("filled")
def test_list_in_a_pipe(run: Run) -> None:
    header, second, first = run("list").stdout.splitlines()
    created = header.index("created")
    assert header == (
        "name      enabled  created               last seen             last peer    "
        "next number  format"
    )
    assert first[:created] + first[created + 20 :] == (
        "sensor-1  yes        2026-11-22T11:39:00Z  127.0.0.1:9  42           -"
    )
    assert second.split()[:2] == ["s2", "no"]
    assert second.split()[3:] == ["-", "-", "1", "-"]


@pytest.mark.usefixtures("filled")
def test_list_on_a_terminal(layout: Layout) -> None:
    ours, theirs = pty.openpty()
    command = [*_PROGRAM, "--data", str(layout.data), "device", "list"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        printed = b""
        while not printed.endswith("┘\r\n".encode()):
            printed += os.read(ours, 65536)
    os.close(ours)
    assert process.returncode == 0
    cells = [line.split("│")[1:-1] for line in printed.decode().splitlines() if "│" in line]
    assert [cell.strip() for cell in cells[-1]][3:] == [
        "2026-11-22T11:39:00Z",
        "127.0.0.1:9",
        "42",
        "-",
    ]


@pytest.mark.usefixtures("filled")
def test_list_as_json(run: Run) -> None:
    second, first = json.loads(run("list", "--json").stdout)
    assert first == {
        "name": "sensor-1",
        "enabled": True,
        "created": first["created"],
        "note": "hall [3]",
        "last_seen": "2026-11-22T11:39:00Z",
        "last_peer": "127.0.0.1:9",
        "next": 42,
        "format": None,
    }
    assert (second["enabled"], second["last_seen"], second["next"]) == (False, None, 1)
    assert json.loads(run("show", "sensor-1", "--json").stdout) == first


@pytest.mark.usefixtures("filled")
def test_show(run: Run) -> None:
    lines = [line.split(maxsplit=1) for line in run("show", "s2").stdout.splitlines()]
    assert lines[0] == ["name", "s2"]
    assert lines[1] == ["enabled", "no"]
    assert lines[-3:] == [["next", "number  1"], ["format", "-"], ["note", "-"]]


@pytest.mark.usefixtures("filled")
def test_export(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    assert run("export", str(file)).exit_code == 0
    assert run("export").stdout == file.read_text()
    rows = _rows(file)
    assert [row["name"] for row in rows] == ["s2", "sensor-1"]
    assert list(rows[0]) == [
        *("name", "enabled", "created", "note", "last_seen", "last_peer", "format"),
    ]


def test_formats(run: Run, tmp_path: Path) -> None:
    assert run("add", "a", "--format", "json").exit_code == 0
    assert run("add", "b").exit_code == 0
    file = tmp_path / "more.csv"
    file.write_text("name,format\nc,influx\na,csv\n")
    assert "1 imported, 1 registered already" in run("import", str(file)).output
    assert [row["format"] for row in csv.DictReader(run("export").stdout.splitlines())] == [
        *("json", "", "influx"),
    ]
    assert run("set", "b", "c", "--format", "logfmt").stdout == "changed b\nchanged c\n"
    assert run("set", "a", "--format", "listener").exit_code == 0
    assert [each["format"] for each in json.loads(run("list", "--json").stdout)] == [
        *(None, "logfmt", "logfmt"),
    ]
    assert "format       logfmt" in run("show", "b").stdout


def test_a_format_that_there_is_not(run: Run) -> None:
    run("add", "a")
    for arguments in (("set", "a", "--format", "yaml"), ("add", "b", "--format", "yaml")):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "'yaml' is not one of 'opaque', 'json'" in result.output
    assert "Missing option '--format'" in run("set", "a").output
    unknown = run("set", "nobody", "--format", "json")
    assert unknown.exit_code == 1
    assert "device nobody is not registered" in unknown.output


def test_a_damaged_registry(run: Run, layout: Layout) -> None:
    layout.create()
    layout.devices.write_bytes(b"no database" * 1000)
    result = run("list")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: the registry {layout.devices}: file is not a database")


def test_a_data_folder_that_can_not_be_made(run: Run, layout: Layout) -> None:
    layout.data.mkdir()
    layout.log_folder.write_text("a file")
    result = run("add", "a")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {layout.log_folder}: Not a directory\n"


def _tokens_files(layout: Layout) -> list[Path]:
    return list(layout.state_folder.glob("tokens-*.csv"))


def test_import(run: Run, layout: Layout, tmp_path: Path) -> None:
    run("add", "old", "--token", "mine")
    file = tmp_path / "devices.csv"
    file.write_text("note,name,token\nhall 3,a,secret\n,b,\n,old,other\n")
    result = run("import", str(file))
    [made] = _tokens_files(layout)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"2 imported, 1 registered already\n1 token made here, kept only in {made}\n"
    )
    assert _has_token(layout, "a", "secret")
    assert _has_token(layout, "old", "mine")
    assert made.stat().st_mode & 0o777 == 0o600
    [row] = _rows(made)
    assert row["name"] == "b"
    assert _has_token(layout, "b", row["token"])


def test_import_2000_devices_from_a_pipe_and_again(run: Run, layout: Layout) -> None:
    data = "name\n" + "".join(f"sensor-{number}\n" for number in range(2000))
    assert run("import", "-", data=data.encode()).stdout.startswith("2000 imported, 0 registered")
    [made] = _tokens_files(layout)
    rows = _rows(made)
    assert len({row["token"] for row in rows}) == 2000
    assert _has_token(layout, rows[-1]["name"], rows[-1]["token"])
    again = run("import", "-", data=data.encode())
    assert again.stdout == "0 imported, 2000 registered already\n"
    assert _tokens_files(layout) == [made]


def test_an_import_with_bad_rows_imports_nothing(run: Run, layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text("name,token\na,t\nb b,t\na,\n")
    result = run("import", str(file))
    assert result.exit_code == 1
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f"{file}:3: 'b b' is not a device name")
    assert second == f"{file}:4: device a stands in line 2 already"
    assert last == f"Error: nothing was imported: correct {file} and try again"
    assert not layout.devices.exists()


@pytest.mark.parametrize("arguments", [["add", "new"], ["new-token", "old"]])
def test_a_token_that_could_not_be_kept_does_not_count(
    run: Run, layout: Layout, arguments: list[str]
) -> None:
    run("add", "old")
    with closing(sqlite3.connect(layout.devices)) as registry, registry:
        for change in ("INSERT", "UPDATE"):
            registry.execute(
                f"CREATE TRIGGER full_{change} BEFORE {change} ON devices"
                " BEGIN SELECT raise(ABORT, 'full'); END"
            )
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.endswith(": full; the token above does not count\n")


def test_a_failed_import_leaves_no_tokens(run: Run, layout: Layout) -> None:
    run("add", "old")
    with closing(sqlite3.connect(layout.devices)) as registry, registry:
        registry.execute(
            "CREATE TRIGGER full BEFORE INSERT ON devices BEGIN SELECT raise(ABORT, 'full'); END"
        )
    result = run("import", "-", data=b"name\na\n")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: the registry {layout.devices}: full")
    assert _tokens_files(layout) == []


def test_an_interrupted_import_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text("name\n" + "".join(f"sensor-{number}\n" for number in range(50_000)))
    command = [*_PROGRAM, "--data", str(layout.data), "device", "import", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_for(layout.devices.exists, "the registry")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert stderr.strip() == b"Aborted!"
    assert _tokens_files(layout) == []
    with _registry(layout) as registry:
        assert registry.count() == 0
