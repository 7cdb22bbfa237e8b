"""The notes of numbers that were left out on purpose."""

from pathlib import Path

import pytest

from ingest.log.jumps import Jump, all_jumps, note_jump, read_jumps
from tests.log.limits import largest_file
from tests.log.logs import at


def test_without_a_note_there_are_none(tmp_path: Path) -> None:
    assert read_jumps(tmp_path) == {}


def test_notes_add_up(tmp_path: Path) -> None:
    note_jump(tmp_path, at(1), {"a": 11, "b": 21})
    note_jump(tmp_path, at(2), {"a": 31})
    assert read_jumps(tmp_path) == {"a": {11, 31}, "b": {21}}


def test_where_others_begin_is_told_too(tmp_path: Path) -> None:
    note_jump(tmp_path, at(1), {}, 101)
    older = b'{"time":"2026-11-22T11:39:00.000000Z","next":{"a":211,"b":202}}\n'
    with (tmp_path / ".ingest-jumps").open("ab") as stream:
        stream.write(older)
    assert all_jumps(tmp_path) == [Jump({}, 101), Jump({"a": 211, "b": 202}, 202)]


def test_a_note_is_one_line_of_json(tmp_path: Path) -> None:
    note_jump(tmp_path, at(1), {"a": 11})
    content = (tmp_path / ".ingest-jumps").read_bytes()
    assert content.strip() == b'{"time":"2026-11-22T11:00:01.000000Z","next":{"a":11},"others":1}'


def test_a_note_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    note_jump(tmp_path, at(1), {"a": 11})
    with largest_file((tmp_path / ".ingest-jumps").stat().st_size + 20), pytest.raises(OSError):
        note_jump(tmp_path, at(2), {"a": 21})
    assert read_jumps(tmp_path) == {"a": {11}}
    note_jump(tmp_path, at(3), {"a": 31})
    assert read_jumps(tmp_path) == {"a": {11, 31}}


@pytest.mark.parametrize(
    "junk", [b"junk", b"[]", b'{"next":1}', b"{}", b'{"next":{"a":"x"}}', b"1"]
)
def test_junk_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / ".ingest-jumps").write_bytes(junk + b"\n")
    note_jump(tmp_path, at(1), {"a": 11})
    assert read_jumps(tmp_path) == {"a": {11}}


def test_notes_do_not_follow_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".ingest-jumps").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        note_jump(tmp_path, at(1), {"a": 11})
    assert victim.read_bytes() == b"mine"
