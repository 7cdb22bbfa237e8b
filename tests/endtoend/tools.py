"""Programs of others that tests run: clients that users have, as they are installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE

RSYSLOGD = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin")

SYSLOG_NG = Path(os.environ.get("SYSLOG_NG", "/"))
"""Where Debian's package `syslog-ng-core` is unpacked: it can't be installed beside rsyslog."""


def needs(found: object, what: str) -> pytest.MarkDecorator:
    """Skip a test without a tool; but not in CI, which installs them all: there it fails."""
    return pytest.mark.skipif(not found and "CI" not in os.environ, reason=f"{what} is missing")


def has_node_module(name: str) -> bool:
    """Tell whether Node finds a module, such as by NODE_PATH."""
    if shutil.which("node") is None:
        return False
    command = ["node", "-e", f"require.resolve({name!r})"]
    return (
        subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE).returncode == 0
    )


@contextmanager
def running(
    command: Sequence[str | Path], environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program for as long as the block takes."""
    with subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def rsyslog(folder: Path, *config: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run rsyslogd with a configuration of its own."""
    assert RSYSLOGD is not None
    path = folder / "rsyslog.conf"
    path.write_text("\n".join([f'global(workDirectory="{folder}")', *config, ""]))
    with running([RSYSLOGD, "-n", "-f", path, "-i", folder / "rsyslog.pid"]) as process:
        yield process


@contextmanager
def syslog_ng(folder: Path, *config: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run syslog-ng with a configuration of its own."""
    path = folder / "syslog-ng.conf"
    path.write_text("\n".join(["@version: 3.35", *config, ""]))
    library = SYSLOG_NG / "usr/lib/syslog-ng"
    (modules,) = library.glob("[0-9]*")
    command: list[str | Path] = [
        SYSLOG_NG / "usr/sbin/syslog-ng", "--foreground", "--no-caps", "--cfgfile", path,
        "--persist-file", folder / "persist", "--pidfile", folder / "pid",
        "--control", folder / "control", "--module-path", modules,
    ]  # fmt: skip
    with running(command, {"LD_LIBRARY_PATH": str(library)}) as process:
        yield process
