"""What is in `deploy/`, tried with the programs that it is for."""

import grp
import json
import os
import pwd
import re
import shutil
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ingest.client import Client
from ingest.devices.registry import Registry
from ingest.devices.verifier import derive
from ingest.layout import Layout
from ingest.log.files import LogFile, open_log
from ingest.log.listing import log_files
from ingest.service.parts import DRAIN
from tests.support.devices import TOKEN
from tests.support.listeners import Listener
from tests.support.processes import TWISTD, Program, run
from tests.support.waiting import PATIENCE, wait_for

DEPLOY = Path(__file__).parents[1] / "deploy"
DEVICES = [f"device-{number}" for number in range(4)]
BATCH = 20


SBIN = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))  # where Debian keeps logrotate


def needs(command: str) -> pytest.MarkDecorator:
    missing = shutil.which(command, path=SBIN) is None
    return pytest.mark.skipif(missing, reason=f"{command} is not installed")


# systemd


def settings(unit: Path) -> dict[str, str]:
    """Read the settings of a unit that stand on one line each and occur once."""
    lines = unit.read_text().replace("\\\n", " ").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


@needs("systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    services = ("ingest.service", "ingest-watch.service")
    for name in services:
        program = settings(DEPLOY / name)["ExecStart"].split()[0]
        assert program == "/opt/ingest/bin/twistd"
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace(program, str(TWISTD)))
    shutil.copy(DEPLOY / "ingest.socket", tmp_path)
    units = [tmp_path / name for name in (*services, "ingest.socket")]
    checked = run("systemd-analyze", "--man=no", "verify", *units)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_stop_has_time_to_drain() -> None:
    assert int(settings(DEPLOY / "ingest.service")["TimeoutStopSec"]) > DRAIN + 5


def test_both_services_are_locked_up_alike() -> None:
    listener, page = (settings(DEPLOY / f"{name}.service") for name in ("ingest", "ingest-watch"))
    hardening = {name for name in listener if name.startswith(("Protect", "Private", "Restrict"))}
    assert len(hardening) > 10
    for name in (*hardening, "NoNewPrivileges", "CapabilityBoundingSet", "SystemCallFilter"):
        assert page[name] == listener[name], name


def test_the_page_may_write_what_it_writes_and_finds_it_there() -> None:
    unit = DEPLOY / "ingest-watch.service"
    data = Path("/var/lib/ingest")
    layout = Layout(data)
    lines = unit.read_text().splitlines()
    writable = {Path(line[16:]) for line in lines if line.startswith("ReadWritePaths=-")}
    assert writable == {layout.state_folder, layout.columns_folder, layout.alerts_folder}
    made = {data.parent / name for name in settings(unit)["StateDirectory"].split()}
    assert made == writable - {layout.state_folder}, "the listener makes the folder of its state"


def test_service_and_socket_agree() -> None:
    service = settings(DEPLOY / "ingest.service")
    name = settings(DEPLOY / "ingest.socket")["FileDescriptorName"]
    assert service["ExecStart"].endswith(f"--listen systemd:domain=INET6:name={name}")


_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "ingest", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[2], sys.argv[2:])
"""


class Activated(Program):
    """The service's listener on a socket that is ours, as systemd runs it."""

    ready = "may connect\n"

    def __init__(self, listening: socket.socket, data: Path) -> None:
        _, *options = settings(DEPLOY / "ingest.service")["ExecStart"].split()
        options[options.index("--data") + 1] = str(data)
        options[options.index("--http") + 1] = "tcp:0:interface=127.0.0.1"
        fd = listening.fileno()
        command = [sys.executable, "-c", _AS_SYSTEMD, str(fd), str(TWISTD), *options]
        super().__init__(command, data.with_name("output"), pass_fds=[fd])

    def restart(self) -> None:
        """Stop it in good order and start it on the same socket."""
        self.stop()
        self.start()


@contextmanager
def pushing(port: int) -> Iterator[dict[str, int]]:
    """Push numbered frames from several devices until the block ends and all is acknowledged.

    Yields:
        How many frames of each device are acknowledged.
    """
    acknowledged = dict.fromkeys(DEVICES, 0)
    ending = threading.Event()

    def push(device: str) -> None:
        with Client("127.0.0.1", port, device, TOKEN) as client:
            while not ending.is_set():
                first = acknowledged[device] + 1
                client.send_many(map(str, range(first, first + BATCH)))
                client.wait()
                acknowledged[device] += BATCH

    threads = [threading.Thread(target=push, args=(device,), daemon=True) for device in DEVICES]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged
    finally:
        ending.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def wait_for_progress(acknowledged: dict[str, int]) -> None:
    """Wait until every device has got on by a few batches."""
    goals = {device: count + 5 * BATCH for device, count in acknowledged.items()}
    wait_for(
        lambda: all(acknowledged[device] >= goal for device, goal in goals.items()),
        "all devices to get on",
    )


def check_log(content: bytes, acknowledged: dict[str, int]) -> None:
    """Compare the log with what was pushed: each frame once, whole and in order."""
    found: dict[str, list[tuple[int, str]]] = {device: [] for device in DEVICES}
    for line in content.splitlines():
        record = json.loads(line)
        found[record["device"]].append((record["seq"], record["text"]))
    for device, count in acknowledged.items():
        assert found[device] == [(number, str(number)) for number in range(1, count + 1)]


def knock(port: int, knocks: list[bytes], ending: threading.Event) -> None:
    """Connect again and again, and note what is answered; being refused ends it."""
    login = b64encode(b"\0stranger\0" + TOKEN.encode())
    while not ending.wait(0.02):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"AUTH PLAIN " + login + b"\n")
            knocks.append(connection.recv(1024))


def test_a_restart_refuses_no_connection(tmp_path: Path) -> None:
    data = tmp_path / "data"
    register(data)
    knocks: list[bytes] = []
    ending = threading.Event()
    with closing(listening_socket()) as listening, Activated(listening, data) as listener:
        port = listening.getsockname()[1]
        stranger = threading.Thread(target=knock, args=(port, knocks, ending))
        stranger.start()
        try:
            with pushing(port) as acknowledged:
                for _ in range(3):
                    wait_for_progress(acknowledged)
                    listener.restart()
                wait_for_progress(acknowledged)
            assert stranger.is_alive(), "a connection was refused"
        finally:
            ending.set()
            stranger.join(PATIENCE)
    check_log((data / "log" / "ingest.log").read_bytes(), acknowledged)
    assert {answer[:13] for answer in knocks} <= {b"ERR auth-fail", b"ERR shutting-"}, knocks


def register(data: Path) -> None:
    layout = Layout(data)
    layout.create()
    verifier = derive(TOKEN)
    with Registry(layout.devices) as registry:
        registry.add_many((device, verifier, "") for device in DEVICES)


def listening_socket() -> socket.socket:
    """Listen as `ingest.socket` says, on a free port."""
    backlog = int(settings(DEPLOY / "ingest.socket")["Backlog"])
    address = ("::ffff:127.0.0.1", 0)  # of the family that systemd makes, and yet of this machine
    return socket.create_server(
        address, family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
    )


# logrotate


def snippet(name: str, folder: Path, *, replacing: dict[str, str]) -> Path:
    """Write a snippet of `deploy/` as it must be for a log in `folder` that is ours."""
    text = (DEPLOY / name).read_text()
    account = f"su {pwd.getpwuid(os.getuid()).pw_name} {grp.getgrgid(os.getgid()).gr_name}"
    changes = {"/var/lib/ingest": str(folder), "su ingest ingest": account}
    for old, new in (changes | replacing).items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)  # logrotate takes no file that others may write
    return path


def logrotate(config: Path, *options: str) -> None:
    program = shutil.which("logrotate", path=SBIN) or ""
    done = run(program, *options, "--state", config.with_suffix(".state"), config)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs("logrotate")
@pytest.mark.parametrize("style", ["nocreate", "create 0644"])
def test_logrotate_takes_the_log_away(tmp_path: Path, style: str) -> None:
    options = ("--rotate-size", "0", "--rotate-every", "0")
    with Listener(tmp_path / "data", *options) as listener:
        listener.add(*DEVICES)
        reload = {"systemctl try-reload-or-restart ingest.service": f"kill -HUP {listener.pid}"}
        config = snippet(
            "logrotate-rename.conf",
            listener.data,
            replacing=reload | {"    nocreate": f"    {style}"},
        )
        taken: list[bytes] = []
        with pushing(int(listener.addresses[0][1])) as acknowledged:
            for _ in range(4):
                wait_for_progress(acknowledged)
                taken.append(take_away(listener, config))
            wait_for_progress(acknowledged)
        listener.ingest("verify")
        *files, active = log_files(listener.layout.log_folder)
        assert [file.compressed for file in files] == [".gz", ".gz", ".gz", ""]
        assert list(map(content, files)) == taken, "written to after it was left"
        check_log(b"".join((*taken, content(active))), acknowledged)


@needs("logrotate")
def test_logrotate_copies_and_cuts_the_log(tmp_path: Path) -> None:
    options = ("--rotate-size", "0", "--rotate-every", "0")
    with Listener(tmp_path / "data", *options) as listener:
        listener.add(*DEVICES)
        ours = {"/opt/ingest/bin/ingest": str(Path(sys.executable).with_name("ingest"))}
        config = snippet("logrotate-copytruncate.conf", listener.data, replacing=ours)
        with pushing(int(listener.addresses[0][1])) as acknowledged:
            for _ in range(4):
                wait_for_progress(acknowledged)
                await_next_second()
                logrotate(config, "--force")
            wait_for_progress(acknowledged)
        listener.ingest("verify")
        files = log_files(listener.layout.log_folder)
        assert [file.compressed for file in files] == [*[".gz"] * 4, ""]
        check_log(b"".join(map(content, files)), acknowledged)


def take_away(listener: Listener, config: Path) -> bytes:
    """Let logrotate take the log, and read what it took, once the listener has left it."""
    moves = listener.output.count("was moved")
    await_next_second()
    logrotate(config, "--force")
    wait_for(lambda: listener.output.count("was moved") > moves, "the listener to follow")
    *_, newest, _ = log_files(listener.layout.log_folder)
    assert newest.path.name.startswith("ingest.log-"), newest
    return content(newest)


def await_next_second() -> None:
    """Wait for what the names of the files tell apart."""
    second = clock()
    wait_for(lambda: clock() > second, "the next second")


def clock() -> int:
    """Return a second that time(2), which may be some milliseconds late, has reached as well."""
    return int(time.time() - 0.05)


def content(file: LogFile) -> bytes:
    with open_log(file) as stream:
        return stream.read()


@needs("logrotate")
def test_logrotate_ships_closed_files(tmp_path: Path) -> None:
    log, archive = tmp_path / "log", tmp_path / "archive"
    log.mkdir()
    archive.mkdir()
    closed = [
        f"ingest-20261122T11390{n}.123Z.log{end}" for n, end in enumerate(["", ".gz", ".zst"])
    ]
    others = ["ingest.log", "ingest-20261122T113909.123Z.log.zst.tmp"]
    for name in (*closed, *others):
        (log / name).write_text(name)
    ship = {'rsync --archive --fsync "$1" archive.example.com:ingest/': f'cp "$1" {archive}'}
    config = snippet("logrotate-closed.conf", tmp_path, replacing=ship)
    logrotate(config)
    assert names(archive) == [], "on the day that they were first seen"
    state = config.with_suffix(".state")
    state.write_text(re.sub(r"\d+-\d+-\d+-", "2026-1-1-", state.read_text()))
    logrotate(config)
    assert (names(archive), names(log)) == (sorted(closed), sorted(others))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
