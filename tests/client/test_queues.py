"""The two queues keep one contract; the spool keeps it over crashes, too."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.client import MemoryQueue, Spool, SpoolError, Write

LIMIT = 100_000


def store(queue: MemoryQueue) -> None:
    """Bring to the disk what must be there, as the shells do."""
    while write := queue.pending_write():
        write.run()
        queue.written(write)


def spool(folder: Path, limit: int = LIMIT) -> Spool:
    return Spool(folder, limit, "text", "sensor-1")


def fill(queue: MemoryQueue, *frames: bytes) -> None:
    for frame in frames:
        assert queue.add(frame)
    store(queue)


Make = Callable[[], MemoryQueue]


@pytest.fixture(params=["memory", "spool"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return lambda: MemoryQueue(100)
    return lambda: spool(tmp_path / "spool")


# What both do


def test_frames_come_out_as_they_went_in(make: Make) -> None:
    queue = make()
    frames = [b"%d\n" % i for i in range(20)]
    fill(queue, *frames)
    assert len(queue) == 20
    assert queue.read(0, 1 << 20) == frames
    assert queue.read(5, 1 << 20) == frames[5:]
    assert queue.read(0, 1) == frames[:1]
    assert queue.read(3, 4) == frames[3:5]
    assert queue.read(20, 100) == []
    queue.close()


def test_released_frames_count_the_number_on(make: Make) -> None:
    queue = make()
    fill(queue, b"a", b"b", b"c")
    queue.number = 7
    queue.release(2)
    store(queue)
    assert (len(queue), queue.number, queue.read(0, 100)) == (1, 9, [b"c"])
    queue.close()


def test_skipped_frames_give_their_number_to_the_next(make: Make) -> None:
    queue = make()
    fill(queue, b"a", b"b", b"c")
    queue.number = 7
    queue.skip(1)
    store(queue)
    assert (len(queue), queue.number, queue.read(0, 100)) == (2, 7, [b"b", b"c"])
    queue.close()


def test_a_full_queue_takes_no_more_until_something_is_released_or_dropped(make: Make) -> None:
    queue = make()
    count = 0
    while queue.add(b"%05d" % count + bytes(995)):
        count += 1
    store(queue)
    assert 80 <= count <= 100
    assert not queue.add(bytes(1000))
    dropped = queue.drop_oldest()
    assert 0 < dropped <= 13, "an eighth of a spool at most"
    assert queue.add(bytes(1000))
    store(queue)
    assert queue.read(0, 1)[0][:5] == b"%05d" % dropped
    queue.release(len(queue))
    assert queue.add(bytes(1000))
    queue.close()


def test_what_is_dropped_from_an_empty_queue_is_nothing(make: Make) -> None:
    queue = make()
    assert queue.drop_oldest() == 0
    queue.reclaim()
    assert queue.discard_unwritten() == 0
    queue.close()


# What the spool does


def test_it_outlives_its_process(tmp_path: Path) -> None:
    queue = spool(tmp_path)
    fill(queue, b"a", b"b", b"c")
    queue.number, queue.acknowledged, queue.dropped = 7, 6, 5
    store(queue)
    queue.release(1)
    queue.close()
    queue = spool(tmp_path)
    assert (queue.number, queue.acknowledged, queue.dropped) == (8, 6, 5)
    assert queue.read(0, 100) == [b"b", b"c"]
    queue.close()


def copy(folder: Path, number: int) -> Path:
    """Keep the folder as a crash at this moment leaves it."""
    return Path(shutil.copytree(folder, folder.with_name(f"copy-{number}")))


def test_after_a_crash_released_frames_are_there_again_under_their_numbers(tmp_path: Path) -> None:
    queue = spool(tmp_path / "spool")
    fill(queue, b"a", b"b", b"c")
    queue.number = 7
    store(queue)
    queue.release(2)
    crashed = spool(copy(tmp_path / "spool", 1))
    assert (crashed.number, crashed.read(0, 100)) == (7, [b"a", b"b", b"c"])
    crashed.close()
    queue.close()


@pytest.mark.parametrize("way", ["reclaim", "drop_oldest"])
@pytest.mark.parametrize("more", [b"", b"d"])
def test_a_crash_when_no_file_is_left(tmp_path: Path, way: str, more: bytes) -> None:
    """Then no number is known: whatever the server says next is right."""
    queue = spool(tmp_path / "spool")
    fill(queue, b"a", b"b", b"c")
    queue.number = 7
    store(queue)
    if way == "reclaim":
        queue.release(3)
    if more:
        queue.add(more)
    getattr(queue, way)()
    crashed = spool(copy(tmp_path / "spool", 1))
    assert (len(crashed), crashed.number) == (0, None)
    fill(crashed, b"e")
    assert sorted(path.stem.lstrip("0") for path in crashed._folder.glob("*.frames")) == ["4"]
    crashed.close()
    store(queue)
    assert queue.read(0, 100) == ([more] if more else [])
    queue.close()


def test_no_frame_may_be_sent_before_it_and_its_number_are_on_the_disk(tmp_path: Path) -> None:
    queue = spool(tmp_path)
    queue.add(b"a")
    assert queue.read(0, 100) == []
    store(queue)
    assert queue.read(0, 100) == [b"a"]
    queue.number = 7
    assert queue.is_write_due
    assert queue.read(0, 100) == []
    store(queue)
    assert not queue.is_write_due
    queue.release(1)
    assert not queue.is_write_due, "numbers and ids run in parallel"
    queue.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(0, 400), garbage=st.binary(max_size=40))
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int, garbage: bytes) -> None:
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    queue = spool(folder)
    frames = [b"%d\n" % i for i in range(10)]
    fill(queue, *frames)
    queue.close()
    (segment,) = folder.glob("*.frames")
    data = segment.read_bytes()
    kept = data[: max(0, len(data) - cut)]
    segment.write_bytes(kept + garbage)
    queue = spool(folder)
    left = queue.read(0, 1000)
    assert left == frames[: len(left)]
    record = (len(data) - len(b"ingest-spool/1 text sensor-1\n")) / 10
    assert len(left) >= (len(kept) - 29) // record, "whole records stay"
    fill(queue, b"next")
    assert queue.read(len(left), 1000) == [b"next"]
    queue.close()
    queue = spool(folder)
    assert queue.read(0, 1000) == [*left, b"next"]
    queue.close()


@pytest.mark.parametrize("junk", [b"", b"\x7f", b"\xff" * 40])
def test_a_file_cut_anywhere_keeps_what_was_whole(tmp_path: Path, junk: bytes) -> None:
    frames = [b"%d " % i + bytes(i) for i in range(6)]
    whole = tmp_path / "whole"
    queue = spool(whole)
    fill(queue, *frames)
    queue.close()
    (segment,) = whole.glob("*.frames")
    data, ends = segment.read_bytes(), [len(b"ingest-spool/1 text sensor-1\n")]
    for frame in frames:
        ends.append(ends[-1] + 16 + len(frame))
    assert ends[-1] == len(data)
    for cut in range(len(data) + 1):
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / segment.name).write_bytes(data[:cut] + junk)
        queue = spool(folder)
        assert queue.read(0, 1 << 20) == frames[: max(0, sum(end <= cut for end in ends) - 1)]
        queue.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_a_torn_state_leaves_the_one_before(tmp_path: Path, slot: int) -> None:
    queue = spool(tmp_path)
    fill(queue, b"a")
    for number in (7, 8):
        queue.number = number
        store(queue)
    newest = queue._state.generation % 2
    os.close(queue._lock)  # as the end of a process does
    data = bytearray((tmp_path / "state").read_bytes())
    assert len(data) == 8192, "all its room is taken at once"
    data[slot * 4096 + 10] ^= 1
    (tmp_path / "state").write_bytes(data)
    queue = spool(tmp_path)
    assert queue.number == (7 if slot == newest else 8)
    queue.close()


def test_a_damaged_record_costs_its_segment_and_no_more(tmp_path: Path) -> None:
    queue = spool(tmp_path)
    frames = [b"%05d" % i + bytes(995) for i in range(30)]
    fill(queue, *frames)
    queue.number = 7
    store(queue)
    first, second = sorted(tmp_path.glob("*.frames"))[:2]
    end = int(second.stem)
    data = bytearray(first.read_bytes())
    data[3500] ^= 1
    first.write_bytes(data)
    good = queue.read(0, 1 << 20)
    assert good == frames[:3]
    assert queue.read(3, 1000) == []
    assert queue.damaged == end - 1 - 3
    queue.release(3)
    queue.skip_damaged()
    assert queue.number == 10
    store(queue)
    assert queue.read(0, 1 << 20) == frames[end - 1 :]
    queue.close()


def test_damage_in_the_newest_segment(tmp_path: Path) -> None:
    queue = spool(tmp_path)
    fill(queue, b"a", b"b", b"c")
    (segment,) = tmp_path.glob("*.frames")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    queue.add(b"d")
    assert queue.read(0, 100) == [b"a", b"b"]
    assert queue.read(2, 100) == []
    assert queue.damaged == 1
    queue.release(2)
    queue.skip_damaged()
    store(queue)
    assert queue.read(0, 100) == [b"d"]
    queue.close()
    queue = spool(tmp_path)
    assert queue.read(0, 100) == [b"d"]
    queue.close()


def test_it_never_takes_more_than_its_size(tmp_path: Path) -> None:
    queue = spool(tmp_path, 20_000)
    for i in range(2000):
        frame = b"%d" % i + bytes(i % 700)
        while not queue.add(frame):
            assert queue.drop_oldest()
        store(queue)
        sizes = [path.stat().st_size for path in tmp_path.glob("*.frames")]
        assert sum(sizes) <= 20_000
    assert sum(sizes) > 15_000
    queue.close()


def test_a_frame_longer_than_the_spool(tmp_path: Path) -> None:
    queue = spool(tmp_path, 2000)
    with pytest.raises(ValueError, match="has 2000 bytes, the whole spool 2000"):
        queue.add(bytes(2000))
    queue.close()


def test_only_one_process_uses_it(tmp_path: Path) -> None:
    queue = spool(tmp_path)
    code = (
        "import sys; from ingest.client import Path, Spool;"
        " Spool(Path(sys.argv[1]), 9999, 'text', 'a')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SpoolError" in other.stderr
    assert "another process or client uses this spool" in other.stderr
    queue.close()


@pytest.mark.parametrize(("dialect", "device"), [("msgpack", "sensor-1"), ("text", "sensor-2")])
def test_frames_of_another_device_or_dialect(tmp_path: Path, dialect: str, device: str) -> None:
    queue = spool(tmp_path)
    fill(queue, b"a")
    queue.close()
    with pytest.raises(SpoolError, match="it is 'ingest-spool/1 text sensor-1', not"):
        Spool(tmp_path, LIMIT, dialect, device)
    queue = spool(tmp_path)
    assert queue.read(0, 100) == [b"a"]
    queue.close()


def test_what_can_not_be_written_is_given_back(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write ends in the middle."""
    code = """
import resource, signal, sys
from ingest.client import Path, Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
queue = Spool(Path(sys.argv[1]), 1 << 20, "text", "sensor-1")
assert queue.add(bytes(1000))
write = queue.pending_write(); write.run(); queue.written(write)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
assert queue.add(bytes(1000))
try:
    queue.pending_write().run()
except OSError as error:
    print(error.errno, len(queue), queue.discard_unwritten(), len(queue))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(errno.EFBIG), "2", "1", "1"]
    (segment,) = tmp_path.glob("*.frames")
    assert segment.stat().st_size < 1200, "nothing half-written is left"
    queue = spool(tmp_path)
    assert queue.read(0, 1 << 20) == [bytes(1000)]
    queue.close()


@pytest.mark.parametrize("way", ["reclaim", "drop_oldest"])
@pytest.mark.parametrize("underway", [True, False])
def test_making_room_keeps_what_is_not_in_its_file_yet(
    tmp_path: Path, way: str, underway: bool
) -> None:
    """The oldest file is removed while frames that belong to it wait, or are being written."""
    queue, more = spool(tmp_path, 8000), [b"%d" % i + bytes(300) for i in range(9)]
    fill(queue, b"a")
    queue.number = 1
    store(queue)
    for frame in more:
        assert queue.add(frame)
    assert len(queue._segments) > 2
    write = queue.pending_write() if underway else None
    if way == "reclaim":
        queue.release(1)
    getattr(queue, way)()
    if write:
        write.run()
        queue.written(write)
    store(queue)
    assert queue.read(0, 1 << 20) == more
    queue.close()
    queue = spool(tmp_path, 8000)
    assert queue.read(0, 1 << 20) == more
    queue.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([1, 100, 400, 1500])),
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("fail"), st.just(0)),
        st.tuples(st.just("store"), st.just(0)),
        st.tuples(st.just("release"), st.integers(0, 10)),
        st.tuples(st.just("drop"), st.just(0)),
        st.tuples(st.just("skip"), st.integers(0, 1)),
        st.tuples(st.just("discard"), st.just(0)),
        st.tuples(st.just("reclaim"), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    min_size=20,
    max_size=80,
)


class Writing:
    """One write at a time, as the shells do it; other things happen between begin and end."""

    def __init__(self) -> None:
        self._write: Write | None = None

    def begin(self, queue: MemoryQueue) -> None:
        if self._write is None:
            self._write = queue.pending_write()

    def end(self, queue: MemoryQueue) -> None:
        if self._write is not None:
            self._write.run()
            queue.written(self._write)
            self._write = None

    def fail(self) -> None:
        if self._write is not None:
            os.close(self._write._fd)
            self._write = None

    def finish(self, queue: MemoryQueue) -> None:
        self.end(queue)
        store(queue)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(OPERATIONS)
def test_it_is_a_queue_whatever_is_done_with_it(
    tmp_path: Path, operations: list[tuple[str, int]]
) -> None:
    """A list of frames with their numbers is the model; `reopen` is a crash."""
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    queue, number, count, writing = spool(folder, 10_000), 1, 0, Writing()
    model: list[bytes] = []
    queue.number = number
    store(queue)
    for operation, argument in operations:
        durable = queue._durable - queue._first  # how many of the model
        if operation == "add":
            frame = b"%d" % count + bytes(argument)
            count += 1
            if queue.add(frame):
                model.append(frame)
        elif operation == "begin":
            writing.begin(queue)
        elif operation == "end":
            writing.end(queue)
        elif operation == "fail":
            writing.fail()
        elif operation == "store":
            writing.finish(queue)
            assert queue._durable == queue._end
        elif operation in ("release", "skip"):
            gone = min(argument, len(queue.read(0, 1 << 20)))
            getattr(queue, operation)(gone)
            number += gone if operation == "release" else 0
            del model[:gone]
        elif operation == "drop":
            gone = queue.drop_oldest()
            assert gone <= durable
            del model[:gone]
        elif operation == "discard":
            writing.end(queue)  # nothing may be on its way to the disk
            durable = queue._durable - queue._first
            assert queue.discard_unwritten() == len(model) - durable
            del model[durable:]
        elif operation == "reclaim":
            queue.reclaim()
        else:
            writing.finish(queue)
            queue.close()
            queue = spool(folder, 10_000)
        assert (len(queue), queue.number) == (len(model), number)
    writing.finish(queue)
    assert queue.read(0, 1 << 20) == model
    queue.close()
