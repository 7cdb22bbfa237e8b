"""Following the log from a saved place."""

import sqlite3
import time
from collections.abc import Iterator

import pytest

from ingest.layout import Layout
from ingest.watch.follower import Follower, Traffic
from ingest.watch.roster import Roster
from ingest.watch.series import Curves
from tests.watch.pages import write_log


class Following:
    """A follower, and what it has noted."""

    def __init__(self, layout: Layout) -> None:
        self.now = time.time()
        self.roster, self.curves, self.traffic = Roster(), Curves(), Traffic()
        self.follower = Follower(
            layout, self.roster, self.curves, self.traffic, clock=lambda: self.now
        )

    def read(self) -> None:
        while self.follower.step():
            pass


@pytest.fixture
def following(layout: Layout) -> Iterator[Following]:
    made = Following(layout)
    yield made
    made.follower.close()


def frames(
    begin: float, numbers: range, device: str = "a"
) -> Iterator[tuple[float, str, int, str]]:
    for number in numbers:
        yield begin + number, device, number, f'"text":"temp={number}"'


def test_it_notes_devices_traffic_and_fields(layout: Layout, following: Following) -> None:
    begin = following.now - 102  # the traffic of the newest ten seconds is not complete
    write_log(layout, frames(begin, range(1, 91)))
    write_log(
        layout,
        iter([(begin, "b", 1, '"data":{"x":{"y":2},"s":"t"}'), (begin, "c", 1, '"raw":"AA=="')]),
    )
    following.read()
    assert {name: entry.seq for name, entry in following.roster.entries.items()} == {
        **{"a": 90, "b": 1, "c": 1}
    }
    temp = following.curves.read("a", "temp")
    assert temp is not None
    assert temp.high.tolist() == list(range(1, 91))
    assert following.curves.fields("b") == ["x.y"]
    starts, rates, _ = following.traffic.rates(following.now, 10)
    assert sum(rates) * 10 == pytest.approx(92)
    assert len(starts) == 360
    assert following.follower.progress.read == 92


def test_the_place_is_saved_after_it_acted(layout: Layout, following: Following) -> None:
    write_log(layout, frames(following.now - 100, range(1, 11)))
    following.read()
    following.now += 6
    following.read()
    with sqlite3.connect(layout.page_state) as saved:
        assert saved.execute("SELECT name, seq FROM devices").fetchall() == [("a", 10)]
        assert saved.execute("SELECT count(*) FROM place").fetchone() == (1,)
    saved.close()


def test_a_restart_goes_on_and_draws_the_last_hour_again(layout: Layout) -> None:
    first = Following(layout)
    begin = first.now - 1000
    write_log(layout, iter([(begin - 5000, "old", 7, '"text":"v=1"')]))
    first.now -= 5000
    first.read()
    first.follower.close()

    second = Following(layout)
    write_log(layout, frames(begin, range(1, 11)))
    second.read()
    second.follower.close()
    assert second.roster.entries["old"].seq == 7, "it is older than an hour"
    assert second.roster.entries["a"].seq == 10

    third = Following(layout)
    third.read()
    third.follower.close()
    assert third.roster.entries["old"].seq == 7
    temp = third.curves.read("a", "temp")
    assert temp is not None
    assert len(temp) == 10


def test_a_damaged_state_is_made_anew(layout: Layout) -> None:
    layout.page_state.write_bytes(b"no database" * 1000)
    made = Following(layout)
    write_log(layout, frames(made.now - 10, range(1, 3)))
    made.read()
    made.follower.close()
    assert made.roster.entries["a"].seq == 2


def test_lines_that_are_no_records_harm_nothing(layout: Layout, following: Following) -> None:
    log = layout.log_folder / "ingest.log"
    log.write_bytes(
        b'{"time":"9999-99-99T99:99:99.000000Z","device":"a","seq":1,"text":"x"}\n\xff\n{}\n[]\n'
    )
    write_log(layout, frames(following.now - 10, range(2, 4)))
    following.read()
    assert following.roster.entries["a"].seq == 3


def test_what_is_missing_is_said(layout: Layout, following: Following) -> None:
    write_log(layout, frames(following.now - 10, range(1, 3)))
    following.read()
    (layout.log_folder / "ingest.log").unlink()
    write_log(layout, frames(following.now - 5, range(5, 7)))
    following.read()
    assert "lines are gone" in following.follower.problems[0][1]
    assert following.roster.entries["a"].seq == 6


def test_curves_are_thinned_while_it_does_not_catch_up(
    layout: Layout, following: Following
) -> None:
    begin = following.now - 600
    block = 20_000  # more than one read brings
    for number in range(8):
        write_log(layout, frames(begin, range(number * block + 1, number * block + 2), "a"))
        write_log(
            layout,
            (
                (begin, "b", each, '"text":"temp=1"')
                for each in range(number * block + 1, (number + 1) * block)
            ),
        )
    while following.follower.step():
        following.now += 2  # each read takes two seconds: so much is too much
    progress = following.follower.progress
    assert progress.thinned_at > 0
    assert following.roster.entries["b"].seq == 8 * block - 1, "every line counts for its device"
    temp = following.curves.read("b", "temp")
    assert temp is not None
    assert 0 < temp.count.sum() < 8 * block
    for _ in range(10):
        following.read()
    assert following.follower.progress.stride == 1
    assert following.follower.progress.behind == 0


def test_a_start_that_catches_up_in_time_thins_nothing(
    layout: Layout, following: Following
) -> None:
    begin = following.now - 3200  # each read brings minutes of it
    write_log(
        layout,
        ((begin + each / 50, "a", each, '"text":"temp=1"') for each in range(1, 160_001)),
    )
    while following.follower.step():
        following.now += 2
    assert following.follower.progress.thinned_at == 0
    temp = following.curves.read("a", "temp")
    assert temp is not None
    assert temp.count.sum() == 160_000


def test_the_first_and_the_last_bucket_of_the_hour_are_whole(
    layout: Layout, following: Following
) -> None:
    begin = following.now - 3700
    write_log(layout, frames(begin, range(1, 3701)))
    following.read()
    _, rates, _ = following.traffic.rates(following.now, 10)
    assert rates == [1.0] * 360
