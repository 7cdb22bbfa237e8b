"""Where things are kept below the data folder."""

from pathlib import Path

import pytest

from ingest.layout import DEFAULT_DATA, Layout


def test_the_names() -> None:
    layout = Layout(Path("data"))
    assert layout.log_folder == Path("data/log")
    assert layout.state_folder == Path("data/state")
    assert layout.devices == Path("data/state/devices.db")
    assert layout.positions == Path("data/state/positions.db")
    assert layout.control == Path("data/state/control.sock")
    assert layout.lock == Path("data/state/lock")
    assert Path("ingest-data") == DEFAULT_DATA


def test_create_makes_what_is_missing(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "b")
    for _ in range(2):
        layout.create()
        assert layout.log_folder.is_dir()
        assert layout.state_folder.is_dir()


def test_the_state_is_nobody_elses_to_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    assert layout.state_folder.stat().st_mode & 0o077 == 0


def test_create_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(OSError, match="log"):
        Layout(tmp_path).create()
