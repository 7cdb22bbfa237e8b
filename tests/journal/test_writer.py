"""The writer thread: what is committed together, when files are closed, and a full disk."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from ingest.journal.active import ActiveFile
from ingest.journal.clock import Clock
from ingest.journal.events import Event, RotationFailing
from ingest.journal.intent import ROOM, IntentFile
from ingest.journal.interface import Lease
from ingest.journal.positions import Mark
from ingest.journal.rotation import RotationPolicy
from ingest.journal.writer import Commit, Wait, Writer
from ingest.log.files import ACTIVE
from tests.journal.disks import Clocks, FaultyDisk, home_of, no_descriptors
from tests.log.limits import largest_file
from tests.log.logs import BEGIN, line
from tests.support.journals import Holder
from tests.support.waiting import PATIENCE

DAY = 86400.0
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

    def rotated(self, closed: Path, mark: Mark) -> None:
        """See `Owner.rotated`."""
        self.said.put(("rotated", closed))

    def failed(self, error: Exception) -> None:
        """See `Owner.failed`."""
        self.said.put(("failed", error))

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
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(
    folder: Path, owner: Owner, disk: FaultyDisk, clock: Clock
) -> Iterator[Callable[..., Writer]]:
    """Makes a writer, which is not started."""
    intent = IntentFile(folder.with_name("intent"), disk)

    def make(policy: RotationPolicy | None = None) -> Writer:
        active = ActiveFile(folder, intent, None, home=home_of(folder), disk=disk, clock=clock)
        return Writer(active, policy or RotationPolicy(), owner, clock, sync=True)

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


def test_a_stop_while_the_log_is_held_writes_nothing(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    """Another program may be between its copy and its cut: what came then would be lost."""
    is_held: SimpleQueue[None] = SimpleQueue()
    writer = make()
    writer.start()
    _put(writer, 1)
    assert owner.heard() == ("committed", [1])
    writer.hold(lambda: is_held.put(None))
    is_held.get(timeout=PATIENCE)
    _put(writer, 2)
    assert writer.stop().offset == (folder / ACTIVE).stat().st_size
    assert _numbers(folder / ACTIVE) == [1]
    assert owner.said.empty()


def test_a_hold_that_was_released_before_it_began_does_not_begin(
    make: Callable[[], Writer], owner: Owner, folder: Path
) -> None:
    is_held: SimpleQueue[str] = SimpleQueue()
    writer = make()
    writer.hold(lambda: is_held.put("the one that was given up"))
    writer.release_hold()
    writer.hold(lambda: is_held.put("the next"))
    writer.start()
    assert is_held.get(timeout=PATIENCE) == "the next"
    writer.release_hold()
    _put(writer, 1)
    assert owner.heard() == ("committed", [1])
    writer.stop()
    assert is_held.empty()


def test_a_rotation_that_was_asked_for_comes_when_it_can(
    make: Callable[[], Writer], owner: Owner, disk: FaultyDisk
) -> None:
    done: SimpleQueue[Path | None] = SimpleQueue()
    writer = make()
    writer.start()
    _put(writer, 1)
    assert owner.heard() == ("committed", [1])
    with disk.failing(errno.EMFILE, "open"):
        writer.rotate(done.put)
        _, event = owner.heard()
        assert str(event).startswith("the log can't be rotated: [Errno 24] Too many open files")
        assert done.empty()
    closed = done.get(timeout=PATIENCE)
    assert owner.heard() == ("rotated", closed)
    writer.stop()


def test_the_descriptor_in_hand_begins_a_file_where_there_is_no_other(
    make: Callable[[RotationPolicy], Writer], owner: Owner, folder: Path, disk: FaultyDisk
) -> None:
    writer = make(RotationPolicy(size=50))
    _put(writer, 1, 2, 3)
    with no_descriptors():
        writer.start()
        writer.stop()
    assert [_numbers(path) for path in sorted(folder.glob("ingest-*"))] == [[1], [2]]
    assert _numbers(folder / ACTIVE) == [3]


class TestSteps:
    """The same without a thread, on a clock that the test turns."""

    @pytest.fixture
    def clocks(self) -> Clocks:
        return Clocks()

    @pytest.fixture
    def clock(self, clocks: Clocks) -> Clock:
        return clocks.clock

    def test_what_is_put_is_written_by_a_step(
        self, make: Callable[[], Writer], owner: Owner, folder: Path
    ) -> None:
        writer = make()
        _put(writer, 1)
        wait = writer.step()
        assert wait is not None and wait.is_idle
        assert owner.heard() == ("committed", [1])
        _put(writer, 2, 3)
        assert writer.step() == Wait(0.005)
        assert owner.heard() == ("committed", [2, 3])
        _put(writer, 4)
        assert writer.stop().offset == (folder / ACTIVE).stat().st_size
        assert writer.step() is None
        assert _numbers(folder / ACTIVE) == [1, 2, 3, 4]

    @pytest.mark.parametrize("call", ["rename", "open", "fsync"])
    @pytest.mark.parametrize("number", [errno.EMFILE, errno.EROFS, errno.EACCES, errno.ENOSPC])
    def test_where_no_file_can_be_begun_the_old_one_goes_on(
        self,
        call: str,
        number: int,
        make: Callable[[RotationPolicy], Writer],
        owner: Owner,
        folder: Path,
        disk: FaultyDisk,
        clocks: Clocks,
    ) -> None:
        writer = make(RotationPolicy(size=100))
        identity = disk.identity(folder / ACTIVE)
        with disk.failing(number, call):
            for seq in range(1, 6):
                _put(writer, seq)
                writer.step()
                clocks.advance(0.9)
            assert list(folder.iterdir()) == [folder / ACTIVE]
            assert disk.identity(folder / ACTIVE) == identity
        assert _numbers(folder / ACTIVE) == [1, 2, 3, 4, 5]
        said = [owner.heard() for _ in range(6)]
        assert [each for each in said if each[0] != "event"] == [
            ("committed", [seq]) for seq in range(1, 6)
        ]
        (failing,) = [event for what, event in said if what == "event"]
        assert isinstance(failing, RotationFailing) and failing.error.errno == number
        assert disk.calls.count(call) == 2 * (2 if number == errno.EMFILE and call == "open" else 1)
        clocks.advance(1)
        _put(writer, 6)
        writer.step()
        what, closed = owner.heard()
        assert (what, _numbers(closed)) == ("rotated", [1, 2, 3, 4, 5])
        assert owner.heard() == ("committed", [6])
        assert _numbers(folder / ACTIVE) == [6]

    @pytest.mark.parametrize("step", [-10 * 365 * DAY, -DAY, 0.0, DAY, 10 * 365 * DAY])
    def test_a_file_is_closed_at_the_next_multiple_whatever_the_clock_does(
        self,
        step: float,
        make: Callable[[RotationPolicy], Writer],
        owner: Owner,
        clocks: Clocks,
    ) -> None:
        """Begun by a clock that is then set; so it is due at once, or else on the next day."""
        writer = make(RotationPolicy(every=DAY))
        writer.put((_LEASE, 1, line(1, time=clocks.wall - BEGIN.timestamp()) + b"\n"))
        writer.step()
        assert owner.heard() == ("committed", [1])
        clocks.set(step)
        waits = []
        while owner.said.empty():
            wait = writer.step()
            assert wait is not None and wait.is_idle
            clocks.advance(wait.seconds)
            waits.append(wait.seconds)
        assert owner.heard()[0] == "rotated"
        assert max(waits) <= 1
        assert sum(waits) <= (1 if step else DAY)

    def test_a_full_disk_is_tried_again(
        self, make: Callable[[], Writer], owner: Owner, disk: FaultyDisk, clocks: Clocks
    ) -> None:
        writer = make()
        _put(writer, 1)
        with disk.failing(errno.ENOSPC, "writev"):
            for _ in range(5):
                wait = writer.step()
                assert wait is not None and wait.seconds == 0.25 and wait.until is not None
                clocks.advance(wait.seconds)
        writer.step()
        assert owner.heard() == ("failing", errno.ENOSPC)
        assert owner.heard() == ("recovered", True)
        assert owner.heard() == ("committed", [1])

    def test_a_folder_that_was_replaced_takes_no_records(
        self, make: Callable[[], Writer], owner: Owner, folder: Path
    ) -> None:
        writer = make()
        moved = folder.rename(folder.with_name("moved"))
        folder.mkdir()
        writer.step()
        assert owner.said.empty(), "it looks around when nothing has come for a second"
        writer.step()
        assert owner.heard() == ("failing", errno.ESTALE)
        _put(writer, 1)
        writer.step()
        assert list(folder.iterdir()) == []
        folder.rmdir()
        moved.rename(folder)
        writer.step()
        assert owner.heard()[0] == "recovered"
        writer.step()
        assert owner.heard() == ("committed", [1])

    def test_what_nobody_foresaw_is_told(
        self, make: Callable[[], Writer], owner: Owner, disk: FaultyDisk
    ) -> None:
        writer = make()
        disk.fdatasync = None  # type: ignore[assignment]
        writer.start()
        _put(writer, 1)
        what, error = owner.heard()
        assert (what, type(error)) == ("failed", TypeError)
        assert writer.stop().offset == 0
