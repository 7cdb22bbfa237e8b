from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.log.files import ACTIVE, rotated_name
from ingest.log.jumps import note_jump
from ingest.log.verifying import MAX_BREACHES, Breach, verify
from tests.log.logs import at, line, write


def breaches(folder: Path, **positions: int) -> list[tuple[str, int, int, str]]:
    report = verify(folder, positions)
    assert report.breach_count == len(report.breaches)
    return [(found.path.name, found.line, found.offset, found.what) for found in report.breaches]


def rotated(folder: Path, seconds: int, suffix: str = "") -> Path:
    return folder / (rotated_name(at(seconds), None) + suffix)


def test_a_good_log_has_no_breach(tmp_path: Path) -> None:
    values = [
        '"text":"a\\"b \\u0001 é"',
        '"raw":"/wD+"',
        '"data":{"a":[1,{"b":null}],"text":"x"}',
        '"event_time":"2026-11-22T10:00:00Z","tag":"x","chunk":"y","text":"z"',
    ]
    made = [
        line(seq, values[seq % 4], device) for seq in range(5, 305) for device in ("a", "b:c.d")
    ]
    write(rotated(tmp_path, 1, ".gz"), *made[:100])
    write(rotated(tmp_path, 2, ".zst"), *made[100:200])
    write(rotated(tmp_path, 3), *made[200:300])
    write(tmp_path / ACTIVE, *made[300:])
    report = verify(tmp_path, {"a": 304, "b:c.d": 17, "removed by retention": 5})
    assert (report.files, report.lines, report.breach_count) == (4, 600, 0)
    assert report.bytes == sum(len(text) + 1 for text in made)
    assert report.last == {"a": 304, "b:c.d": 304}
    assert (report.breaches, report.unfinished) == ([], 0)


def test_an_empty_log_is_a_good_one(tmp_path: Path) -> None:
    (tmp_path / ACTIVE).touch()
    assert breaches(tmp_path, a=5) == []


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (b"", "not JSON"),
        (b"junk", "not JSON"),
        (b"\x00" * 50, "not JSON"),
        (b"[]", "not a JSON object"),
        (line(2)[:-1], "not JSON"),
        (line(2) + b"}", "not JSON"),
        (line(2) + line(2), "not JSON"),
        (line(2, '"text":"\xff"').decode().encode("latin-1"), "not JSON"),
        (line(2, '"text":"a\tb"'), "not JSON"),
        (line(2, '"data":NaN'), "not JSON"),
        (line(2, '"data":[1'), "not JSON"),
        (line(2, '"text":"a","x":1'), "its keys are"),
        (b'{"device":"a","time":"2026-11-22T11:00:02.000000Z","seq":2,"text":"x"}', "its keys are"),
        (line(2, '"value":1'), "its keys are"),
        (line(2, '"text":1'), "not a record to the byte"),
        (line(2, '"text": "a"'), "not a record to the byte"),
        (line(2, '"text":"a","text":"b"'), "not a record to the byte"),
        (line(2, '"raw":"?"'), "not a record to the byte"),
        (line(2) + b" ", "not a record to the byte"),
        (line(2) + b"\r", "not a record to the byte"),
        (b" " + line(2), "not a record to the byte"),
        (line(2).replace(b"2026", b"x026"), "not a record to the byte"),
        (line(2).replace(b".000000Z", b".000Z"), "not a record to the byte"),
        (line(2, device="a b"), "not a record to the byte"),
        (line(2).replace(b":2,", b":02,"), "not JSON"),
        (line(2).replace(b":2,", b":2.0,"), "not a record to the byte"),
        (line(2).replace(b":2,", b":0,"), "not a record to the byte"),
    ],
)
def test_a_bad_line_is_found_at_its_byte(tmp_path: Path, bad: bytes, what: str) -> None:
    write(tmp_path / ACTIVE, line(1, device="b"), line(2, device="b"), bad, line(3, device="b"))
    [(name, number, offset, said)] = breaches(tmp_path)
    assert (name, number, offset) == (ACTIVE, 3, 2 * (len(line(1)) + 1))
    assert said.startswith(what)


def test_a_bad_value_does_not_make_its_number_missing(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), line(2, '"data":nul'), line(3))
    assert [place[1] for place in breaches(tmp_path)] == [2]


def test_missing_and_repeated_numbers_are_found(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(7), line(1, device="b"), line(10), line(10), line(2), line(3))
    size = len(line(1)) + 1
    assert breaches(tmp_path) == [
        (ACTIVE, 3, 2 * size, "a: number 10 follows 7, 2 missing"),
        (ACTIVE, 4, 3 * size + 1, "a: number 10 follows 10, a repeat"),
        (ACTIVE, 5, 4 * size + 2, "a: number 2 follows 10, a repeat"),
    ]


def test_numbers_go_on_from_file_to_file(tmp_path: Path) -> None:
    write(rotated(tmp_path, 1, ".zst"), line(1), line(2))
    write(rotated(tmp_path, 2), line(4))
    write(tmp_path / ACTIVE, line(4))
    assert breaches(tmp_path) == [
        (rotated(tmp_path, 2).name, 1, 0, "a: number 4 follows 2, 1 missing"),
        (ACTIVE, 1, 0, "a: number 4 follows 4, a repeat"),
    ]


def test_a_torn_line_is_a_breach_in_a_closed_file_only(tmp_path: Path) -> None:
    rotated(tmp_path, 1).write_bytes(line(1) + b"\n" + line(2)[:9])
    (tmp_path / ACTIVE).write_bytes(line(2) + b"\n" + line(3)[:8])
    report = verify(tmp_path)
    what = "the last line has no end, 9 bytes"
    assert report.breaches == [Breach(rotated(tmp_path, 1), 2, len(line(1)) + 1, what)]
    assert report.unfinished == 8


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_copy_is_a_breach(tmp_path: Path, suffix: str) -> None:
    path = rotated(tmp_path, 1, suffix)
    write(path, *map(line, range(1, 2000)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) // 2)
    path.write_bytes(content)
    found = breaches(tmp_path)
    assert {name for name, *_ in found} == {path.name}
    assert any(what.startswith("the file is damaged from here on") for *_, what in found)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_copy_that_was_cut_short_is_a_breach(tmp_path: Path, suffix: str) -> None:
    path = rotated(tmp_path, 1, suffix)
    write(path, *map(line, range(1, 20000)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    write(tmp_path / ACTIVE, line(20000))
    (name, *_, what), *_ = breaches(tmp_path)
    assert name == path.name
    assert what == (
        "the file is damaged from here on: it ends too early: it was cut short, or never finished"
    )


def test_a_position_must_not_be_ahead_of_the_log(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), line(2), line(1, device="b"))
    end = 3 * (len(line(1)) + 1)
    assert breaches(tmp_path, a=2, b=1, gone=9) == []
    expected = [(ACTIVE, 4, end, "a: the log ends at 2, its position is 3")]
    assert breaches(tmp_path, a=3, b=0) == expected


def test_a_jump_that_the_listener_noted_is_no_breach(tmp_path: Path) -> None:
    write(rotated(tmp_path, 1), line(1), line(1, device="b"), line(2, device="b"))
    write(tmp_path / ACTIVE, line(101), line(102), line(203, device="b"))
    note_jump(tmp_path, at(5), {"a": 101, "b": 103})
    assert breaches(tmp_path, a=102, b=203) == [
        (ACTIVE, 3, 2 * len(line(101)) + 2, "b: number 203 follows 2, 200 missing")
    ]
    assert verify(tmp_path).jumps == 1
    note_jump(tmp_path, at(6), {"b": 203})
    report = verify(tmp_path)
    assert (report.breach_count, report.jumps) == (0, 2)


def test_a_position_behind_a_jump_is_not_ahead_of_the_log(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), line(1, device="b"))
    note_jump(tmp_path, at(5), {"a": 101, "b": 101})
    assert breaches(tmp_path, a=100) == []
    assert [what for *_, what in breaches(tmp_path, b=101)] == [
        "b: the log ends at 1, its position is 101"
    ]


def test_a_note_excuses_no_repeat_and_no_other_number(tmp_path: Path) -> None:
    note_jump(tmp_path, at(5), {"a": 5})
    write(tmp_path / ACTIVE, line(1), line(5), line(5), line(3))
    assert [place[1] for place in breaches(tmp_path)] == [3, 4]


def test_files_on_both_sides_of_a_step_of_the_clock_are_in_order(tmp_path: Path) -> None:
    write(tmp_path / "ingest.log.2", *[line(seq, time=3600 + seq) for seq in (1, 2, 3)])
    write(tmp_path / "ingest.log.1", *map(line, (4, 5, 6)))
    (tmp_path / ACTIVE).touch()
    assert breaches(tmp_path) == []


def test_a_copy_in_the_folder_repeats_nothing(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, line(1), line(2))
    write(tmp_path / "ingest.log.20261125", line(1))
    report = verify(tmp_path)
    assert (report.files, report.breach_count) == (1, 0)


def test_only_the_first_breaches_are_kept(tmp_path: Path) -> None:
    write(tmp_path / ACTIVE, *[b"junk"] * 500)
    report = verify(tmp_path)
    assert (report.breach_count, len(report.breaches)) == (500, MAX_BREACHES)
    assert report.breaches[-1].line == MAX_BREACHES


def test_progress_is_the_size_on_disk(tmp_path: Path) -> None:
    write(rotated(tmp_path, 1, ".zst"), *map(line, range(1, 1000)))
    write(tmp_path / ACTIVE, *map(line, range(1000, 3000)))
    steps: list[int] = []
    verify(tmp_path, progress=steps.append)
    assert len(steps) > 2
    assert sum(steps) == sum(path.stat().st_size for path in tmp_path.iterdir())


@settings(deadline=None)
@given(
    devices=st.lists(st.sampled_from("abc"), min_size=2, max_size=60),
    padding=st.sampled_from([1, 3000]),
    data=st.data(),
)
def test_any_line_that_is_lost_repeated_or_moved_is_noticed(
    devices: list[str], padding: int, data: st.DataObject
) -> None:
    value = '"text":"%s"' % ("x" * padding)
    made = [
        line(devices[: index + 1].count(device), value, device)
        for index, device in enumerate(devices)
    ]
    later = [index for index in range(len(made)) if devices[index] in devices[:index]]
    with TemporaryDirectory() as name:
        write(Path(name) / ACTIVE, *made)
        assert breaches(Path(name)) == []
        if not later:
            return
        index = data.draw(st.sampled_from(later))
        write(Path(name) / ACTIVE, *made[: index + 1], made[index], *made[index + 1 :])
        assert [place[1] for place in breaches(Path(name))] == [index + 2]
        write(Path(name) / ACTIVE, *made[:index], *made[index + 1 :])
        following = [at for at in range(index + 1, len(made)) if devices[at] == devices[index]]
        assert [place[1] for place in breaches(Path(name))] == following[:1]


def test_the_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "missing")
