"""What becomes of `devices.db` under a running listener."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.devices.registry import Registry
from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with Listener(tmp_path / "data") as listener:
        listener.add("kept", "gone")
        yield listener


@pytest.fixture
def copy(listener: Listener, tmp_path: Path) -> Path:
    shutil.copy(listener.layout.devices, tmp_path / "copy.db")
    with Registry(tmp_path / "copy.db") as registry:
        registry.remove("gone")
    return tmp_path / "copy.db"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_restored_copy_counts(listener: Listener, copy: Path, in_place: bool) -> None:
    with TextDevice(listener.addresses[0]) as kept, TextDevice(listener.addresses[0]) as gone:
        assert (kept.log_in("kept"), gone.log_in("gone")) == (1, 1)
        if in_place:
            shutil.copyfile(copy, listener.layout.devices)
        else:
            copy.replace(listener.layout.devices)
        assert gone.last_words() == "revoked"
        kept.push_all("a", last=1)
        assert listener.ingest("device", "disable", "kept") == "disabled kept\n"
        assert kept.last_words() == "revoked"
    with TextDevice(listener.addresses[0]) as gone:
        gone.send(gone.plain("gone"))
        assert gone.last_words() == "auth-failed"
    assert listener.status()["health"] == "ok"


@pytest.mark.parametrize("damage", ["garbage", "missing"])
def test_a_damaged_registry_is_told_once_and_every_device_gets_an_answer(
    listener: Listener, damage: str
) -> None:
    path = listener.layout.devices
    good = path.read_bytes()
    with TextDevice(listener.addresses[0]) as connected:
        connected.log_in("kept")
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"garbage" * 4000)
        wait_for(lambda: listener.status()["health"] == "registry-failing", "the damage")
        assert str(path) in listener.status()["reason"]
        for _ in range(20):
            with TextDevice(listener.addresses[0]) as device:
                device.send(device.plain("gone"))
                assert device.last_words() == "busy"
            with TextDevice(listener.addresses[0]) as device:
                device.send(device.auth("SCRAM-SHA-256", b"n,,n=gone,r=abc"))
                assert device.last_words() == "busy"
        connected.push_all("a", last=1)
        path.write_bytes(good)
        wait_for(lambda: listener.status()["health"] == "ok", "the registry")
        with TextDevice(listener.addresses[0]) as device:
            assert device.log_in("gone") == 1
        connected.push_all("b", last=2)
    assert listener.output.count("nobody is let in meanwhile") == 1
    assert listener.output.count("the registry can be read again") == 1


def test_a_damaged_registry_is_restored_by_the_command(listener: Listener, tmp_path: Path) -> None:
    listener.ingest("backup", str(tmp_path / "backup.tar"))
    with TextDevice(listener.addresses[0]) as kept:
        kept.log_in("kept")
        listener.layout.devices.write_bytes(b"garbage" * 4000)
        wait_for(lambda: listener.status()["health"] == "registry-failing", "the damage")
        listener.ingest("restore", str(tmp_path / "backup.tar"))
        wait_for(lambda: listener.status()["health"] == "ok", "the registry")
        with TextDevice(listener.addresses[0]) as gone:
            gone.log_in("gone")
        listener.ingest("device", "disable", "kept")
        assert kept.last_words() == "revoked"


def test_unknown_and_disabled_devices_keep_their_salt_across_restarts(tmp_path: Path) -> None:
    def salts() -> dict[str, bytes]:
        with Listener(tmp_path / "data") as listener:
            if not listener.layout.devices.exists() or not _known(listener, "known"):
                listener.add("known", "disabled")
            found = {}
            for name in ("known", "disabled", "nobody"):
                with TextDevice(listener.addresses[0]) as device:
                    found[name] = bytes(device.begin_scram(name).salt)
            listener.ingest("device", "disable", "disabled")
            return found

    assert salts() == salts()


def _known(listener: Listener, name: str) -> bool:
    with Registry(listener.layout.devices) as registry:
        return registry.get(name) is not None
