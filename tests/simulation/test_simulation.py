"""Ten thousand histories keep every promise, and faults that are put in are found."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from ingest.layout import Layout
from tests.simulation.disk import NO_SYNC, PAGE, Killed, ModelDisk
from tests.simulation.history import BrokenPromise, run
from tests.simulation.mutations import MUTATIONS, Set
from tests.simulation.runner import run_many

HISTORIES = 10_000
WITHIN = 1_000
"""Histories in which a fault must show; each of them did within a quarter of that."""


def test_every_promise_is_kept() -> None:
    *_, done = run_many(range(HISTORIES), processes=os.cpu_count() or 1)
    assert done.histories == HISTORIES
    rarest = min(done.counts.items(), key=lambda item: item[1])
    assert rarest[1] > HISTORIES / 100, f"{rarest} hardly ever happens"


@pytest.mark.parametrize("seed", [7142466])
def test_a_history_that_once_broke_a_promise(seed: int) -> None:
    """7142466: a connection failed as it went on to write, where the reactor catches it."""
    run(seed)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: str(mutate.__name__))
def test_a_fault_is_found(mutate: Callable[[Set], None], monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch.setattr)
    with pytest.raises(BrokenPromise) as raised:
        for seed in range(WITHIN):
            run(seed)
    broken = raised.value
    assert f"seed {broken.seed}, step {broken.step}: " in str(broken)
    assert broken.events[-1] in str(broken)
    with pytest.raises(BrokenPromise) as again:
        run(broken.seed)
    assert str(again.value) == str(broken)


def test_a_history_is_the_same_in_any_process() -> None:
    outputs = {_command("--seed", "7", hash_seed=hash_seed) for hash_seed in ("1", "2")}
    (output,) = outputs
    assert output.splitlines()[-1].endswith("every promise kept")


def test_the_command() -> None:
    output = _command("--histories", "3", "--first", "50", "--processes", "1")
    assert output.startswith("3 histories, ")


def _command(*options: str, hash_seed: str = "0") -> str:
    command = [sys.executable, "-m", "tests.simulation", *options]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=root, env=environment
    ).stdout


class TestModelDisk:
    @pytest.fixture
    def layout(self, tmp_path: Path) -> Layout:
        layout = Layout(tmp_path)
        layout.create()
        return layout

    @pytest.fixture
    def disk(self, layout: Layout) -> ModelDisk:
        return ModelDisk(layout.log_folder, layout.intent, Random(1))

    @pytest.fixture
    def path(self, layout: Layout) -> Path:
        return layout.log_folder / "ingest.log"

    def _open(self, disk: ModelDisk, path: Path) -> int:
        return disk.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    def test_a_write_is_seen_at_once_and_durable_when_synced(
        self, disk: ModelDisk, path: Path
    ) -> None:
        fd = self._open(disk, path)
        disk.sync_folder(path.parent)
        disk.write_all(fd, b"ab")
        assert (path.read_bytes(), disk.durable()) == (b"ab", [b""])
        disk.fdatasync(fd)
        assert disk.durable() == [b"ab"]

    def test_a_name_is_durable_when_its_folder_is_synced(self, disk: ModelDisk, path: Path) -> None:
        fd = self._open(disk, path)
        disk.write_all(fd, b"ab")
        disk.fdatasync(fd)
        assert disk.durable() == []
        disk.sync_folder(path.parent)
        assert disk.durable() == [b"ab"]

    def test_what_a_failed_sync_dropped_no_later_one_brings(
        self, disk: ModelDisk, path: Path
    ) -> None:
        fd = self._open(disk, path)
        disk.sync_folder(path.parent)
        lost = 0
        for _ in range(50):
            disk.write_all(fd, b"a")
            disk.become(NO_SYNC._replace(rate=1.0))
            with pytest.raises(OSError):
                disk.fdatasync(fd)
            disk.become(NO_SYNC._replace(rate=0.0))
            disk.fdatasync(fd)
            lost += disk.durable() != [path.read_bytes()]
        assert lost
        content = path.read_bytes()
        with disk.opened(path, os.O_RDWR) as rewritten:
            offset = 0
            while offset < len(content):
                offset += disk.pwritev(rewritten, [content[offset:]], offset)
            disk.fdatasync(rewritten)
        assert disk.durable() == [content]

    def test_a_power_cut_leaves_what_is_durable_and_some_pages(
        self, layout: Layout, path: Path
    ) -> None:
        left = set()
        for seed in range(100):
            path.unlink(missing_ok=True)
            disk = ModelDisk(layout.log_folder, layout.intent, Random(seed))
            fd = self._open(disk, path)
            disk.sync_folder(path.parent)
            disk.write_all(fd, b"d" * PAGE)
            disk.fdatasync(fd)
            disk.write_all(fd, b"p" * PAGE + b"q" * PAGE)
            disk.cut_power()
            content = path.read_bytes()
            assert content[:PAGE] == b"d" * PAGE
            left.add(content[PAGE::PAGE])
        assert left == {b"", b"p", b"pq", b"\0q"}

    def test_who_is_killed_does_nothing_more(self, disk: ModelDisk, path: Path) -> None:
        fd = self._open(disk, path)
        disk.kill_rate = 1.0
        with pytest.raises(Killed):
            disk.write_all(fd, b"x" * 10 * PAGE)
        size = path.stat().st_size
        disk.kill_rate = 0.0
        with pytest.raises(Killed):
            disk.write_all(fd, b"x")
        assert path.stat().st_size == size and size % PAGE == 0
        disk.end_process()
        disk.write_all(self._open(disk, path), b"y")
        assert path.stat().st_size == size + 1
