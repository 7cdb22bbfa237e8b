import io
import re
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.log.files import ACTIVE, rotated_name
from ingest.log.log import Log
from ingest.log.reading import (
    Filter,
    WholeLines,
    last,
    lines,
    read_blocks,
    read_blocks_backwards,
    records,
)
from tests.log.logs import at, line, write

_contents = st.lists(st.sampled_from([b"\n", b"a", b"bcd\n", b"e\n\nf"])).map(b"".join)


@given(_contents, st.integers(1, 7))
def test_blocks_are_the_whole_lines(content: bytes, size: int) -> None:
    blocks = list(read_blocks(io.BytesIO(content), size))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(blocks) == content[: content.rfind(b"\n") + 1]


@given(_contents, st.integers(1, 7))
def test_blocks_backwards_are_the_same_lines(content: bytes, size: int) -> None:
    end = content.rfind(b"\n") + 1
    blocks = list(read_blocks_backwards(io.BytesIO(content), end, size))
    assert all(block.endswith(b"\n") for block in blocks)
    assert b"".join(reversed(blocks)) == content[:end]


def test_reading_goes_on_when_the_stream_has_grown() -> None:
    stream = io.BytesIO()
    reader = WholeLines(stream)
    found = []
    for piece in (b"one\ntw", b"o", b"\nthree\n"):
        stream.write(piece)
        stream.seek(-len(piece), io.SEEK_END)
        found.append((list(reader), bytes(reader.torn), reader.offset))
    assert found == [([b"one\n"], b"tw", 4), ([], b"two", 4), ([b"two\nthree\n"], b"", 14)]


_VALUES = [
    '"text":"t20"',
    '"data":{"seq":1}',
    '"event_time":"2026-11-22T11:00:20.123456789Z","tag":"t2","chunk":"seq","text":"x"',
]
_devices = st.text("ab-.", min_size=1, max_size=3)
_records = st.lists(st.tuples(st.integers(0, 20), _devices, st.sampled_from(_VALUES)))


@settings(deadline=None)
@given(
    written=_records,
    device=st.none() | st.text("ab-.*?", min_size=1, max_size=3),
    since=st.none() | st.integers(0, 20),
    until=st.none() | st.integers(0, 20),
    grep=st.none() | st.sampled_from(["t2", "seq", "^.*data.*$"]),
    count=st.integers(0, 5),
    cuts=st.lists(st.integers(0, 10), max_size=3),
)
def test_filters_pick_what_a_plain_loop_picks(
    written: list[tuple[int, str, str]],
    device: str | None,
    since: int | None,
    until: int | None,
    grep: str | None,
    count: int,
    cuts: list[int],
) -> None:
    written.sort(key=lambda item: item[0])
    made = [line(seq, value, name, time) for seq, (time, name, value) in enumerate(written, 1)]
    expected = [
        text
        for text, (time, name, _) in zip(made, written, strict=True)
        if (device is None or fnmatchcase(name, device))
        and (since is None or time >= since)
        and (until is None or time < until)
        and (grep is None or re.search(grep, text.decode()))
    ]
    wanted = Filter(
        device,
        None if since is None else at(since),
        None if until is None else at(until),
        None if grep is None else re.compile(grep.encode()),
    )
    with TemporaryDirectory() as name:
        split(Path(name), made, written, cuts)
        assert list(lines(Path(name), wanted)) == expected
        assert [record.line for record in records(Path(name), wanted)] == expected
        assert last(Path(name), count, wanted) == (expected[-count:] if count else [])


def split(
    folder: Path, made: list[bytes], written: list[tuple[int, str, str]], cuts: list[int]
) -> None:
    """Write lines as a log of rotated files, cut before some of the lines."""
    name = None
    begin = 0
    for cut in sorted(cut for cut in cuts if 0 < cut <= len(made)):
        name = rotated_name(at(written[cut - 1][0] + 0.0005), name)
        write(folder / (name + ("", ".gz", ".zst")[cut % 3]), *made[begin:cut])
        begin = cut
    write(folder / ACTIVE, *made[begin:])


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ACTIVE).write_bytes(line(1) + b"\n" + line(2)[:30])
    assert list(lines(tmp_path)) == last(tmp_path, 10) == [line(1)]


def test_lines_that_are_not_records_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), b"junk", b"x" + line(2), line(3) + b"}")
    assert list(lines(tmp_path)) == [line(1), line(3) + b"}"]
    assert [record.line for record in records(tmp_path)] == [line(1)]


def test_a_device_in_a_value_is_not_the_device(tmp_path: Path) -> None:
    inner = f'"data":{line(9, device="b").decode()}'
    write(tmp_path / ACTIVE, line(1, inner))
    assert list(lines(tmp_path, Filter("b"))) == []
    assert list(lines(tmp_path, Filter("*b*"))) == []


def test_files_closed_before_the_begin_are_not_read(tmp_path: Path) -> None:
    (tmp_path / f"{rotated_name(at(5), None)}.zst").write_bytes(b"can't be read")
    write(tmp_path / ACTIVE, line(6))
    assert list(lines(tmp_path, Filter(since=at(5.001)))) == [line(6)]
    assert last(tmp_path, 5, Filter(since=at(5.001))) == [line(6)]


_AHEAD = 10 * 365 * 86400.0
"""Seconds by which a clock is ahead for a while."""


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("times", [(_AHEAD,), (_AHEAD, 2.0), (_AHEAD, *[3.0] * 3000)])
def test_what_a_clock_that_was_ahead_has_stamped_is_found(
    times: tuple[float, ...], suffix: str, tmp_path: Path
) -> None:
    made = [line(seq, time=time) for seq, time in enumerate(times, 1)]
    write(tmp_path / (rotated_name(at(5), None) + suffix), *made)
    write(tmp_path / rotated_name(at(10), None), line(9001, time=8))  # of those the end tells
    write(tmp_path / ACTIVE, line(9002, time=12), line(9003, time=_AHEAD))
    wanted = Filter(since=at(_AHEAD - 1), until=at(_AHEAD + 1))
    expected = [made[0], line(9003, time=_AHEAD)]
    assert list(lines(tmp_path, wanted)) == expected
    assert last(tmp_path, 5, wanted) == expected
    with Log(tmp_path) as log:  # where `tail --follow --since` begins
        _, block = log.read_from(log.place_at(at(_AHEAD - 1)))
    assert block.startswith(made[0])


def test_it_is_found_at_the_end_of_a_large_file_too(tmp_path: Path) -> None:
    made = [line(seq, time=1) for seq in range(1, 5000)]
    ahead = line(5000, time=_AHEAD)
    write(tmp_path / rotated_name(at(5), None), *made, ahead)
    write(tmp_path / ACTIVE, line(5001, time=12))
    wanted = Filter(since=at(_AHEAD - 1))
    assert list(lines(tmp_path, wanted)) == last(tmp_path, 5, wanted) == [ahead]


def test_of_many_old_files_only_the_ends_are_read(tmp_path: Path) -> None:
    for hour in range(10):  # full of holes: as good as 10 GiB to a reader
        path = tmp_path / f"ingest-20200101T{hour:02}0000.000Z.log"
        with path.open("wb") as stream:
            stream.write(
                b'{"time":"2020-01-01T00:00:00.000000Z","device":"a","seq":1,"text":"x"}\n'
            )
            stream.seek(1 << 30)
            stream.write(b"\n" + line(2, time=-9e8) + b"\n")
    write(tmp_path / ACTIVE, line(6))
    before = _bytes_read()
    assert list(lines(tmp_path, Filter(since=at(5)))) == [line(6)]
    assert _bytes_read() - before < 1 << 20


def _bytes_read() -> int:
    (count,) = (
        text.split()[1]
        for text in Path("/proc/self/io").read_text().splitlines()
        if text.startswith("rchar")
    )
    return int(count)


def test_the_last_lines_need_no_older_files(tmp_path: Path) -> None:
    (tmp_path / f"{rotated_name(at(5), None)}.zst").write_bytes(b"can't be read")
    write(tmp_path / ACTIVE, line(6), line(7))
    assert last(tmp_path, 2) == [line(6), line(7)]


def test_an_empty_folder_has_no_lines_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert list(lines(tmp_path)) == last(tmp_path, 3) == []
    with pytest.raises(FileNotFoundError):
        last(tmp_path / "missing", 3)
    with pytest.raises(FileNotFoundError):
        next(lines(tmp_path / "missing"))
