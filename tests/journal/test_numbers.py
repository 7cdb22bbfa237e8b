"""The newest numbers, in memory."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ingest.journal.numbers import Numbers
from ingest.journal.positions import Checkpoint, Mark, Positions

_MARK = Mark("ingest-20261122T113900.123Z.log", "ab", 7)
_CHECKPOINT = Checkpoint("log", _MARK, clean=False)
_LATER = _MARK._replace(offset=9)


@pytest.fixture
def positions(tmp_path: Path) -> Iterator[Positions]:
    with closing(Positions(tmp_path / "positions.db")) as positions:
        positions.go_on_from({"a": 5, "b": 1}, 3)
        yield positions


@pytest.fixture
def numbers(positions: Positions) -> Iterator[Numbers]:
    with closing(Numbers(positions)) as numbers:
        yield numbers


def _all(numbers: Numbers) -> list[int]:
    return [numbers.get(device) for device in "abc"]


def test_they_are_those_of_the_file_whatever_becomes_of_it(
    positions: Positions, numbers: Numbers
) -> None:
    positions.save({"a": 9, "c": 9}, _CHECKPOINT)
    assert _all(numbers) == [5, 1, 3]


def test_they_are_known_at_every_step_of_a_checkpoint(numbers: Numbers) -> None:
    numbers.note({"a": 6, "c": 4}, _MARK)
    assert _all(numbers) == [6, 1, 4]
    taken = numbers.take()
    assert (taken.changed, taken.mark, taken.is_new) == ({"a": 6, "c": 4}, _MARK, True)
    assert _all(numbers) == [6, 1, 4]
    numbers.note({"a": 7}, _LATER)
    assert _all(numbers) == [7, 1, 4]
    numbers.settle()
    assert _all(numbers) == [7, 1, 4]
    taken = numbers.take()
    assert (taken.changed, taken.mark) == ({"a": 7}, _LATER)
    numbers.settle()
    assert numbers.take() == ({}, _LATER, False)


def test_what_could_not_be_saved_is_taken_again_and_no_number_falls(numbers: Numbers) -> None:
    numbers.note({"a": 6, "b": 2}, _MARK)
    taken = numbers.take()
    numbers.note({"a": 7}, _LATER)
    numbers.put_back(taken)
    assert _all(numbers) == [7, 2, 3]
    assert numbers.take() == ({"a": 7, "b": 2}, _LATER, True)


def test_many_settle(numbers: Numbers) -> None:
    many = {f"device-{number}": number + 10 for number in range(1000)}
    numbers.note(many, _MARK)
    numbers.take()
    numbers.settle()
    assert {device: numbers.get(device) for device in many} == many


def test_another_file_is_filled_with_them(numbers: Numbers, tmp_path: Path) -> None:
    numbers.note({"a": 6}, _MARK)
    numbers.take()
    numbers.settle()
    with closing(Positions(tmp_path / "other.db")) as other:
        other.save({"d": 1}, _CHECKPOINT)
        numbers.fill(other)
        assert other.numbers() == {"a": 6, "b": 1}
        assert (other.floor, other.highest()) == (3, 6)
        other.save({"b": 2}, _CHECKPOINT)
        other.check()
