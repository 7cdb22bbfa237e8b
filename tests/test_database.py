"""A write-ahead log on a disk that is full: its index, mapped into memory, ends no process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_tool

_OPENING = {
    "registry": "from ingest.devices.registry import Registry as Kept",
    "positions": "from ingest.journal.positions import Positions as Kept",
    "page": "from ingest.watch.keeping import Keeper as Kept",
    "rules": "from ingest.watch.rules.state import State as Kept",
}

_FILLING = """
import os, sqlite3, sys
from pathlib import Path
{opening}
file = Path(sys.argv[1]) / "kept.db"
Kept(file).close()
kept = Kept(file)
index = os.stat(f"{{file}}-shm")
assert index.st_blocks * 512 >= index.st_size, index
with open(file.with_name("filler"), "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(1024))
    except OSError:
        os.fsync(filler.fileno())
    filler.truncate(filler.tell() - (12 << 10))  # as much as the log takes for one change
(database,) = (each for each in vars(kept).values() if isinstance(each, sqlite3.Connection))
try:
    while True:
        database.execute("CREATE TABLE IF NOT EXISTS filler (data)")
        database.execute("INSERT INTO filler VALUES (zeroblob(100))")
except sqlite3.OperationalError as error:
    print(error)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 whose blocks are smaller than the pages of memory."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    mount.mkdir()
    run_tool("truncate", "--size", "12M", image)
    run_tool("mkfs.ext4", "-q", "-b", "1024", "-m", "0", image)
    run_tool("mount", "-o", "loop", image, mount)
    try:
        yield mount
    finally:
        run_tool("umount", "--lazy", mount)


@pytest.mark.parametrize("opening", _OPENING.values(), ids=_OPENING)
def test_a_full_disk_is_an_error_and_no_signal(small_disk: Path, opening: str) -> None:
    code = _FILLING.format(opening=opening)
    result = subprocess.run(
        [sys.executable, "-c", code, small_disk],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, (result.returncode, result.stderr)
    assert result.stdout == "database or disk is full\n"
