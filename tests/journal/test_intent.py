"""The intent: what it holds, whose word counts, and the write that it completes."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.journal import intent
from ingest.journal.disk import Disk
from ingest.journal.intent import Intent, IntentFile
from ingest.log.files import ACTIVE, identity
from tests.log.logs import line
from tests.support.journals import DrivenFile, crash


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "intent"


@pytest.fixture
def file(path: Path) -> Iterator[IntentFile]:
    file = IntentFile(path, Disk())
    yield file
    file.close()


def test_a_new_file_holds_nothing(file: IntentFile) -> None:
    assert file.get() is None


def test_the_newest_intent_is_held_beyond_the_process(path: Path, file: IntentFile) -> None:
    file.put((1, 2), 3, [b"older and longer"])
    file.put((2**40, 2**50), 2**60, [b"one\n", b"two\n"])
    again = IntentFile(path, Disk())
    assert again.get() == Intent((2**40, 2**50), 2**60, b"one\ntwo\n")
    again.close()


def test_it_is_done_until_the_next(file: IntentFile) -> None:
    file.put((1, 2), 0, [b"one\n"])
    file.done()
    assert file.get() == Intent((1, 2), 0, b"one\n", done=True)
    file.put((1, 2), 4, [b"two\n"])
    assert file.get() == Intent((1, 2), 4, b"two\n", done=False)


def test_none_is_held_while_its_bytes_change(path: Path) -> None:
    class Watched(Disk):
        @staticmethod
        def pwritev(fd: int, blocks: Sequence[bytes], offset: int) -> int:  # type: ignore[override]
            held.append(file.get())
            return os.pwritev(fd, blocks, offset)

    file = IntentFile(path, Watched())
    held: list[Intent | None] = []
    file.put((1, 2), 0, [b"one\n"])
    held.clear()
    file.put((1, 2), 4, [b"two\n"])
    assert held == [None]
    file.close()


def test_its_room_is_reserved(path: Path, file: IntentFile) -> None:
    assert path.stat().st_blocks * 512 > 1 << 20


def test_more_than_what_is_reserved_is_held(file: IntentFile) -> None:
    blocks = [bytes([index]) * 100_000 for index in range(40)]
    file.put((1, 2), 0, blocks)
    found = file.get()
    assert found is not None and found.data == b"".join(blocks)


def test_another_boot_does_not_trust_it(
    path: Path, file: IntentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.put((1, 2), 3, [b"one\n"])
    other = path.with_name("boot_id")
    other.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    monkeypatch.setattr(intent, "_BOOT_ID", other)
    again = IntentFile(path, Disk())
    assert again.get() is None
    again.close()


@given(st.binary(max_size=200))
def test_garbage_is_no_intent(garbage: bytes) -> None:
    with NamedTemporaryFile() as stream:
        stream.write(garbage)
        stream.flush()
        file = IntentFile(Path(stream.name), Disk())
        assert file.get() is None
        file.close()


@pytest.mark.parametrize("cut", [1, 30, 71])
def test_a_write_that_was_cut_short_is_completed_in_its_place(cut: int, tmp_path: Path) -> None:
    crash(tmp_path, "a=3")
    active = tmp_path / "log" / ACTIVE
    before, content = identity(active), active.read_bytes()
    os.truncate(active, len(content) - cut)
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
        assert running.said[0].endswith(f"cut short at byte {len(content) - cut} is completed")
    assert (identity(active), active.read_bytes()) == (before, content)


def test_a_write_that_had_not_begun_is_left_alone(tmp_path: Path) -> None:
    crash(tmp_path, "a=3")
    active = tmp_path / "log" / ACTIVE
    content = active.read_bytes()
    file = IntentFile(tmp_path / "state" / "intent", Disk())
    found = identity(active)
    assert found is not None
    file.put(found, len(content), [line(4) + b"\n"])
    file.close()
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
        assert not [said for said in running.said if "completed" in said or "higher" in said]
    assert active.read_bytes() == content


def test_a_write_to_a_file_that_was_rotated_meanwhile_is_completed(tmp_path: Path) -> None:
    crash(tmp_path, "a=3")
    active = tmp_path / "log" / ACTIVE
    content = active.read_bytes()
    os.truncate(active, len(content) - 5)
    moved = active.rename(tmp_path / "log" / "ingest.log.1")
    with DrivenFile(tmp_path) as running:
        assert running.following("a") == 4
    assert moved.read_bytes() == content
