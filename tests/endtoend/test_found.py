"""What was found when the listener was tried for real: each case stands for a kind."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.devices import TextDevice
from tests.support.listeners import ANY_PORT, Listener
from tests.support.processes import TWISTD, run, run_tool
from tests.support.waiting import PATIENCE, wait_for

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Adds the seconds in the file $CLOCK_STEP to CLOCK_REALTIME, and leaves CLOCK_MONOTONIC. */
static long step(void) {
    char text[32] = {0};
    int fd = open(getenv("CLOCK_STEP"), O_RDONLY);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += step();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


class SteppedClock:
    """A wall clock that a test sets for the processes it starts, as an operator sets a host's."""

    def __init__(self, folder: Path) -> None:
        self._step = folder / "step"
        self._step.write_text("0")
        source, library = folder / "shim.c", folder / "shim.so"
        source.write_text(_SHIM)
        run_tool("gcc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl")
        self.under = ("env", f"LD_PRELOAD={library}", f"CLOCK_STEP={self._step}")

    def step(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the true time; back where they are negative."""
        fresh = self._step.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._step)


@pytest.fixture
def wall(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


HOUR = 3600


def test_a_clock_set_back_stops_no_timer(tmp_path: Path, wall: SteppedClock) -> None:
    options = ("--handshake-timeout", "500ms")
    with Listener(tmp_path / "data", *options, under=wall.under) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            wall.step(-HOUR)
            device.push_all("x", last=1)
            listener.ingest("device", "disable", "a")
            assert device.last_words() == "revoked"
        with TextDevice(listener.addresses[0]) as silent:
            assert silent.last_words() == "auth-timeout"


def test_a_clock_set_ahead_cuts_nobody(tmp_path: Path, wall: SteppedClock) -> None:
    with Listener(tmp_path / "data", under=wall.under) as listener:
        listener.add("a", "b")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            wall.step(2 * HOUR)
            # Two rounds of what is looked at each second, by something that takes as long.
            started = listener.status()["uptime_s"]
            wait_for(lambda: listener.status()["uptime_s"] > started + 3, "some seconds")
            device.push_all("x", last=1)
        assert listener.status()["errors"] == {}


def test_a_clock_set_back_keeps_no_address_out(tmp_path: Path, wall: SteppedClock) -> None:
    with Listener(tmp_path / "data", under=wall.under) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.send(device.plain("a", "wrong"))
            assert device.last_words() == "auth-failed"
        wall.step(-61)
        with TextDevice(listener.addresses[0]) as device:
            assert device.log_in("a") == 1


def test_a_reset_completes_no_half_line(tmp_path: Path) -> None:
    """The acknowledgement meets the reset, and the read behind it looks like a clean close."""
    tries = 300
    with Listener(tmp_path / "data", "--durability", "os") as listener:
        listener.add("a")
        for number in range(tries):
            with TextDevice(listener.addresses[0]) as device:
                device.log_in("a")
                device.send(b"whole\nhalf")
                end = time.monotonic() + (number % 20) * 0.0002
                while time.monotonic() < end:  # a moment that no condition tells
                    pass
                linger = struct.pack("ii", 1, 0)
                device.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
        assert set(listener.frames("a")) <= {"whole"}


@pytest.mark.parametrize("early", [True, False])
def test_hangups_from_the_first_moment(tmp_path: Path, early: bool) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        for _ in range(1 if early else 40):
            os.kill(listener.pid, signal.SIGHUP)
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            listener.ingest("device", "disable", "a")
            assert device.last_words() == "revoked"
        wait_for(lambda: "the settings are read again" in listener.output, "the reload")


_SIGNAL_AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("module", "program"),
    [
        ("ingest.service.settings", "from twisted.scripts.twistd import run; run()"),
        ("twisted.scripts", "from ingest.cli import main; main(['run', '--help'])"),
    ],
    ids=["twistd", "ingest run"],
)
def test_a_hangup_while_all_is_imported(module: str, program: str) -> None:
    code = _SIGNAL_AT_IMPORT.format(module=module) + program
    assert "--rotate-size" in run_tool(sys.executable, "-c", code, "-n", "ingest", "--help")


def test_a_hangup_may_be_ignored_until_it_is_acted_on(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", under=("env", "--ignore-signal=HUP")) as listener:
        os.kill(listener.pid, signal.SIGHUP)
        wait_for(lambda: "the settings are read again" in listener.output, "the reload")


def test_twistd_loads_little_of_us_for_other_commands() -> None:
    code = (
        "import sys; from twisted.application.service import IServiceMaker;"
        " from twisted.plugin import getPlugins; list(getPlugins(IServiceMaker));"
        " print(*[name for name in sys.modules if name.startswith('ingest.')])"
    )
    loaded = set(run_tool(sys.executable, "-c", code).split())
    assert loaded <= {"ingest.listener", "ingest.listener.protocols"}


def test_interrupted_three_times(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        for _ in range(3):
            os.kill(listener.pid, signal.SIGINT)
        assert listener.wait() in (0, -signal.SIGINT)
    assert "Traceback" not in listener.output


def test_signals_of_other_servers_end_nothing(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(listener.pid, number)
            wait_for(lambda: f"{number.name} means nothing" in listener.output, "a word")  # noqa: B023
        assert listener.status()["health"] == "ok"


def test_bytes_that_waited_while_the_process_was_stopped(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", "--handshake-timeout", "1s") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            wait_for(lambda: listener.status()["connections"] == 1, "the connection")
            os.kill(listener.pid, signal.SIGSTOP)
            device.send(device.plain("a"))
            time.sleep(2)  # longer than the time-out: nothing else makes that time pass
            os.kill(listener.pid, signal.SIGCONT)
            assert device.reply()[0] == "ok"


@contextmanager
def _silent(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            each = stack.enter_context(socket.socket())
            each.settimeout(PATIENCE)
            each.connect(address)
            made.append(each)
        yield made


@pytest.mark.parametrize("files", [64, 128, 512])
def test_connections_that_say_nothing_take_no_descriptor_that_is_needed(
    tmp_path: Path, files: int
) -> None:
    options = ("--rotate-size", "4KiB", "--handshake-timeout", "2s")
    under = ("prlimit", f"--nofile={files}:{files}")
    with Listener(tmp_path / "data", *options, under=under) as listener:
        listener.add("a")
        address = listener.addresses[0]
        assert isinstance(address, tuple)
        with TextDevice(address) as device:
            device.log_in("a")
            with _silent(address, 600):
                wait_for(lambda: "no more are accepted for now" in listener.output, "the limit")
                for number in range(1, 101):
                    device.push_all("x" * 1000, last=number)
                assert listener.status()["health"] == "ok"
                assert len(listener.files()) > 10
            wait_for(lambda: listener.status()["connections"] == 1, "the time-outs")
        assert len(listener.output.splitlines()) < 250
    assert "are accepted again" in listener.output


def test_connections_without_a_header_count_like_all_others(tmp_path: Path) -> None:
    """Those at proxied ports and those at others share the descriptors."""
    doors = [ANY_PORT, f"haproxy:{ANY_PORT}", f"haproxy:{ANY_PORT}"]
    options = ("--rotate-size", "4KiB", "--handshake-timeout", "2s")
    under = ("prlimit", "--nofile=1024:1024")
    with Listener(tmp_path / "data", *options, listen=tuple(doors), under=under) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device, ExitStack() as stack:
            device.log_in("a")
            for address in (*listener.addresses[1:], listener.addresses[0]):
                assert isinstance(address, tuple)
                stack.enter_context(_silent(address, 700))
            wait_for(lambda: "no more are accepted for now" in listener.output, "the limit")
            for number in range(1, 51):
                device.push_all("x" * 1000, last=number)
            assert listener.status()["health"] == "ok"
            listener.ingest("device", "disable", "a")
            assert device.last_words() == "revoked"
            assert "EMFILE" not in listener.output
        wait_for(lambda: listener.status()["connections"] == 0, "the time-outs")


def test_devices_that_give_up_while_the_disk_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk)
    try:
        (disk / "ballast").write_bytes(bytes(4 << 20))
        pauses = {"ingest.listener.poller.PATIENCE": 0.5}
        with Listener(disk / "data", output=tmp_path / "out", pauses=pauses) as listener:
            names = [f"d{number}" for number in range(40)]
            listener.add(*names)
            _fill(disk / "filler")
            with ExitStack() as stack:
                devices = [stack.enter_context(TextDevice(listener.addresses[0])) for _ in names]
                for device, name in zip(devices, names, strict=True):
                    device.send(device.plain(name))
                    assert device.reply()[0] == "ok"
                    device.send(b"x" * 1000 + b"\n")
                wait_for(lambda: listener.status()["health"] == "disk-failing", "the full disk")
                silent = stack.enter_context(TextDevice(listener.addresses[0]))
                assert silent.socket.fileno() >= 0
            wait_for(lambda: listener.status()["connections"] == 0, "that they are noticed")
            (disk / "filler").unlink()
            wait_for(lambda: listener.status()["health"] == "ok", "room")
            with TextDevice(listener.addresses[0]) as device:
                assert device.log_in("d0") == 2
    finally:
        run_tool("umount", "--lazy", disk)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return


def test_why_a_start_in_the_background_fails(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        command = [TWISTD, "ingest", "--data", listener.data, "--listen", ANY_PORT]
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "is in use by another listener" in done.stderr
    assert not (tmp_path / "twistd.pid").exists()


@pytest.mark.parametrize("plugin", ["ingest", "ingest-watch"])
def test_a_file_that_twistd_cannot_write_is_one_line(tmp_path: Path, plugin: str) -> None:
    ended = run(TWISTD, "--logfile", tmp_path / "missing" / "log", plugin, "--data", tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"twistd's --logfile {tmp_path}/missing/log: there is no folder" in ended.stderr


def test_a_stale_pid_file_is_no_matter_in_the_foreground(tmp_path: Path) -> None:
    (tmp_path / "twistd.pid").write_text(str(os.getpid()))
    process = subprocess.Popen(
        [TWISTD, "-n", "ingest", "--data", tmp_path / "data", "--listen", ANY_PORT],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert any(re.search("may connect", line) for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
