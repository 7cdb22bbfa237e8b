"""The cache of each device's number."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.journal.numbers import Numbers
from ingest.journal.positions import (
    Checkpoint,
    Mark,
    Positions,
    new_identity,
    put_in_place,
    read_positions,
    write_anew,
)

_CHECKPOINT = Checkpoint("log", Mark("ingest-20261122T113900.123Z.log", "ab", 7), clean=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "positions.db"


@pytest.fixture
def positions(path: Path) -> Iterator[Positions]:
    positions = Positions(path)
    yield positions
    positions.close()


def test_a_new_file_knows_nothing(positions: Positions) -> None:
    assert positions.get("a") == 0
    assert positions.checkpoint() is None
    positions.check()


def test_what_is_saved_is_there_for_others(path: Path, positions: Positions) -> None:
    positions.save({"a": 2**53, "b": 1}, _CHECKPOINT)
    positions.save({"b": 2}, _CHECKPOINT._replace(clean=True))
    assert read_positions(path) == {"a": 2**53, "b": 2}
    other = Positions(path)
    assert other.get("a") == 2**53
    assert other.checkpoint() == _CHECKPOINT._replace(clean=True)
    other.close()


def test_a_checkpoint_may_change_no_number(positions: Positions) -> None:
    positions.save({}, _CHECKPOINT)
    assert positions.checkpoint() == _CHECKPOINT


def test_numbers_that_are_left_out_count_for_all_devices(path: Path, positions: Positions) -> None:
    positions.save({"a": 5}, _CHECKPOINT)
    positions.go_on_from({"a": 105}, 100)
    positions.go_on_from({"a": 17, "b": 113}, 110)
    other = Positions(path)
    assert [other.get(device) for device in ("a", "b", "unknown")] == [105, 113, 110]
    assert other.numbers() == {"a": 105, "b": 113}
    assert (other.floor, other.highest()) == (110, 113)
    other.close()


def test_only_its_owner_reads_it(path: Path, positions: Positions) -> None:
    files = list(path.parent.glob(f"{path.name}*"))
    assert len(files) == 3  # SQLite has two files beside it
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_what_does_not_exist_has_no_positions(path: Path) -> None:
    assert read_positions(path) == {}
    assert not path.exists()


def test_damage_is_found(path: Path) -> None:
    positions = Positions(path)
    positions.save({f"device-{index}": index for index in range(2000)}, _CHECKPOINT)
    positions.close()
    content = bytearray(path.read_bytes())
    content[16384:20480] = bytes(range(256)) * 16
    path.write_bytes(content)
    positions = Positions(path)
    with pytest.raises(sqlite3.DatabaseError):
        positions.check()
    positions.close()


def test_what_is_no_database_is_an_error(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        Positions(path)


def test_identities_differ() -> None:
    assert new_identity() != new_identity()


def test_an_older_copy_under_a_newer_wal_is_found(path: Path, tmp_path: Path) -> None:
    """SQLite takes the pages that the `-wal` has from there, and all others from the copy."""
    positions = Positions(path)
    positions.save({f"device-{index}": 1 for index in range(2000)}, _CHECKPOINT)
    positions.flush()
    older = path.read_bytes()
    positions.save({"device-1": 2}, _CHECKPOINT)
    positions.flush()
    positions.save({"device-999": 2}, _CHECKPOINT)
    wal = path.with_name(f"{path.name}-wal").read_bytes()
    killed = tmp_path / "killed.db"
    for content, is_good in ((path.read_bytes(), True), (older, False)):
        killed.write_bytes(content)
        killed.with_name("killed.db-shm").unlink(missing_ok=True)
        killed.with_name("killed.db-wal").write_bytes(wal)
        found = Positions(killed)
        assert found.get("device-999") == 2
        assert found.get("device-1") == 1 + is_good
        if is_good:
            found.check()
        else:
            with pytest.raises(sqlite3.DatabaseError, match="not those that were saved"):
                found.check()
        found.close()
    positions.close()


def test_a_number_never_falls(positions: Positions) -> None:
    positions.save({"a": 5}, _CHECKPOINT)
    positions.save({"a": 4}, _CHECKPOINT)
    positions.go_on_from({"a": 3}, 0)
    assert positions.get("a") == 5


def test_it_is_as_it_was_left_until_another_program_comes(path: Path, positions: Positions) -> None:
    assert positions.is_as_left()
    positions.save({"a": 5}, _CHECKPOINT)
    read_positions(path)
    assert positions.is_as_left()
    path.rename(path.with_name("away"))
    assert not positions.is_as_left()
    positions.save({"a": 6}, _CHECKPOINT)
    path.with_name("away").rename(path)
    assert positions.is_as_left()
    path.write_bytes(path.read_bytes())
    assert not positions.is_as_left()


def test_one_is_written_anew_with_the_old_one_in_use(path: Path, positions: Positions) -> None:
    positions.save({"a": 5, "b": 1}, _CHECKPOINT)
    positions.go_on_from({"b": 4}, 3)
    numbers = Numbers(positions)
    positions.save({"a": 9, "d": 9}, _CHECKPOINT)
    fresh = write_anew(path, numbers.fill, {"a": 6, "c": 1}, _CHECKPOINT)
    positions.close()
    put_in_place(fresh, path)
    assert sorted(path.parent.iterdir()) == [path]
    other = Positions(path)
    other.check()
    assert other.numbers() == {"a": 6, "b": 4, "c": 1}
    assert (other.floor, other.highest(), other.checkpoint()) == (3, 6, _CHECKPOINT)
    assert path.stat().st_mode & 0o777 == 0o600
    other.close()
