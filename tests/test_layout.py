"""Where things are kept below the data folder, and for whom."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.layout import DEFAULT_DATA, Layout, open_own

SOMEBODY, ANOTHER = 4711, 4712


def test_the_names() -> None:
    layout = Layout(Path("data"))
    assert layout.log_folder == Path("data/log")
    assert layout.state_folder == Path("data/state")
    assert layout.devices == Path("data/state/devices.db")
    assert layout.positions == Path("data/state/positions.db")
    assert layout.intent == Path("data/state/intent")
    assert layout.control == Path("data/state/control.sock")
    assert layout.rules_state == Path("data/state/rules.db")
    assert layout.alerts_folder == Path("data/alerts")
    assert layout.lock == Path("data/state/lock")
    assert Path("ingest-data") == DEFAULT_DATA


def test_create_makes_what_is_missing(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "b")
    for _ in range(2):
        layout.create()
        assert layout.log_folder.is_dir()
        assert layout.state_folder.is_dir()


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize(
    ("mask", "folder"), [(0o000, 0o755), (0o022, 0o755), (0o027, 0o750), (0o077, 0o700)]
)
def test_whatever_the_umask_no_folder_is_for_everyone(
    mask: int, folder: int, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "a" / "b")
    with umask(mask):
        layout.create()
    assert [mode(path) for path in (layout.data.parent, layout.data, layout.log_folder)] == [
        folder,
        folder,
        folder,
    ]
    assert mode(layout.state_folder) == 0o700


@pytest.mark.parametrize("loose", [0o777, 0o755, 0o750, 0o701])
def test_a_state_that_is_open_to_others_is_closed(loose: int, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.state_folder.mkdir()
    layout.state_folder.chmod(loose)
    layout.create()
    assert mode(layout.state_folder) == 0o700


def test_a_log_that_everyone_may_write_is_closed_to_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for before, after in ((0o777, 0o775), (0o2770, 0o2770), (0o755, 0o755)):
        layout.log_folder.mkdir(exist_ok=True)
        layout.log_folder.chmod(before)
        layout.create()
        assert mode(layout.log_folder) == after


def test_a_state_that_is_open_and_somebody_elses_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/") and folder.stat().st_mode & 1 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)  # pytest's own are root's alone
    layout = Layout(tmp_path)
    layout.create()
    layout.state_folder.chmod(0o755)
    with (
        as_user(SOMEBODY),
        pytest.raises(PermissionError, match=r"is open to other users \(mode 0"),
    ):
        layout.create()


@contextmanager
def as_user(user: int) -> Iterator[None]:
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def test_create_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(OSError, match="log"):
        Layout(tmp_path).create()


FILES = [
    "state/lock",
    "state/intent",
    "state/devices.db",
    "state/devices.db-wal",
    "state/positions.db",
    "state/positions.db-shm",
    "state/control.sock",
    "log/ingest.log",
    "log/.ingest-log",
]


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "victim")


def _dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _somebody_elses(path: Path) -> None:
    if path.suffix == ".sock":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path.touch()
    os.chown(path, SOMEBODY, SOMEBODY)


PLANTED = [
    (_link, "is a symbolic link"),
    (_dangling_link, "is a symbolic link"),
    (_folder, "is not a "),
    (_pipe, "is not a "),
    (_somebody_elses, "belongs to another user (4711)"),
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("plant", "reason"), PLANTED)
def test_what_others_put_in_our_place_is_refused(
    name: str, plant: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    (tmp_path / "victim").write_text("not ours")
    plant(tmp_path / name)
    with pytest.raises(OSError) as raised:
        layout.create()
    assert raised.value.filename == str(tmp_path / name)
    assert str(raised.value.strerror).startswith(reason)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "victim").read_text() == "not ours"


@pytest.mark.parametrize(("plant", "reason"), [PLANTED[0], PLANTED[1], PLANTED[4]])
def test_a_file_is_opened_only_if_it_is_ours(
    plant: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "victim").write_text("not ours")
    path = tmp_path / "folder" / "file"
    plant(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError) as raised:
        open_own(path, os.O_RDWR | os.O_CREAT)
    assert str(raised.value.strerror).startswith(reason)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert (tmp_path / "victim").read_text() == "not ours"


def test_a_pipe_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    for flags in (os.O_RDWR, os.O_WRONLY):
        with pytest.raises(OSError):
            open_own(tmp_path / "file", flags)


def test_root_works_in_the_folder_of_a_service(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    layout.lock.touch()
    for path in (layout.log_folder, layout.state_folder, layout.lock):
        os.chown(path, SOMEBODY, SOMEBODY)
    layout.create()
    layout.intent.touch()  # root's own
    layout.create()
    os.close(open_own(layout.lock, os.O_RDWR))
    # But no hard link to what the service could not write itself.
    victim = tmp_path / "victim"
    victim.touch()
    layout.devices.hardlink_to(victim)
    with pytest.raises(OSError, match="is a hard link to a file of another user"):
        layout.create()
    os.chown(layout.lock, ANOTHER, ANOTHER)
    with pytest.raises(OSError, match="belongs to another user"):
        open_own(layout.lock, os.O_RDWR)


def test_a_copy_made_of_hard_links_is_no_fault(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    (layout.log_folder / "ingest.log").touch()
    (tmp_path / "snapshot").hardlink_to(layout.log_folder / "ingest.log")
    layout.create()
