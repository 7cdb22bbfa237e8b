"""The registry: one contract, in a file and in memory; then what only a file has."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.devices.device import Device, InvalidFormat, InvalidName, InvalidNote
from ingest.devices.registry import DeviceExists, Registry, RegistryError, UnknownDevice
from ingest.devices.verifier import InvalidToken, decoy, derive, matches
from tests.devices.tokens import legal_tokens

_VERIFIER = derive("token")
_NAMES = st.text("Az09._:-", min_size=1, max_size=128)
_NOTES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))


class TestContract:
    @pytest.fixture(params=["file", "memory"])
    def registry(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
        with Registry(":memory:" if request.param == "memory" else tmp_path / "d.db") as registry:
            yield registry

    def test_who_may_connect_without_a_token(self, registry: Registry) -> None:
        registry.add_many((name, _VERIFIER, "") for name in ("on", "off"))
        registry.set_enabled("off", False)
        for unregistered in (False, True):
            allowed = [
                registry.may_connect(name, unregistered=unregistered)
                for name in ("on", "off", "unknown")
            ]
            assert allowed == [True, False, unregistered]

    def test_it_begins_empty(self, registry: Registry) -> None:
        assert registry.count() == 0
        assert list(registry.devices()) == []
        assert registry.get("a") is None
        assert registry.verifier("a") is None
        assert registry.last_revocation() == 0
        assert registry.revoked_since(0) == (0, [])

    def test_add(self, registry: Registry) -> None:
        registry.add("sensor-1", "secret", "hall 3")
        device = registry.get("sensor-1")
        assert device is not None
        assert device == Device("sensor-1", True, device.created, "hall 3", None, None)
        assert device.created.endswith("Z")
        verifier = registry.verifier("sensor-1")
        assert verifier is not None
        assert matches(verifier, "secret")
        assert registry.count() == 1

    def test_add_twice_keeps_the_first(self, registry: Registry) -> None:
        registry.add("a", "first")
        with pytest.raises(DeviceExists, match="device a is registered already"):
            registry.add("a", "second")
        verifier = registry.verifier("a")
        assert verifier is not None
        assert matches(verifier, "first")

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 129, "a\n"])
    def test_add_illegal_name(self, registry: Registry, name: str) -> None:
        with pytest.raises(InvalidName, match="1 to 128 characters"):
            registry.add(name, "token")

    def test_add_illegal_token(self, registry: Registry) -> None:
        with pytest.raises(InvalidToken):
            registry.add("a", "")
        assert registry.get("a") is None

    @pytest.mark.parametrize("note", ["a\nb", "\x1b[0m", "\x7f", "\x85", "\udcff"])
    def test_add_illegal_note(self, registry: Registry, note: str) -> None:
        with pytest.raises(InvalidNote, match="one line"):
            registry.add("a", "token", note)

    def test_add_many_skips_those_registered(self, registry: Registry) -> None:
        registry.add("b", "mine", "kept")
        assert registry.add_many((name, _VERIFIER, "") for name in "abc") == 2
        assert [device.name for device in registry.devices()] == ["a", "b", "c"]
        assert registry.count() == 3
        kept = registry.get("b")
        assert kept is not None
        assert kept.note == "kept"
        assert registry.verifier("b") != _VERIFIER

    def test_add_many_of_nothing(self, registry: Registry) -> None:
        assert registry.add_many([]) == 0

    def test_add_many_is_all_or_none(self, registry: Registry) -> None:
        with pytest.raises(InvalidName):
            registry.add_many([("a", _VERIFIER, ""), ("b c", _VERIFIER, "")])
        assert registry.count() == 0
        registry.add("a", "still usable")

    def test_devices_come_sorted_from_more_than_one_page(self, registry: Registry) -> None:
        names = [f"sensor-{number}" for number in range(2500)]
        registry.add_many((name, _VERIFIER, "") for name in names)
        assert [device.name for device in registry.devices()] == sorted(names)
        assert registry.count() == 2500

    def test_a_disabled_device_has_no_verifier(self, registry: Registry) -> None:
        registry.add_many([("a", _VERIFIER, "")])
        registry.set_enabled("a", False)
        device = registry.get("a")
        assert device is not None
        assert not device.enabled
        assert registry.verifier("a") is None
        registry.set_enabled("a", True)
        assert registry.verifier("a") == _VERIFIER

    def test_keys(self, registry: Registry) -> None:
        registry.add_many([("a", _VERIFIER, "")])
        assert registry.keys("a") == _VERIFIER
        nobody = registry.keys("nobody")
        assert nobody == registry.keys("nobody")
        assert nobody.salt != registry.keys("somebody").salt
        registry.set_enabled("a", False)
        disabled = registry.keys("a")
        assert (disabled.salt, disabled.iterations) == (_VERIFIER.salt, _VERIFIER.iterations)
        assert not matches(disabled, "token")
        registry.remove("a")
        assert registry.keys("a").stored_key == disabled.stored_key

    def test_the_revision_differs_when_devices_do(self, registry: Registry) -> None:
        seen = {registry.revision()}
        for number, change in enumerate(
            (
                lambda: registry.add_many([("a", _VERIFIER, "")]),
                lambda: registry.set_enabled("a", False),
                lambda: registry.set_enabled("a", True),
                lambda: registry.set_token("a", "new"),
                lambda: registry.remove("a"),
            )
        ):
            change()
            seen.add(registry.revision())
            assert len(seen) == number + 2
        registry.record_seen([("a", "2026-11-22T11:39:00Z", "127.0.0.1:9")])
        assert registry.revision() in seen

    def test_a_new_token_replaces_the_old(self, registry: Registry) -> None:
        registry.add("a", "old")
        registry.set_token("a", "new")
        verifier = registry.verifier("a")
        assert verifier is not None
        assert matches(verifier, "new")
        assert not matches(verifier, "old")

    def test_remove(self, registry: Registry) -> None:
        registry.add("a", "token")
        registry.record_seen([("a", "2026-11-22T11:39:00Z", "127.0.0.1:9")])
        registry.remove("a")
        assert registry.get("a") is None
        assert registry.verifier("a") is None
        assert registry.count() == 0
        registry.add("a", "again")
        device = registry.get("a")
        assert device is not None
        assert device.last_seen is None

    def test_unknown_devices(self, registry: Registry) -> None:
        for change in (
            lambda: registry.set_enabled("a", False),
            lambda: registry.set_token("a", "token"),
            lambda: registry.remove("a"),
        ):
            with pytest.raises(UnknownDevice, match="device a is not registered"):
                change()
        assert registry.last_revocation() == 0

    def test_revocations(self, registry: Registry) -> None:
        registry.add_many((name, _VERIFIER, "") for name in "abcd")
        registry.set_enabled("d", False)
        mark = registry.last_revocation()
        registry.set_enabled("c", False)
        registry.set_token("a", "token")
        registry.remove("b")
        registry.set_token("a", "token")
        following, names = registry.revoked_since(mark)
        assert names == ["c", "a", "b"]
        assert following == registry.last_revocation()
        assert registry.revoked_since(following) == (following, [])

    def test_what_revokes_nothing(self, registry: Registry) -> None:
        registry.add("a", "token")
        registry.set_enabled("a", True)
        registry.set_enabled("a", False)
        mark = registry.last_revocation()
        registry.set_enabled("a", False)
        registry.set_enabled("a", True)
        registry.record_seen([("a", "2026-11-22T11:39:00Z", "127.0.0.1:9")])
        assert registry.last_revocation() == mark

    def test_seen(self, registry: Registry) -> None:
        registry.add_many((name, _VERIFIER, "") for name in "abc")
        registry.record_seen([("a", "1", "h:1"), ("nobody", "1", "h:1"), ("b", "1", "h:2")])
        registry.record_seen([("a", "2", "h:3"), ("a", "3", "h:4")])
        registry.record_seen([])
        seen = [(device.last_seen, device.last_peer) for device in registry.devices()]
        assert seen == [("3", "h:4"), ("1", "h:2"), (None, None)]
        assert registry.get("nobody") is None

    def test_it_may_move_to_another_thread(self, registry: Registry) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(registry.add, "a", "token").result()
        assert registry.count() == 1


@settings(deadline=None, max_examples=30)
@given(name=_NAMES, token=legal_tokens, note=_NOTES)
def test_round_trip(name: str, token: str, note: str) -> None:
    with Registry(":memory:") as registry:
        registry.add(name, token, note)
        device, verifier = registry.get(name), registry.verifier(name)
    assert device is not None
    assert (device.name, device.note) == (name, note)
    assert verifier is not None
    assert matches(verifier, token)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "devices.db"


def test_it_lasts(path: Path) -> None:
    with Registry(path) as registry:
        registry.add_many([("a", _VERIFIER, "note")])
    with Registry(str(path)) as registry:
        assert registry.verifier("a") == _VERIFIER


def test_decoys_last(path: Path) -> None:
    with Registry(path) as registry:
        before = registry.keys("nobody")
    with Registry(path) as registry:
        assert registry.keys("nobody") == before
    with Registry(":memory:") as other:
        assert other.keys("nobody").salt != before.salt


def test_nothing_is_made_when_it_must_be_there(path: Path) -> None:
    with pytest.raises(RegistryError, match="No such file"):
        Registry(path, make=False)
    assert not path.exists()
    path.touch()
    with pytest.raises(RegistryError, match="not a registry"):
        Registry(path, make=False)
    assert path.read_bytes() == b""
    path.unlink()
    Registry(path).close()
    with Registry(path, make=False) as registry:
        assert registry.count() == 0


def test_only_its_owner_may_read_it(path: Path) -> None:
    with Registry(path) as registry:
        registry.add("a", "token")
        files = sorted(path.parent.iterdir())
        assert [file.name for file in files] == ["devices.db", "devices.db-shm", "devices.db-wal"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_revocations_are_seen_by_another_connection(path: Path) -> None:
    with Registry(path) as listener, Registry(path) as command:
        command.add("a", "token")
        mark = listener.last_revocation()
        assert listener.verifier("a") is not None
        command.set_enabled("a", False)
        assert listener.verifier("a") is None
        assert listener.revoked_since(mark)[1] == ["a"]


def test_reading_does_not_wait_for_a_writer(path: Path) -> None:
    with Registry(path) as listener, closing(sqlite3.connect(path)) as writer:
        listener.add_many([("a", _VERIFIER, "")])
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM devices")
        assert listener.verifier("a") == _VERIFIER
        assert listener.count() == 1
        assert listener.revoked_since(0) == (0, [])


def test_old_revocations_go_and_recent_ones_stay(path: Path) -> None:
    with Registry(path) as registry, closing(sqlite3.connect(path)) as other:
        registry.add_many((f"d{number}", _VERIFIER, "") for number in range(20))
        with other:
            other.executemany("INSERT INTO revocations (device, time) VALUES (?, 0)", ["a"] * 15)
        for number in range(20):
            registry.remove(f"d{number}")
        mark, names = registry.revoked_since(0)
        assert names == [f"d{number}" for number in range(20)]
        assert mark == 35


def _add_one(path: Path, number: int) -> None:
    with Registry(path) as registry:
        registry.add_many([(f"d{number}", decoy("", b""), "")])


def test_several_processes_may_make_it_at_once(path: Path) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=_add_one, args=(path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with Registry(path) as registry:
        assert registry.count() == 4


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"name,token\n" * 1000)
    with pytest.raises(RegistryError, match=r"devices\.db: file is not a database: move it away"):
        Registry(path)
    assert path.read_bytes() == b"name,token\n" * 1000


def test_a_damaged_file(path: Path) -> None:
    with Registry(path) as registry:
        registry.add_many((f"sensor-{number:04}", _VERIFIER, "") for number in range(1000))
    content = bytearray(path.read_bytes())
    content[40960:] = b"\xff" * (len(content) - 40960)
    path.write_bytes(content)
    with Registry(path) as registry, pytest.raises(RegistryError, match="restore it from a backup"):
        list(registry.devices())


@pytest.mark.parametrize("version", [0, 1])
def test_another_programs_database(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE devices (name)")
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(RegistryError, match="not a registry of devices"):
        Registry(path)


def test_a_later_format(path: Path) -> None:
    Registry(path).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(RegistryError, match="has format 99"):
        Registry(path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"can't open .*missing/devices\.db: No such file"):
        Registry(tmp_path / "missing" / "devices.db")


def test_formats(path: Path) -> None:
    with Registry(path) as listener, Registry(path) as command:
        command.add("a", "token", "", "json")
        command.add_many([("a", _VERIFIER, ""), ("b", _VERIFIER, "")], {"a": "csv", "b": "nmea"})
        mark = listener.last_revocation()
        assert [listener.format_of(name) for name in ("a", "b", "nobody")] == ["json", "nmea", ""]
        command.set_format("a", "")
        assert listener.format_of("a") == ""
        assert [device.line_format for device in listener.devices()] == [None, "nmea"]
        assert listener.revoked_since(mark)[1] == []  # nobody is cut
        command.remove("b")
        command.add("b", "token")
        assert listener.format_of("b") == ""
        with pytest.raises(UnknownDevice):
            command.set_format("nobody", "json")
        with pytest.raises(InvalidFormat, match="there are opaque, json"):
            command.set_format("a", "yaml")
        with pytest.raises(InvalidFormat):
            command.add("c", "token", "", "yaml")
        assert command.get("c") is None


def test_a_registry_from_before_there_were_formats(path: Path) -> None:
    with Registry(path) as registry:
        registry.add("a", "token")
    with closing(sqlite3.connect(path)) as older, older:
        older.execute("DROP TRIGGER format_forgotten")
        older.execute("DROP TABLE formats")
    with Registry(path, make=False) as registry:
        assert registry.format_of("a") == ""
        registry.set_format("a", "json")
        assert registry.format_of("a") == "json"


def test_formats_are_taken_over_from_another_registry(path: Path) -> None:
    with Registry(path) as source:
        source.add_many([("a", _VERIFIER, ""), ("b", _VERIFIER, "")], {"a": "json"})
    with Registry(path.with_name("ours")) as registry:
        registry.add_many([("b", _VERIFIER, ""), ("c", _VERIFIER, "")], {"b": "csv", "c": "csv"})
        registry.become(path)
        assert [device.line_format for device in registry.devices()] == ["json", None]
