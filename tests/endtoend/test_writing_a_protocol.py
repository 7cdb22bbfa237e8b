"""WRITING_A_PROTOCOL.md: its package, installed as it stands there, and a device that speaks it."""

import json
import re
import socket
import subprocess
import sys
import venv
from base64 import b64decode
from pathlib import Path

import pytest

from tests.support.listeners import Listener
from tests.support.processes import run
from tests.support.waiting import PATIENCE, wait_for

TEXT = (Path(__file__).parents[2] / "ingest" / "WRITING_A_PROTOCOL.md").read_text()
_FILE = re.compile(
    r"^`([a-z_/.]+)` [^\n]*:\n\n```(?:python|toml)\n(.*?)```$", re.MULTILINE | re.DOTALL
)
FILES = dict(_FILE.findall(TEXT))
SITE = next(path for path in sys.path if path.endswith("site-packages"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package in a venv of its own, which has ours behind it; return its Python."""
    folder = tmp_path_factory.mktemp("meters")
    for name, content in FILES.items():
        path = folder / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "behind.pth").write_text(f"import site; site.addsitedir({SITE!r})\n")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", folder / "package"],
        check=True, timeout=120,
    )  # fmt: skip
    assert (packages / "meters.py").exists()
    return python


class Meter:
    """A meter that keeps its readings until they are counted."""

    def __init__(self, address: object, serial: bytes) -> None:
        assert isinstance(address, tuple)
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.send(bytes([len(serial)]) + serial)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                self.socket.close()
                break
            data += more
        return data


def packed(*readings: bytes) -> bytes:
    return b"".join(len(reading).to_bytes(2, "big") + reading for reading in readings)


def test_the_text_has_the_whole_package() -> None:
    assert FILES.keys() == {"meters.py", "twisted/plugins/meters_protocol.py", "pyproject.toml"}


def test_a_protocol_takes_thirty_lines() -> None:
    lines = [line for line in FILES["meters.py"].splitlines() if line.strip()]
    assert len(lines) <= 30


def test_it_is_listed(python: Path, tmp_path: Path) -> None:
    twistd = Path(sys.executable).with_name("twistd")
    assert "meters: water meters" in run(python, twistd, "ingest", "--help", cwd=tmp_path).stdout


def test_a_meter(python: Path, tmp_path: Path) -> None:
    options = ("--listen", "meters=tcp:0:interface=127.0.0.1")
    with Listener(tmp_path / "data", *options, listen=(), under=(python,)) as listener:
        listener.add("wm-1")
        meter = Meter(listener.addresses[0], b"wm-1")
        assert meter.read(1) == b"\x01"
        stream = packed(b"\x00\xff", b"", b"abc")
        for byte in stream:
            meter.send(bytes([byte]))
        counted = 0
        while counted < 3:
            counted += int.from_bytes(meter.read(4), "big")
        assert counted == 3
        newer = Meter(listener.addresses[0], b"wm-1")
        assert newer.read(1) == b"\x01"
        assert meter.read(1) == b""  # the newer one has taken over
        newer.send(packed(b"d") + b"\x00")
        assert newer.read(4) == (1).to_bytes(4, "big")
        listener.ingest("device", "disable", "wm-1")
        assert newer.read(1) == b""  # revoked
        unknown = Meter(listener.addresses[0], b"wm-2")
        assert unknown.read(1) == b""
        lines = list(map(json.loads, listener.lines("wm-1")))
        assert [b64decode(line["raw"]) for line in lines] == [b"\x00\xff", b"", b"abc", b"d"]
        assert [line["seq"] for line in lines] == [1, 2, 3, 4]
        wait_for(lambda: listener.status()["connections"] == 0, "the end of all connections")
