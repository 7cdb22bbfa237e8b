import gzip
import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.log.decompressing import DAMAGED
from ingest.log.files import ACTIVE, LogFile, head_of, identity, open_log, rotated_name, whole_end
from ingest.log.listing import list_log, log_files, snapshot
from tests.log.logs import at, line, write

CLOSED = datetime(2026, 11, 22, 11, 39, 0, 123999, UTC)
NAME = "ingest-20261122T113900.123Z.log"


def names(folder: Path) -> list[str]:
    return [file.path.name for file in log_files(folder)]


def first_line(time: str) -> bytes:
    return b'{"time":"%b","device":"a","seq":1,"text":"x"}\n' % time.encode()


def test_a_rotated_file_is_named_after_its_closing() -> None:
    assert rotated_name(CLOSED, None) == NAME
    assert LogFile(Path(NAME)).closed == "2026-11-22T11:39:00.123"
    assert LogFile(Path(f"{NAME}.zst"), ".zst").closed == "2026-11-22T11:39:00.123"
    assert LogFile(Path("ingest.log.1")).closed is None


def test_a_name_is_later_than_the_one_before_even_if_the_clock_is_not() -> None:
    later = rotated_name(CLOSED - timedelta(hours=1), NAME + ".gz")
    assert later == "ingest-20261122T113900.124Z.log"
    assert rotated_name(CLOSED + timedelta(seconds=1), NAME) == "ingest-20261122T113901.123Z.log"


def test_only_a_rotated_name_can_come_before() -> None:
    with pytest.raises(ValueError, match=r"'ingest\.log\.1' is not the name of a rotated file"):
        rotated_name(CLOSED, "ingest.log.1")


@given(st.lists(st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)), min_size=1))
def test_names_sort_by_age(moments: list[datetime]) -> None:
    made: list[str] = []
    for moment in moments:
        made.append(rotated_name(moment, made[-1] if made else None))
    assert sorted(set(made)) == made


def test_files_are_listed_from_the_oldest_to_the_active_one(tmp_path: Path) -> None:
    for name in (
        ACTIVE,
        "ingest-20261122T113900.123Z.log",
        "ingest-20261121T113900.123Z.log.zst",
        "ingest-20261120T113900.123Z.log.gz",
        "ingest-20261123T113900.123Z.log.zst.tmp",
        ".ingest.log.swp",
        "ingest.log.bak",
        "other.log",
    ):
        (tmp_path / name).touch()
    assert names(tmp_path) == [
        "ingest-20261120T113900.123Z.log.gz",
        "ingest-20261121T113900.123Z.log.zst",
        "ingest-20261122T113900.123Z.log",
        ACTIVE,
    ]


def test_an_original_counts_and_its_copies_do_not(tmp_path: Path) -> None:
    for name in (NAME, f"{NAME}.zst", f"{NAME}.gz"):
        (tmp_path / name).touch()
    assert names(tmp_path) == [NAME]
    (tmp_path / NAME).unlink()
    assert names(tmp_path) == [f"{NAME}.zst"]


def test_external_files_are_placed_by_their_first_record(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(first_line("2026-11-22T11:00:00.000000Z"))
    (tmp_path / "ingest.log.1").write_bytes(first_line("2026-11-22T11:39:00.123500Z"))
    with gzip.open(tmp_path / "ingest.log.2.gz", "wb") as old:
        old.write(first_line("2026-11-20T00:00:00.000000Z"))
    (tmp_path / "ingest.log-20261123").write_bytes(first_line("2026-11-23T00:00:00.000000Z"))
    (tmp_path / "ingest.log-2026112301.backup").write_bytes(
        first_line("2026-11-23T01:00:00.000000Z")
    )
    (tmp_path / ACTIVE).touch()
    external = ["ingest.log-20261123", "ingest.log-2026112301.backup"]
    expected = ["ingest.log.2.gz", NAME, "ingest.log.1", *external, ACTIVE]
    assert names(tmp_path) == expected


def external(folder: Path, name: str, *seqs: int, clock: float, device: str = "a") -> None:
    write(folder / name, *[line(seq, device=device, time=seq + clock) for seq in seqs])


def read(folder: Path) -> list[bytes]:
    lines: list[bytes] = []
    for file in log_files(folder):
        with open_log(file) as stream:
            lines += stream.read().splitlines()
    return lines


@pytest.mark.parametrize("clocks", [(0, -3600), (3600, 0), (0, 10 * 366 * 86400), (0, -5.5)])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_the_numbers_place_files_on_both_sides_of_a_step_of_the_clock(
    tmp_path: Path, clocks: tuple[float, float], suffix: str
) -> None:
    external(tmp_path, f"ingest.log.2{suffix}", 1, 2, 3, clock=clocks[0])
    external(tmp_path, f"ingest.log.1{suffix}", 4, 5, 6, clock=clocks[1])
    external(tmp_path, ACTIVE, 7, clock=0)
    assert [b'"seq":%d,' % seq in text for seq, text in enumerate(read(tmp_path), 1)] == [True] * 7


def test_a_clock_that_was_ten_years_ahead_for_one_file_moves_no_other(tmp_path: Path) -> None:
    for seq, (name, clock) in enumerate(
        [("4", 0.0), ("3", 10 * 366 * 86400.0), ("2", 0.0), ("1", 0.0)], 1
    ):
        external(tmp_path, f"ingest.log.{name}", seq, clock=clock)
    assert names(tmp_path) == ["ingest.log.4", "ingest.log.3", "ingest.log.2", "ingest.log.1"]


def test_equal_times_do_not_matter_where_there_are_numbers(tmp_path: Path) -> None:
    for seq, name in enumerate(("10", "9", "2"), 1):
        write(tmp_path / f"ingest.log.{name}", line(seq, time=0))
    assert read(tmp_path) == [line(seq, time=0) for seq in (1, 2, 3)]


def test_a_file_of_the_listener_and_one_of_another_program(tmp_path: Path) -> None:
    write(tmp_path / rotated_name(at(100), None), line(1, time=90))
    write(tmp_path / "ingest.log.1", line(2, time=-3600))  # the clock went back
    write(tmp_path / rotated_name(at(100.5), None), line(3, time=-3599))
    assert read(tmp_path) == [line(1, time=90), line(2, time=-3600), line(3, time=-3599)]


def test_the_ends_of_a_long_file_show_who_is_in_it(tmp_path: Path) -> None:
    value = '"text":"%s"' % ("x" * 1000)
    first = [line(seq, value, "a", 1000 + seq) for seq in range(1, 300)]
    write(tmp_path / "ingest.log.2", *first, line(1, device="b", time=2000))
    write(tmp_path / "ingest.log.1", line(2, device="b", time=0))
    assert names(tmp_path) == ["ingest.log.2", "ingest.log.1"]


@pytest.mark.parametrize(
    "name", ["ingest.log.20261125", "ingest.log-20261125.gz", "ingest.log.7.zst"]
)
def test_a_copy_is_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path / NAME, line(1), line(2))
    write(tmp_path / ACTIVE, line(3), line(4))
    for kept, lines in ((ACTIVE, [line(3)]), (NAME, [line(1), line(2)])):
        write(tmp_path / name, *lines)
        assert names(tmp_path) == [NAME, ACTIVE]
        [left_out] = list_log(tmp_path).left_out
        assert left_out == (tmp_path / name, f"it begins with the same record as {kept}")


def test_of_two_copies_the_longer_one_counts(tmp_path: Path) -> None:
    write(tmp_path / "ingest.log.1", line(1))
    write(tmp_path / "ingest.log.2", line(1), line(2))
    assert names(tmp_path) == ["ingest.log.2"]


def test_files_without_a_line_are_no_copies_of_each_other(tmp_path: Path) -> None:
    (tmp_path / "ingest.log.1").touch()
    (tmp_path / "ingest.log.2").touch()
    assert list_log(tmp_path).left_out == []


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1))
    for name in ("ingest.log.1.xz", "ingest-20261122T113900.123Z.log.bz2", "ingest.log.bak"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "ingest.log.2").mkdir()
    os.mkfifo(tmp_path / "ingest.log.3")
    (tmp_path / "ingest.log.4").symlink_to("nowhere")
    for name in ("other.log", ".ingest.log.swp", f"{NAME}.zst.tmp", ".ingest-log"):
        (tmp_path / name).touch()
    listed = list_log(tmp_path)
    assert [file.path.name for file in listed.files] == [ACTIVE]
    assert [(path.name, why) for path, why in listed.left_out] == [
        ("ingest-20261122T113900.123Z.log.bz2", "only .gz and .zst are read"),
        ("ingest.log.1.xz", "only .gz and .zst are read"),
        ("ingest.log.2", "it is no regular file"),
        ("ingest.log.3", "it is no regular file"),
        ("ingest.log.4", "it is no regular file"),
        ("ingest.log.bak", "its name is none of the log's"),
    ]


def test_what_has_a_name_of_ours_and_is_no_file_is_left_out(tmp_path: Path) -> None:
    """To open a pipe would wait for its other end."""
    os.mkfifo(tmp_path / NAME)
    write(tmp_path / f"{NAME}.zst", line(1))
    write(tmp_path / ACTIVE, line(2))
    listed = list_log(tmp_path)
    assert [file.path.name for file in listed.files] == [f"{NAME}.zst", ACTIVE]
    assert listed.left_out == [(tmp_path / NAME, "it is no regular file")]


def test_every_file_opens_decompressed(tmp_path: Path) -> None:
    frame = zstandard.ZstdCompressor().compress
    (tmp_path / "ingest.log.1").write_bytes(b"plain\n")
    (tmp_path / "ingest.log.2.gz").write_bytes(gzip.compress(b"gz") + gzip.compress(b"ip\n"))
    (tmp_path / "ingest.log.3.zst").write_bytes(frame(b"zs") + frame(b"td\n"))
    found = set()
    for file in log_files(tmp_path):
        with open_log(file) as stream:
            found.add(stream.read())
    assert found == {b"plain\n", b"gzip\n", b"zstd\n"}


def test_a_file_that_was_compressed_after_it_was_listed_still_opens(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"line\n")
    [file] = log_files(tmp_path)
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(b"line\n"))
    (tmp_path / NAME).unlink()
    with open_log(file) as stream:
        assert stream.read() == b"line\n"
    (tmp_path / f"{NAME}.gz").unlink()
    with pytest.raises(FileNotFoundError):
        open_log(file)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_that_was_renamed_after_it_was_listed_is_still_that_file(
    tmp_path: Path, suffix: str
) -> None:
    first, second = (tmp_path / f"ingest.log.{number}{suffix}" for number in (1, 2))
    write(first, line(1))
    [file] = log_files(tmp_path)
    first.rename(second)
    write(first, line(2))
    with open_log(file) as stream:
        assert stream.read() == line(1) + b"\n"
    second.unlink()
    with pytest.raises(FileNotFoundError):
        open_log(file)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damage_is_one_of_the_listed_errors(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"ingest.log.1{suffix}").write_bytes(b"neither the one nor the other")
    [file] = log_files(tmp_path)
    with open_log(file) as stream, pytest.raises(DAMAGED):
        stream.read(100)


def test_a_snapshot_holds_the_active_file_and_lists_the_older_ones(tmp_path: Path) -> None:
    assert snapshot(tmp_path) == ([], None)
    (tmp_path / NAME).touch()
    (tmp_path / ACTIVE).write_bytes(b"line\n")
    older, active = snapshot(tmp_path)
    assert [file.path.name for file in older] == [NAME]
    assert active is not None
    with active:
        assert identity(active.fileno()) == identity(tmp_path / ACTIVE)
        assert active.read() == b"line\n"


def test_a_snapshot_is_taken_again_if_the_log_was_emptied_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / ACTIVE, line(1))
    write(tmp_path / "ingest.log.1", line(1))  # copied and not cut yet: it is left out

    def list_and_cut(folder: Path) -> list[LogFile]:
        files = log_files(folder)
        (tmp_path / ACTIVE).write_bytes(b"")
        return files

    monkeypatch.setattr("ingest.log.listing.log_files", list_and_cut)
    older, active = snapshot(tmp_path)
    assert [file.path.name for file in older] == ["ingest.log.1"]
    assert active is not None
    active.close()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        log_files(tmp_path / "missing")


def test_a_head_is_the_first_line_or_the_start_of_it() -> None:
    assert head_of(b"") == head_of(b"torn") == b""
    assert head_of(b"one\ntwo\n") == b"one\n"
    assert head_of(b"x" * 600 + b"\n") == head_of(b"x" * 700) == b"x" * 512


@given(st.lists(st.sampled_from([b"\n", b"a", b"bcd"])), st.integers(1, 4))
def test_the_end_of_the_last_whole_line_is_found(parts: list[bytes], size: int) -> None:
    content = b"".join(parts)
    assert whole_end(io.BytesIO(content), size) == content.rfind(b"\n") + 1
