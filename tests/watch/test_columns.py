"""Closed files become Parquet that says the same to the byte."""

import random
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.layout import Layout
from ingest.log.files import ACTIVE
from ingest.watch.columns import BusyError, Converter, UnreadableError, convert, main
from ingest.watch.schema import MAX_FIELDS, RECORD
from ingest.watch.snapshot import columns_path
from tests.log.logs import line, write
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.logs import close, convert_all, data_line, look, rows, text_line

READINGS = [
    data_line(1, {"temp": 20.5, "door": "shut", "on": True, "n": 3}),
    data_line(2, {"temp": 21.5, "door": "open", "on": False, "n": 4}),
]


def finish(converter: Converter) -> None:
    try:
        while converter.convert_next():
            pass
    finally:
        converter.stop()


def types_of(layout: Layout) -> dict[object, object]:
    return {name: kind for name, kind, *_ in rows(layout, "DESCRIBE log") if name not in RECORD}


def stored(path: Path, columns: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {columns} FROM '{path}'").fetchall()


def test_each_closed_file_becomes_one_by_the_day_of_its_closing(layout: Layout) -> None:
    close(layout, 10, *READINGS)
    close(layout, 90_000, data_line(3, {"temp": 1.5}), suffix=".zst")
    close(layout, 90_001, data_line(4, {"temp": 2.5}), suffix=".gz")
    write(layout.log_folder / "ingest.log.1", data_line(5, {"temp": 3.5}))
    write(layout.log_folder / ACTIVE, data_line(6, {"temp": 4.5}))
    converter = Converter(layout)
    finish(converter)
    made = [path.relative_to(layout.columns_folder) for path in _parquet(layout)]
    assert made == [
        Path("2026-11-22/ingest-20261122T110010.000Z.parquet"),
        Path("2026-11-23/ingest-20261123T120000.000Z.parquet"),
        Path("2026-11-23/ingest-20261123T120001.000Z.parquet"),
    ]
    progress = converter.progress
    assert (progress.converted, progress.pending, progress.records) == (3, 0, 4)
    assert progress.failed == ()
    assert rows(layout, "SELECT seq, temp FROM log ORDER BY seq") == [
        (1, 20.5), (2, 21.5), (3, 1.5), (4, 2.5), (5, 3.5), (6, 4.5),
    ]  # fmt: skip


def _parquet(layout: Layout) -> list[Path]:
    return sorted(layout.columns_folder.glob("*/*"))


def test_it_is_sorted_by_device_and_time(layout: Layout) -> None:
    close(layout, 10, *(data_line(seq, {"t": seq}, device) for seq in (1, 2) for device in "cab"))
    (path,) = convert_all(layout)
    order = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
    assert stored(path, "device, seq") == order


def test_fields_are_typed_columns_and_spell_the_data(layout: Layout) -> None:
    close(layout, 10, *READINGS, data_line(3, {"temp": "n/a", "n": 2**63}))
    (path,) = convert_all(layout)
    assert stored(path, 'temp, door, "on", n, data') == [
        (20.5, "shut", True, 3, None),
        (21.5, "open", False, 4, None),
        (None, None, None, None, '{"temp":"n/a","n":9223372036854775808}'),
    ]
    assert types_of(layout) == {"temp": "DOUBLE", "door": "VARCHAR", "on": "BOOLEAN", "n": "BIGINT"}


INFLUX = [
    {"measurement": "air", "tags": {"place": "a"}, "fields": {"temp": 20.5, "on": True}},
    {"measurement": "air", "tags": {"place": "b"}, "fields": {"temp": 21, "of": [1]}},
    {"measurement": "air", "tags": {"place": "c"}, "fields": {"temp": "n/a", "on": None}},
]


def test_fields_within_objects_are_typed_columns_beside_the_data(layout: Layout) -> None:
    close(layout, 1, *(data_line(seq, each) for seq, each in enumerate(INFLUX, 1)))
    (made,) = convert_all(layout)
    assert stored(made, '"tags.place", "fields.temp", "fields.on", data') == [
        ("a", 20.5, True, None),
        ("b", 21.0, None, None),
        ("c", None, None, None),
    ]
    assert [orjson.loads(str(data)) for (data,) in rows(layout, "SELECT data FROM log")] == INFLUX


def test_what_is_within_objects_is_the_same_before_and_after_conversion(layout: Layout) -> None:
    """Also where files differ in a field's type, and where its name is a key of its own."""
    frames: list[object] = [*INFLUX, {"fields": 5}, {"fields.temp": 1.5}, {"tags": {"x.y": 1}}]
    close(layout, 1, *(data_line(seq, each) for seq, each in enumerate(INFLUX, 1)))
    close(layout, 2, *(data_line(seq, {"fields": {"temp": "x"}}) for seq in range(4, 10)))
    close(layout, 3, *(data_line(seq, each) for seq, each in enumerate(frames, 10)))
    close(layout, 4, text_line(16, "fields.on=1 x=2"), text_line(17, '{"fields":{"on":true}}'))
    asked = [
        'SELECT seq, "fields.temp", "fields.on", "tags.place", "tags.x.y" FROM log ORDER BY seq',
        'SELECT sum("fields.on"::INTEGER), count("fields.temp") FROM log',
        "SELECT * FROM log ORDER BY seq",
    ]
    before = [look(layout, sql) for sql in asked]
    convert_all(layout)
    assert [sorted(look(layout, sql)[0]) for sql in asked] == [sorted(found) for found, _ in before]
    assert [look(layout, sql)[1] for sql in asked[:2]] == [found for _, found in before[:2]]


def test_text_that_is_json_or_pairs_has_fields_too(layout: Layout) -> None:
    texts = ["temp=20.5 door=shut", '{"temp": 21, "pos": {"lat": 1}}', "no pairs: a=1", "temp=,x=2"]
    lines = [text_line(seq, text) for seq, text in enumerate(texts, 1)]
    close(layout, 10, *lines)
    sql = "SELECT text, temp, door, pos, x FROM log ORDER BY seq"
    expected = [
        (texts[0], 20.5, "shut", None, None),
        (texts[1], 21.0, None, '{"lat":1}', None),
        (texts[2], None, None, None, None),
        (texts[3], None, None, None, 2.0),
    ]
    assert rows(layout, sql) == expected
    convert_all(layout)
    assert rows(layout, sql) == expected


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
KEYS = st.sampled_from(["a", "b", "A", "time", "é", 'q"uote', "it's", "", "$x", "a.b", "data_time"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
FRAMES = st.lists(st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, min_size=1, max_size=12)


@settings(max_examples=25)
@given(FRAMES)
def test_nothing_of_any_frame_is_lost(frames: list[object]) -> None:
    with TemporaryDirectory() as name:
        layout = Layout(Path(name))
        layout.create()
        lines = [data_line(seq, frame) for seq, frame in enumerate(frames, 1)]
        lines += [text_line(seq, f"{seq}", "b") for seq in range(3)]
        close(layout, 10, *lines)
        sql = "SELECT * FROM log ORDER BY device, seq"
        before = look(layout, sql)
        convert_all(layout)
        columns, found = look(layout, sql)
        assert (columns, found) == before
        place = [name for name, _ in columns].index("data")
        read = [orjson.loads(str(row[place])) for row in found if row[place] is not None]
        assert read == [orjson.loads(orjson.dumps(frame)) for frame in frames]


def test_names_that_sql_does_not_tell_apart_are_all_in_the_data(layout: Layout) -> None:
    frames = [{"Temp": 1.5}, {"Temp": 2.5}, {"temp": 3.5}, {"time": 4, "x\"'y": 5, "": 6}]
    close(layout, 10, *(data_line(seq, frame) for seq, frame in enumerate(frames, 1)))
    convert_all(layout)
    assert types_of(layout) == {"Temp": "DOUBLE", "data_time": "BIGINT"}
    assert rows(layout, "SELECT temp, data->>'$.temp', data_time FROM log ORDER BY seq") == [
        (1.5, None, None),
        (2.5, None, None),
        (None, "3.5", None),
        (None, None, 4),
    ]


def test_a_field_that_the_sample_did_not_show_gets_its_column(layout: Layout) -> None:
    lines = [data_line(seq, {"n": seq}) for seq in range(1, 60_001)]
    lines += [data_line(60_001, {"n": 0.5, "late": 1})]
    close(layout, 10, *lines)
    (path,) = convert_all(layout)
    assert types_of(layout) == {"n": "DOUBLE", "late": "BIGINT"}
    assert stored(path, "count(*), count(n), sum(late)") == [(60_001, 60_001, 1)]


def test_what_has_no_column_is_found_all_the_same(layout: Layout) -> None:
    many = {f"k{number}": number for number in range(MAX_FIELDS + 50)}
    close(layout, 10, data_line(1, many), data_line(2, many), data_line(3, {"rare": 7}))
    close(layout, 20, *(data_line(seq, {"rare": seq}) for seq in range(4, 9)))
    first, _ = convert_all(layout)
    with duckdb.connect() as connection:
        schema = connection.execute("SELECT name FROM parquet_schema(?)", [str(first)]).fetchall()
    names = [name for (name,) in schema]
    assert "rare" not in names
    assert rows(layout, "SELECT seq, rare FROM log WHERE rare IS NOT NULL ORDER BY seq") == [
        (3, 7), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8),
    ]  # fmt: skip


def test_it_goes_with_its_file_and_is_made_again_if_it_is_missing(layout: Layout) -> None:
    older, newer = close(layout, 10, *READINGS), close(layout, 90_000, data_line(3, {"temp": 1.5}))
    finish(Converter(layout))
    first, second = columns_path(layout, older), columns_path(layout, newer)
    left_over = first.with_name(first.name + ".tmp")
    left_over.write_bytes(b"half")
    older.path.unlink()
    second.unlink()
    finish(Converter(layout))
    assert _parquet(layout) == [second]
    assert not first.parent.exists()


@pytest.mark.parametrize("size", [0, 4, -1])
def test_parquet_that_is_cut_off_is_passed_by_and_made_again(layout: Layout, size: int) -> None:
    close(layout, 1, line(1))
    (path,) = convert_all(layout)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert look(layout, "SELECT seq FROM log")[1] == [(1,)]
    finish(Converter(layout))
    assert len(path.read_bytes()) == len(whole)
    assert look(layout, "SELECT seq FROM log")[1] == [(1,)]


def test_a_file_stays_converted_when_it_is_compressed(layout: Layout) -> None:
    file = close(layout, 10, *READINGS)
    finish(Converter(layout))
    write(file.path.with_name(file.path.name + ".zst"), *READINGS)
    file.path.unlink()
    converter = Converter(layout)
    finish(converter)
    assert converter.progress.records == 0
    assert rows(layout, "SELECT count(*) FROM log") == [(2,)]


@pytest.mark.parametrize("suffix", [".zst", ".gz"])
def test_a_damaged_file_is_told_and_keeps_no_other_back(layout: Layout, suffix: str) -> None:
    lines = [data_line(seq, {"t": seq}) for seq in range(1, 2000)]
    damaged = close(layout, 20, *lines, suffix=suffix)
    damaged.path.write_bytes(damaged.path.read_bytes()[:-20])
    good = close(layout, 10, *READINGS)
    converter = Converter(layout)
    finish(converter)
    assert _parquet(layout) == [columns_path(layout, good)]
    ((name, what),) = converter.progress.failed
    assert name == "ingest-20261122T110020.000Z"
    assert "is damaged" in what


def test_one_that_is_gone_is_told(layout: Layout) -> None:
    file = close(layout, 10, *READINGS)
    file.path.unlink()
    with pytest.raises(UnreadableError, match="is gone"):
        convert(file, layout.data / "x.parquet", layout.data / "spill", threads=1, memory=1 << 28)


def test_what_the_disk_does_not_take_now_is_tried_again(layout: Layout) -> None:
    file = close(layout, 10, *READINGS)
    target = columns_path(layout, file)
    in_the_way = target.with_name(target.name + ".tmp")
    in_the_way.mkdir(parents=True)
    converter = Converter(layout)
    with pytest.raises(OSError, match="tmp"):
        converter.convert_next()
    assert converter.progress.failed == ()
    in_the_way.rmdir()
    finish(converter)
    assert _parquet(layout) == [target]


def test_only_one_converts_at_a_time(layout: Layout) -> None:
    converter = Converter(layout)
    with pytest.raises(BusyError, match="another process"):
        Converter(layout)
    converter.stop()
    Converter(layout).stop()


def test_the_command_says_in_a_line_what_keeps_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["columns", str(layout.data)])
    converter = Converter(layout)
    with pytest.raises(SystemExit, match=r"another process converts .*: perhaps ingest-watch"):
        main()
    converter.stop()
    monkeypatch.setattr("sys.argv", ["columns", str(layout.data / "missing")])
    with pytest.raises(SystemExit, match="there is no log in "):
        main()
    assert not (layout.data / "missing").exists()


def test_stopped_in_the_middle_it_leaves_nothing_that_counts(layout: Layout) -> None:
    file = close(layout, 10, *(data_line(seq, {"t": seq * 0.1}) for seq in range(1, 200_001)))
    converter = Converter(layout)
    thread = threading.Thread(target=converter.convert_next)
    thread.start()
    temporary = columns_path(layout, file).with_name(columns_path(layout, file).name + ".tmp")
    wait_for(lambda: temporary.exists() or not thread.is_alive(), "the file that is being made")
    converter.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert columns_path(layout, file).exists() == (converter.progress.converted == 1)
    assert rows(layout, "SELECT count(*) FROM log") == [(200_000,)]
    finish(Converter(layout))
    assert _parquet(layout) == [columns_path(layout, file)]
    assert rows(layout, "SELECT count(*) FROM log") == [(200_000,)]


@pytest.mark.parametrize(("count", "size", "memory"), [(250_000, 150, 128), (2000, 50_000, 192)])
def test_more_than_fits_into_memory(layout: Layout, count: int, size: int, memory: int) -> None:
    source = random.Random(1)
    texts = (source.randbytes(size // 2).hex() for _ in range(count))
    file = close(layout, 10, *(text_line(seq, text) for seq, text in enumerate(texts, 1)))
    assert file.path.stat().st_size > 0.3 * (memory << 20)
    target = layout.data / "x.parquet"
    assert convert(file, target, layout.data / "spill", threads=2, memory=memory << 20) == count
    assert stored(target, "count(*), count(DISTINCT seq)") == [(count, count)]


def test_lines_that_are_no_records_are_left_out(layout: Layout) -> None:
    close(layout, 10, line(1), b"garbage", b'{"time":"x"}', b"[]", b"", line(2))
    convert_all(layout)
    assert rows(layout, "SELECT seq FROM log ORDER BY seq") == [(1,), (2,)]


def test_the_file_may_be_empty(layout: Layout) -> None:
    close(layout, 10)
    convert_all(layout)
    assert rows(layout, "SELECT count(*) FROM log") == [(0,)]
