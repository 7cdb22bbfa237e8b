"""What an operator may know, where not all of it can be found out."""

import errno
import shutil
from pathlib import Path

import pytest

from ingest.service.snapshot import free_bytes


def test_what_is_free_where_a_folder_was(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "moved" / "away") > 0


def test_a_disk_that_can_not_tell_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert free_bytes(tmp_path) == 0
