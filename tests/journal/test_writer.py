"""The writer thread: what is committed together, when files are closed, and a full disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from ingest.journal.active import ActiveFile
from ingest.journal.events import Event
from ingest.journal.intent import ROOM, IntentFile
from ingest.journal.interface import Lease
from ingest.journal.rotation import RotationPolicy
from ingest.journal.writer import Commit, Writer
from ingest.log.files import ACTIVE
from tests.journal.running import PATIENCE, Holder
from tests.log.limits import largest_file
from tests.log.logs import line

_FULL = ROOM + (1 << 20)  # more than one commit


class Owner:
    """Puts what the writer says into a queue."""

    def __init__(self) -> None:
        self.said: SimpleQueue[tuple[str, Any]] = SimpleQueue()

    def committed(self, commit: Commit) -> None:
        """See `Owner.committed`."""
        self.said.put(("committed", [last for _, last, _ in commit.items]))

    def failing(self, error: OSError) -> None:
        """See `Owner.failing`."""
        self.said.put(("failing", error.errno))

    def recovered(self, seconds: float) -> None:
        """See `Owner.recovered`."""
        self.said.put(("recovered", seconds > 0))

    def rotated(self, closed: Path) -> None:
        """See `Owner.rotated`."""
        self.said.put(("rotated", closed))

    def tell(self, event: Event) -> None:
        """See `Owner.tell`."""
        self.said.put(("event", event))

    def heard(self) -> tuple[str, Any]:
        """Wait for the next thing that it says."""
        return self.said.get(timeout=PATIENCE)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def make(folder: Path, owner: Owner) -> Iterator[Callable[..., Writer]]:
    """Makes a writer, which is not started."""
    intent = IntentFile(folder.with_name("intent"))

    def make(policy: RotationPolicy | None = None) -> Writer:
        active = ActiveFile(folder, intent, None)
        return Writer(active, policy or RotationPolicy(), owner, sync=True)

    yield make
    intent.close()


_LEASE = Lease("a", 0, Holder())


def _put(writer: Writer, *numbers: int, size: int = 10) -> None:
    for seq in numbers:
        writer.put((_LEASE, seq, line(seq, '"text":"%s"' % ("x" * size)) + b"\n"))


def _numbers(path: Path) -> list[int]:
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    return [int(line.split(b'"seq":')[1].split(b",")[0]) for line in content.splitlines()]


def test_what_waits_is_committed_together(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    writer = make()
    _put(writer, *range(1, 100))
    writer.start()
    assert owner.heard() == ("committed", list(range(1, 100)))
    _put(writer, 100)
    assert owner.heard() == ("committed", [100])
    mark = writer.stop()
    assert _numbers(folder / ACTIVE) == list(range(1, 101))
    assert mark.offset == (folder / ACTIVE).stat().st_size


def test_what_was_put_before_a_stop_is_written(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    writer = make()
    writer.start()
    _put(writer, *range(1, 5000))
    writer.stop()
    assert _numbers(folder / ACTIVE) == list(range(1, 5000))


def test_a_file_is_closed_before_what_would_exceed_its_size(
    make: Callable[[RotationPolicy], Writer], owner: Owner, folder: Path
) -> None:
    size = len(line(1, '"text":"%s"' % ("x" * 10))) + 1
    writer = make(RotationPolicy(size=size * 3))
    _put(writer, *range(1, 9))
    writer.start()
    writer.stop()
    closed = sorted(folder.glob("ingest-*"))
    assert list(map(_numbers, closed)) == [[1, 2, 3], [4, 5, 6]]
    assert _numbers(folder / ACTIVE) == [7, 8]


def test_a_record_larger_than_a_file_has_one_of_its_own(
    make: Callable[[RotationPolicy], Writer], owner: Owner, folder: Path
) -> None:
    writer = make(RotationPolicy(size=50))
    _put(writer, 1, 2, 3, size=100)
    writer.start()
    writer.stop()
    assert list(map(_numbers, sorted(folder.glob("ingest-*")))) == [[1], [2]]
    assert _numbers(folder / ACTIVE) == [3]


def test_a_file_is_closed_when_it_is_due_though_nothing_comes(
    make: Callable[[RotationPolicy], Writer], owner: Owner, folder: Path
) -> None:
    writer = make(RotationPolicy(every=86400))  # the record's day has passed
    writer.start()
    _put(writer, 1)
    assert owner.heard() == ("committed", [1])
    what, closed = owner.heard()
    assert (what, _numbers(closed)) == ("rotated", [1])
    writer.stop()


def test_a_file_is_closed_on_request_after_what_was_put(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    done: SimpleQueue[Path | None] = SimpleQueue()
    writer = make()
    writer.start()
    writer.rotate(done.put)
    assert done.get(timeout=PATIENCE) is None, "there is nothing in it"
    _put(writer, 1)
    writer.rotate(done.put)
    closed = done.get(timeout=PATIENCE)
    assert closed is not None and _numbers(closed) == [1]
    writer.stop()


def test_a_full_disk_is_told_of_once_and_waited_for(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    writer = make()
    _put(writer, *range(1, 1501), size=5000)
    with largest_file(_FULL):
        writer.start()
        what, told = owner.heard()
        assert what == "committed"
        what, _ = owner.heard()
        assert what == "failing"
        _put(writer, 1501)
    assert owner.heard() == ("recovered", True)
    while len(told) < 1501:
        what, numbers = owner.heard()
        assert what == "committed"
        told += numbers
    writer.stop()
    assert told == _numbers(folder / ACTIVE) == list(range(1, 1502))


def test_a_stop_while_the_disk_is_full_writes_nothing_after_what_is_missing(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    writer = make()
    _put(writer, *range(1, 1501), size=5000)
    with largest_file(_FULL):
        writer.start()
        what, told = owner.heard()
        assert what == "committed"
        assert owner.heard()[0] == "failing"
        _put(writer, 1501)
        mark = writer.stop()
    content = (folder / ACTIVE).read_bytes()
    assert len(content) == _FULL
    committed = content[: mark.offset]
    assert committed.endswith(b"\n")
    assert committed.count(b"\n") == len(told), "what is behind counts for nothing"
    assert owner.said.empty()


def test_a_stop_while_no_file_can_be_closed_ends(
    make: Callable[[RotationPolicy], Writer],
    owner: Owner,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", fail)
    writer = make(RotationPolicy(size=100))
    writer.start()
    _put(writer, 1)
    assert owner.heard() == ("committed", [1])
    _put(writer, 2)
    assert owner.heard() == ("failing", 30)
    writer.stop()
    assert _numbers(folder / ACTIVE) == [1]
