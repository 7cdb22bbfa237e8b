"""The client on every Python that a device may have and this machine has: 3.8 and newer."""

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.devices import TOKEN
from tests.support.listeners import Listener
from tests.support.waiting import PATIENCE

SOURCE = Path(__file__).parents[2] / "ingest" / "client.py"
OLDEST = (3, 8)

# It has the file alone, as it is copied to a device, and no package.
PROGRAM = """
import asyncio, os, sys
import client

port, name, token, spool = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
options = dict(mechanism="SCRAM-SHA-256", spool=spool, pause=(0.02, 0.1))

kept = client.Client("127.0.0.1", 1, name, token, on_event=print, **options)  # nobody is there
kept.send("kept")
kept.abort()
with client.Client("127.0.0.1", port, name, token, **options) as blocking:
    blocking.send("blocking")
    blocking.wait(60)
    blocking.reconnect(20)
    blocking.send_many(["b%d" % i for i in range(1000)])
    blocking.close(20)

async def main():
    async with client.AsyncClient("127.0.0.1", port, name, token, **options) as c:
        await c.send("asyncio")
        await c.wait(60)
        await c.reconnect(20)
        await c.send_many(["a%d" % i for i in range(1000)])
        assert c.ping()
        await c.close(20)

asyncio.run(main())
wrong = client.Client("127.0.0.1", port, name, token + "x", retry=5)
try:
    wrong.connect(20)
except client.AuthenticationError as error:
    assert error.code == "auth-failed"
else:
    raise AssertionError("a wrong token is let in")
wrong.abort()
"""
FRAMES = [
    "kept", "blocking", *(f"b{i}" for i in range(1000)),
    "asyncio", *(f"a{i}" for i in range(1000)),
]  # fmt: skip


@cache
def interpreters() -> dict[str, str]:
    """Find one interpreter of each version from the oldest on: on the PATH, and in pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    paths = [sys.executable, *map(str, sorted(pyenv.glob("versions/3.*/bin/python")))]
    paths += filter(None, (shutil.which(f"python3.{minor}") for minor in range(8, 30)))
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        code = "import sys; print(*sys.version_info[:2])"
        told = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            major, minor = map(int, told.stdout.split())
            found.setdefault((major, minor), path)
    return {f"{a}.{b}": path for (a, b), path in sorted(found.items()) if (a, b) >= OLDEST}


@pytest.mark.parametrize("version", interpreters())
def test_the_file_alone_on(version: str, listener: Listener, tmp_path: Path) -> None:
    shutil.copy(SOURCE, tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    name = f"python-{version}"
    listener.add(name)
    address = listener.addresses[0]
    assert isinstance(address, tuple)
    command = [interpreters()[version], "-W", "error", "program.py", str(address[1]), name, TOKEN]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    told = subprocess.run(
        [*command, str(tmp_path / "spool")], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stderr == (  # of `wrong`, and no warning of Python
        "stopped: auth-failed: unknown device, wrong token or device disabled\n"
    )
    assert listener.frames(name) == FRAMES


def test_its_syntax_is_of_the_oldest() -> None:
    ast.parse(SOURCE.read_text(), feature_version=OLDEST)


def test_it_uses_nothing_newer() -> None:
    """What vermin knows of the standard library; annotations are not evaluated."""
    vermin = Path(sys.executable).with_name("vermin")
    target = f"-t={OLDEST[0]}.{OLDEST[1]}-"
    told = subprocess.run(
        [vermin, target, "--no-tips", SOURCE], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout
