"""What is a number is one for all: the curves of memory, those of the log's files, and queries."""

from datetime import datetime

import pytest

from ingest.layout import Layout
from ingest.log.files import ACTIVE
from ingest.record import parse
from ingest.watch.fields import fields_of
from ingest.watch.history import read_history
from tests.log.logs import at, write
from tests.watch.logs import close, convert_all, data_line, rows, text_line

FRAMES = (
    (data_line(1, {"n": 7, "in": {"n": 7}}), data_line(2, {"n": 0.5}), text_line(3, "n=9")),
    (data_line(4, {"n": True, "in": {"n": True}}), text_line(5, '{"n":false}')),
    (data_line(6, {"n": "5", "in": {"n": "5"}}), text_line(7, '{"n":"nan"}')),
    (data_line(8, {"n": "-"}), text_line(9, "n=-"), text_line(10, "n=3")),
    (data_line(11, {"n": {"a": 1}}), data_line(12, {"n": [1]}), data_line(13, {"n": True})),
)
"""Each is a file of the log: in its Parquet, `n` has the type that most of its values have."""
NUMBERS = [("n", 1, 7.0), ("n", 2, 0.5), ("n", 3, 9.0), ("n", 10, 3.0), ("in.n", 1, 7.0)]


@pytest.mark.parametrize("form", ["lines", "Parquet", "both"])
def test_true_and_digits_in_quotes_are_no_numbers(layout: Layout, form: str) -> None:
    for place, lines in enumerate(FRAMES):
        if form == "both" and place == len(FRAMES) // 2:
            convert_all(layout)
        close(layout, 1 + place, *lines)
    if form == "Parquet":
        convert_all(layout)
    write(layout.log_folder / ACTIVE, *(data_line(20 + seq, {"n": 0.5}) for seq in range(9)))
    since, until = (datetime.timestamp(at(seconds)) for seconds in (-3600, 3600))
    for name in ("n", "in.n"):
        wanted = [(seq, value) for field, seq, value in NUMBERS if field == name]
        sql = f'SELECT seq, "{name}"::DOUBLE FROM log WHERE "{name}" IS NOT NULL AND seq < 20'
        assert rows(layout, f"{sql} ORDER BY seq") == wanted
        found, _ = read_history(layout, "a", name, since, until, 7200.0)
        active = 9 if name == "n" else 0
        assert found.count.sum() == len(wanted) + active
        assert found.total.sum() == sum(value for _, value in wanted) + active * 0.5


def test_memory_counts_the_same() -> None:
    found = [
        (name, record.seq, value)
        for lines in FRAMES
        for record in map(parse, lines)
        for name, value in fields_of(record).items()
        if type(value) is float and name in {"n", "in.n"}
    ]
    assert sorted(found) == sorted(NUMBERS)
