import gzip
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.log.files import (
    ACTIVE,
    DAMAGED,
    LogFile,
    head_of,
    identity,
    log_files,
    open_log,
    rotated_name,
    snapshot,
    whole_end,
)

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
