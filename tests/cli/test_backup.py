"""`ingest backup` and `ingest restore`."""

import io
import json
import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ingest.cli import main
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.journal.positions import Checkpoint, Mark, Positions, read_positions
from ingest.layout import Layout
from ingest.service.process import FolderLock
from tests.support.devices import TextDevice
from tests.support.listeners import Listener

Run = Callable[..., Result]
_VERIFIER, _OTHER = derive("token"), derive("other")


def ingest(data: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["--data", str(data), *map(str, arguments)])


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.create()
    with Registry(layout.devices) as registry:
        registry.add_many([("a", _VERIFIER, "note"), ("b", _VERIFIER, ""), ("c", _VERIFIER, "")])
        registry.set_enabled("c", False)
        registry.record_seen([("a", "2026-11-22T11:39:00Z", "h:1")])
    return layout


@pytest.fixture
def file(layout: Layout, tmp_path: Path) -> Path:
    file = tmp_path / "backup.tar"
    good(ingest(layout.data, "backup", file))
    return file


def contents(layout: Layout) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(layout.devices)) as database:
        return [
            *database.execute("SELECT * FROM devices ORDER BY name"),
            *database.execute("SELECT * FROM seen ORDER BY device"),
            *database.execute("SELECT value FROM meta WHERE name = 'decoys'"),
            *database.execute("SELECT devices FROM tally"),
        ]


def test_into_a_new_folder(layout: Layout, file: Path, tmp_path: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    new = Layout(tmp_path / "new")
    assert good(ingest(new.data, "restore", file)) == "devices: 3 devices\n"
    assert contents(new) == contents(layout)
    assert new.devices.stat().st_mode & 0o777 == 0o600


def test_over_devices_that_have_changed(layout: Layout, file: Path) -> None:
    before = contents(layout)
    with Registry(layout.devices) as registry:
        registry.remove("a")
        registry.set_token("b", "another")
        registry.set_enabled("c", True)
        registry.add_many([("d", _OTHER, "")])
        mark = registry.last_revocation()
    good(ingest(layout.data, "restore", file))
    assert contents(layout) == before
    with Registry(layout.devices) as registry:
        assert sorted(registry.revoked_since(mark)[1]) == ["b", "c", "d"]


def test_a_restore_of_the_same_revokes_nobody(layout: Layout, file: Path) -> None:
    with Registry(layout.devices) as registry:
        before = registry.last_revocation(), registry.revision()
    good(ingest(layout.data, "restore", file))
    with Registry(layout.devices) as registry:
        assert (registry.last_revocation(), registry.revision()) == before


@pytest.mark.parametrize("damage", [b"garbage" * 4000, b"", None])
def test_over_a_damaged_file(layout: Layout, file: Path, damage: bytes | None) -> None:
    before = contents(layout)
    if damage is None:
        layout.devices.unlink()
    else:
        layout.devices.write_bytes(damage)
    said = good(ingest(layout.data, "restore", file))
    assert contents(layout) == before
    if damage:
        assert (
            said
            == f"devices: 3 devices; the file that was damaged is now {layout.devices}.damaged\n"
        )
        assert Path(f"{layout.devices}.damaged").read_bytes() == damage


def test_over_a_file_that_was_emptied_while_a_listener_had_it_open(
    layout: Layout, file: Path
) -> None:
    before = contents(layout)
    with Registry(layout.devices) as held:
        held.count()
        os.truncate(layout.devices, 0)
        said = good(ingest(layout.data, "restore", file))
    assert said.startswith("devices: 3 devices; the file that was empty is now ")
    assert contents(layout) == before


def test_settings(layout: Layout, tmp_path: Path) -> None:
    config, file = tmp_path / "ingest.toml", tmp_path / "b.tar"
    config.write_text("keep-days = 9\n")
    assert "1 device" not in good(ingest(layout.data, "backup", file, "--config", config))
    again = tmp_path / "again.toml"
    assert f"settings: written to {again}\n" in good(
        ingest(tmp_path / "new", "restore", file, "--config", again)
    )
    assert again.read_text() == "keep-days = 9\n"
    result = ingest(tmp_path / "third", "restore", file, "--config", again)
    assert result.exit_code == 1
    assert "exists already: nothing was restored" in result.stderr
    assert not (tmp_path / "third").exists()
    assert "write them to a file with --config" in good(ingest(tmp_path / "third", "restore", file))


def test_nothing_is_overwritten(layout: Layout, file: Path) -> None:
    before = file.read_bytes()
    result = ingest(layout.data, "backup", file)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert file.read_bytes() == before


def test_no_devices(tmp_path: Path) -> None:
    result = ingest(tmp_path / "none", "backup", tmp_path / "b.tar")
    assert result.exit_code == 1
    assert f"{tmp_path}/none/state/devices.db does not exist" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_damaged_devices_are_not_backed_up(layout: Layout, tmp_path: Path) -> None:
    layout.devices.write_bytes(b"garbage" * 4000)
    result = ingest(layout.data, "backup", tmp_path / "b.tar")
    assert result.exit_code == 1
    assert result.stderr == (f"Error: {layout.devices} can't be copied (file is not a database)\n")
    assert not list(tmp_path.glob("*.tar"))


def test_damaged_positions_are_left_out(layout: Layout, tmp_path: Path) -> None:
    layout.positions.write_bytes(b"garbage" * 4000)
    result = ingest(layout.data, "backup", tmp_path / "b.tar")
    assert good(result) == f"{tmp_path}/b.tar: 3 devices; checked\n"
    assert result.stderr.startswith(f"{layout.positions} can't be copied (file is not a database)")


def test_missing_positions_are_told_of(layout: Layout, tmp_path: Path) -> None:
    for path in layout.state_folder.glob("positions.db*"):
        path.unlink()
    result = ingest(layout.data, "backup", tmp_path / "b.tar")
    assert good(result) == f"{tmp_path}/b.tar: 3 devices; checked\n"
    assert result.stderr.startswith(f"{layout.positions} does not exist: left out")


def test_positions_are_not_restored_under_a_listener(layout: Layout, tmp_path: Path) -> None:
    """One that has lost its file, which it will make anew."""
    with closing(Positions(layout.positions)) as positions:
        positions.save({"a": 7}, Checkpoint("log", Mark("", "", 0), True))
    good(ingest(layout.data, "backup", tmp_path / "b.tar"))
    for file in layout.state_folder.glob("positions.db*"):
        file.unlink()
    lock = FolderLock(layout)
    result = ingest(layout.data, "restore", tmp_path / "b.tar")
    lock.release()
    assert result.exit_code == 1
    assert "in use by another listener: stop it to restore the positions" in result.stderr
    assert not layout.positions.exists()
    good(ingest(layout.data, "restore", tmp_path / "b.tar"))
    assert read_positions(layout.positions) == {"a": 7}


def _without(name: str, file: Path) -> None:
    kept = io.BytesIO()
    with tarfile.open(file) as old, tarfile.open(fileobj=kept, mode="w") as new:
        for member in old:
            if member.name != name:
                new.addfile(member, old.extractfile(member))
    file.write_bytes(kept.getvalue())


def _of_another_format(file: Path) -> None:
    with tarfile.open(file, "w") as tar:
        data = json.dumps({"format": 2}).encode()
        head = tarfile.TarInfo("manifest.json")
        head.size = len(data)
        tar.addfile(head, io.BytesIO(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no archive" * 1000),
        lambda file: file.write_bytes(file.read_bytes()[:9000]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"note", b"etno")),
        lambda file: _without("devices.db", file),
        lambda file: _without("manifest.json", file),
        _of_another_format,
    ],
)
def test_what_is_no_backup_changes_nothing(
    layout: Layout, file: Path, damage: Callable[[Path], object]
) -> None:
    before = contents(layout)
    damage(file)
    result = ingest(layout.data, "restore", file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file} is no backup of ingest, or damaged: ")
    assert result.stderr.count("\n") == 1
    assert contents(layout) == before


def test_while_others_write(layout: Layout, tmp_path: Path) -> None:
    """The copy is of one moment, and whole."""
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            with Registry(layout.devices) as registry:
                registry.add_many((f"n{number:04}-{each}", _VERIFIER, "") for each in range(50))
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            good(ingest(layout.data, "backup", tmp_path / f"{number}.tar"))
    finally:
        ended.set()
        thread.join()
    for number in range(5):
        good(ingest(tmp_path / f"{number}", "restore", tmp_path / f"{number}.tar"))
        with Registry(Layout(tmp_path / f"{number}").devices) as registry:
            registry.check()
            assert (registry.count() - 3) % 50 == 0
            assert registry.count() == len(list(registry.devices()))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "live") as listener:
        listener.add("kept", "new")
        yield listener


def test_under_a_running_listener(listener: Listener, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    with TextDevice(listener.addresses[0]) as kept, TextDevice(listener.addresses[0]) as late:
        kept.log_in("kept")
        kept.push_all("a", "b", last=2)
        assert "2 devices, positions.db; checked" in listener.ingest("backup", str(file))
        listener.add("late")
        late.log_in("late")
        said = listener.ingest("restore", str(file))
        assert said.startswith("devices: 2 devices\npositions: those in ")
        assert late.last_words() == "revoked"
        kept.push_all("c", last=3)


def _numbers_go_on(data: Path, at_least: int) -> int:
    with Listener(data) as listener, TextDevice(listener.addresses[0]) as device:
        following = device.log_in("kept")
        device.push_all("x", last=following)
    assert following >= at_least
    return following


def test_moving_with_the_log(listener: Listener, tmp_path: Path) -> None:
    file, moved = tmp_path / "b.tar", tmp_path / "moved"
    with TextDevice(listener.addresses[0]) as device:
        device.log_in("kept")
        device.push_all("a", "b", last=2)
    listener.stop()
    good(ingest(listener.data, "backup", file))
    shutil.copytree(listener.layout.log_folder, moved / "log")
    assert "positions: written to " in good(ingest(moved, "restore", file))
    assert read_positions(Layout(moved).positions) == {"kept": 2}
    assert _numbers_go_on(moved, 3) == 3


def test_a_lost_log_never_gives_a_number_twice(listener: Listener, tmp_path: Path) -> None:
    """The backup is of a stopped listener; more was sent after it, and the log is gone."""
    file, new = tmp_path / "b.tar", tmp_path / "new"
    assert _send_and_stop(listener) == 2
    good(ingest(listener.data, "backup", file))
    sent = _numbers_go_on(listener.data, 3)
    good(ingest(new, "restore", file))
    assert _numbers_go_on(new, sent + 1) > 1_000_000


def _send_and_stop(listener: Listener) -> int:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in("kept")
        device.push_all("a", "b", last=2)
    listener.stop()
    return 2


def test_a_backup_from_before_there_were_formats(tmp_path: Path) -> None:
    older, ours, archive = Layout(tmp_path / "older"), Layout(tmp_path / "ours"), tmp_path / "b"
    older.create()
    with Registry(older.devices) as registry:
        registry.add_many([("a", _VERIFIER, "")])
    with closing(sqlite3.connect(older.devices)) as database, database:
        database.execute("DROP TRIGGER format_forgotten")
        database.execute("DROP TABLE formats")
    ours.create()
    with Registry(ours.devices) as registry:
        registry.add_many([("a", _VERIFIER, "")], {"a": "json"})
    for layout, command in ((older, "backup"), (ours, "restore")):
        done = CliRunner().invoke(main, ["--data", str(layout.data), command, str(archive)])
        assert done.exit_code == 0, done.output
    with Registry(ours.devices) as registry:
        assert registry.format_of("a") == ""
