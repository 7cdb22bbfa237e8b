"""What the README of the devices' clients says is true."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.deploydevices.programs import DEVICES, MICROPYTHON, tool
from tests.support.listeners import ANY_PORT, Listener
from tests.support.waiting import PATIENCE

README = (DEVICES / "README.md").read_text()
PROTOCOL = (DEVICES.parents[1] / "ingest" / "PROTOCOL.md").read_text()


def shell(script: str, folder: Path) -> str:
    """Run lines of a shell in a folder; each must succeed."""
    path = os.pathsep.join((str(MICROPYTHON.parent), os.environ["PATH"]))
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, env=os.environ | {"PATH": path},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(folder: Path) -> Path:
    """Return a copy of the folder, where programs may be built."""
    return Path(shutil.copytree(DEVICES, folder / "devices", ignore=lambda *_: ["__pycache__"]))


def test_the_line_with_openssl_ends_with_its_input(tmp_path: Path, certificate: Path) -> None:
    """The recipe of PROTOCOL.md; a line that begins as a command of s_client is a frame."""
    tool("openssl")
    recipe = re.findall(r"```sh\n((?:(?!```).)*s_client.*?)```", PROTOCOL, re.DOTALL)[0]
    shutil.copy(certificate, tmp_path / "cert.pem")
    keys = f"privateKey={certificate}:certKey={certificate}"
    endpoint = f"ssl:0:interface=127.0.0.1:{keys}"
    with Listener(tmp_path / "data", listen=(endpoint,)) as listener:
        listener.add("sensor-1")
        script = recipe.replace("7651", str(listener.addresses[0][1]))
        # What comes later is a read of its own: only there s_client looks for commands.
        script = script.replace("sleep 1;", r"sleep 1; printf 'Quiet\nReady\nkilo\n'; sleep 1;")
        assert shell(script, tmp_path).splitlines()[-1] == "ACK 4"
        assert listener.frames("sensor-1") == ["temp=20.5", "Quiet", "Ready", "kilo"]


def test_the_commands_and_the_ram(tmp_path: Path, certificate: Path) -> None:
    tool("nc"), tool("openssl"), tool("node")
    folder = copied(tmp_path)
    keys = f"privateKey={certificate}:certKey={certificate}"
    listen = (ANY_PORT, f"ssl:0:interface=127.0.0.1:{keys}")
    commands = README.partition("```sh\n")[2].partition("```")[0]
    stated = re.findall(r"\| `([^|]*(?:\\\|[^|]*)*)` \|$", README, re.MULTILINE)
    ram, tables, heap = (line.replace("\\|", "|") for line in stated)
    with Listener(tmp_path / "data", listen=listen) as listener:
        listener.add("sensor-1")
        clear, tls = (str(place[1]) for place in listener.addresses)

        def here(script: str) -> str:
            places = {"7650": clear, "7651": tls, "logs.example.com": "localhost",
                      "ca.pem": certificate}  # fmt: skip
            for written, real in places.items():
                script = script.replace(written, str(real))
            return script

        shell(here(commands), folder)
        assert listener.frames("sensor-1") == ["temp=20.5"] * 6
        assert "18 kB" in README
        shell(here(f"export INGEST_TOKEN=s3cr3t; {heap}"), folder)
    (size,) = re.findall(r"^(\d+) bytes", shell(ram, folder))
    assert f"{int(size):,} bytes for the device" in README
    _, row, *_ = shell(tables, folder).splitlines()
    assert f"{row.split()[1]} bytes of tables" in README


def test_the_table_of_files_is_complete() -> None:
    named = set(re.findall(r"^\| \[([^]]+)\]", README, re.MULTILINE))
    assert named | {"README.md"} == {path.name for path in DEVICES.iterdir() if path.is_file()}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (DEVICES / target).exists(), target
