"""The registry of a running listener, while its file is replaced, overwritten, damaged, mended."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingest.devices.registry import Registry, RegistryError
from ingest.devices.verifier import derive
from ingest.devices.watched import WatchedRegistry

_VERIFIER, _OTHER = derive("token"), derive("other")
NAMES = ["kept", "gone", "re-keyed", "disabled"]


def _rename(copy: Path, path: Path) -> None:
    copy.replace(path)


def _remove_and_copy(copy: Path, path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        file.unlink()
    shutil.copy(copy, path)


def _restore_with_sqlite(copy: Path, path: Path) -> None:
    with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)


def _overwrite(copy: Path, path: Path) -> None:
    shutil.copyfile(copy, path)


every_way = pytest.mark.parametrize(
    "put", [_rename, _remove_and_copy, _overwrite, _restore_with_sqlite]
)
Put = Callable[[Path, Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "devices.db"


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    """A registry that differs, made from another one."""
    copy = tmp_path / "copy.db"
    with Registry(copy) as registry:
        registry.add_many((name, _VERIFIER, "") for name in NAMES)
        registry.add_many([("new", _VERIFIER, "")])
        for _ in range(5):
            registry.set_enabled("new", False)
            registry.set_enabled("new", True)
        registry.remove("gone")
        registry.set_token("re-keyed", "another")
        registry.set_enabled("disabled", False)
    return copy


@pytest.fixture
def watched(path: Path) -> Iterator[WatchedRegistry]:
    with Registry(path) as registry:
        registry.add_many((name, _VERIFIER, "") for name in NAMES)
    with WatchedRegistry(path) as watched:
        for name in NAMES:
            assert watched.keys(name) == _VERIFIER
        yield watched


def _change(path: Path, change: Callable[[Registry], object]) -> None:
    with Registry(path) as registry:
        change(registry)


def test_it_is_a_registry(watched: WatchedRegistry, path: Path) -> None:
    mark = watched.last_revocation()
    _change(path, lambda registry: registry.set_enabled("gone", False))
    _change(path, lambda registry: registry.add("more", "token"))
    following, names = watched.revoked_since(mark)
    assert names == ["gone"]
    assert watched.revoked_since(following) == (following, [])
    assert watched.health == ""
    assert watched.count() == 5


@every_way
def test_those_whose_keys_are_no_longer_good_are_revoked(
    watched: WatchedRegistry, path: Path, copy: Path, put: Put
) -> None:
    mark = watched.last_revocation()
    put(copy, path)
    following, names = watched.revoked_since(mark)
    assert {"disabled", "gone", "re-keyed"} <= set(names)
    # SQLite's own copy is taken for news, and so is what was revoked in it once.
    assert "new" not in names or put is _restore_with_sqlite
    assert "kept" not in names
    assert following > mark
    assert watched.revoked_since(following) == (following, [])
    assert watched.keys("new") == _VERIFIER
    assert watched.keys("gone").stored_key != _VERIFIER.stored_key
    assert watched.health == ""


@every_way
def test_what_is_changed_afterwards_counts(
    watched: WatchedRegistry, path: Path, copy: Path, put: Put
) -> None:
    mark = watched.last_revocation()
    put(copy, path)
    mark, _ = watched.revoked_since(mark)
    _change(path, lambda registry: registry.set_enabled("kept", False))
    mark, names = watched.revoked_since(mark)
    assert names == ["kept"]
    _change(path, lambda registry: registry.remove("kept"))
    assert watched.revoked_since(mark)[1] == ["kept"]


@every_way
def test_a_change_that_comes_before_the_look(
    watched: WatchedRegistry, path: Path, copy: Path, put: Put
) -> None:
    mark = watched.last_revocation()
    put(copy, path)
    _change(path, lambda registry: registry.set_enabled("kept", False))
    assert "kept" in watched.revoked_since(mark)[1]
    with Registry(path) as registry:
        registry.check()
        found = registry.get("kept")
    assert found is not None
    assert not found.enabled


@every_way
def test_again_and_again(watched: WatchedRegistry, path: Path, tmp_path: Path, put: Put) -> None:
    """The numbers of revocations fall back each time; the marks never do."""
    before = tmp_path / "before.db"
    shutil.copy(path, before)
    mark = watched.last_revocation()
    for _ in range(3):
        assert watched.keys("kept") == _VERIFIER
        _change(path, lambda registry: registry.set_enabled("kept", False))
        following, names = watched.revoked_since(mark)
        assert names == ["kept"]
        assert following > mark
        shutil.copy(before, tmp_path / "copy.db")
        put(tmp_path / "copy.db", path)
        mark, names = watched.revoked_since(following)
        assert names == []


@every_way
def test_a_mark_from_before_the_replacement_tells_all(
    watched: WatchedRegistry, path: Path, copy: Path, put: Put
) -> None:
    """A handshake that began before is judged by what is there at its end."""
    mark = watched.last_revocation()
    put(copy, path)
    watched.revoked_since(mark)
    assert "gone" in watched.revoked_since(mark)[1]
    assert "kept" not in watched.revoked_since(mark)[1]


@every_way
def test_an_equal_copy_revokes_nothing(
    watched: WatchedRegistry, path: Path, tmp_path: Path, put: Put
) -> None:
    shutil.copy(path, tmp_path / "copy.db")
    mark = watched.last_revocation()
    put(tmp_path / "copy.db", path)
    assert watched.revoked_since(mark)[1] == []
    _change(path, lambda registry: registry.set_enabled("kept", False))
    assert watched.revoked_since(mark)[1] == ["kept"]


def test_a_copy_by_cp_has_every_device(watched: WatchedRegistry, path: Path, copy: Path) -> None:
    for number in range(20):
        _change(path, lambda registry, number=number: registry.add_many(  # type: ignore[misc]
            [(f"d{number}", _VERIFIER, "")]
        ))  # fmt: skip
    shutil.copyfile(path, copy)
    with Registry(copy) as registry:
        assert registry.count() == 24


@pytest.mark.parametrize("damage", ["garbage", "half", "empty", "no registry", "missing"])
def test_damage_is_told_and_ends_when_the_file_is_restored(
    watched: WatchedRegistry, path: Path, tmp_path: Path, damage: str
) -> None:
    good = path.read_bytes()
    mark = watched.last_revocation()
    if damage == "missing":
        path.unlink()
    elif damage == "no registry":
        path.unlink()
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TABLE other (name)")
    else:
        bad = {"garbage": b"garbage" * 4000, "half": good[: len(good) // 2], "empty": b""}[damage]
        path.write_bytes(bad)
    for _ in range(3):
        with pytest.raises(RegistryError) as caught:
            watched.revoked_since(mark)
        assert watched.health == str(caught.value)
        assert str(path) in watched.health
    assert path.exists() == (damage != "missing")
    path.write_bytes(good)
    assert watched.revoked_since(mark)[1] == []
    assert watched.health == ""
    assert watched.keys("kept") == _VERIFIER


def test_another_folder_in_its_place_says_nothing_of_our_devices(
    watched: WatchedRegistry, path: Path, copy: Path
) -> None:
    assert watched.keys("gone")
    mark = watched.last_revocation()
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.mkdir()
    shutil.copy(copy, path)
    for _ in range(2):
        with pytest.raises(RegistryError, match="its folder was moved away or replaced"):
            watched.revoked_since(mark)
        with pytest.raises(RegistryError):
            watched.keys("gone")
    shutil.rmtree(path.parent)
    path.parent.with_name("moved").rename(path.parent)
    assert watched.revoked_since(mark)[1] == []
    assert watched.keys("gone")


def test_damage_that_a_look_up_meets(watched: WatchedRegistry, path: Path) -> None:
    with Registry(path) as registry:
        registry.add_many((f"sensor-{number:04}", _VERIFIER, "") for number in range(1000))
    good = path.read_bytes()
    mark, _ = watched.revoked_since(watched.last_revocation())
    with path.open("r+b") as file:
        file.seek(20480)
        file.write(b"\xff" * (len(good) - 20480))
    written = path.stat()
    os.utime(path, ns=(written.st_atime_ns, watched._stamp.written))  # as a failing disk does it
    with pytest.raises(RegistryError, match="restore it from a backup"):
        for number in range(1000):
            watched.keys(f"sensor-{number:04}")
    assert "restore it from a backup" in watched.health
    with pytest.raises(RegistryError):
        watched.revoked_since(mark)
    path.write_bytes(good)
    assert watched.revoked_since(mark)[1] == []
    assert watched.health == ""


def test_keys_say_why_while_the_file_is_no_registry(watched: WatchedRegistry, path: Path) -> None:
    path.unlink()
    path.write_bytes(b"garbage" * 4000)
    for _ in range(2):
        with pytest.raises(RegistryError, match="file is not a database"):
            watched.revoked_since(0)
        with pytest.raises(RegistryError, match="file is not a database"):
            watched.keys("kept")


def test_a_file_from_before_there_were_revisions(path: Path) -> None:
    with Registry(path) as registry:
        registry.add_many([("a", _VERIFIER, "")])
    with closing(sqlite3.connect(path)) as old, old:
        for (name,) in old.execute("SELECT name FROM sqlite_master WHERE name LIKE 'revised%'"):
            old.execute(f"DROP TRIGGER {name}")
        old.execute("DROP TABLE meta")
    with WatchedRegistry(path) as watched:
        before = watched.revision()
        assert watched.keys("a") == _VERIFIER
        _change(path, lambda registry: registry.add_many([("b", _OTHER, "")]))
        assert watched.revision() != before
        assert watched.revoked_since(0)[1] == []


@pytest.mark.parametrize("put", [_rename, _remove_and_copy, _overwrite])
def test_names_that_need_no_token_are_revoked_when_the_file_is_replaced(
    watched: WatchedRegistry, path: Path, copy: Path, put: Put
) -> None:
    assert watched.may_connect("unknown", unregistered=True)
    mark = watched.last_revocation()
    put(copy, path)
    assert "unknown" in watched.revoked_since(mark)[1]
    assert not watched.may_connect("disabled", unregistered=True)


def test_nobody_may_connect_while_the_file_is_gone(watched: WatchedRegistry, path: Path) -> None:
    path.unlink()
    with pytest.raises(RegistryError):
        watched.revoked_since(watched.last_revocation())
    with pytest.raises(RegistryError):
        watched.may_connect("kept", unregistered=True)
