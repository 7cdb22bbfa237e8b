"""The order of files, against the order in which they were written."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from ingest.log.order import Clues, oldest_first


def external(name: str, time: str, numbers: Mapping[bytes, int]) -> Clues:
    return Clues(time, name, False, numbers)


def closed(time: str, numbers: Mapping[bytes, int]) -> Clues:
    return Clues(time, f"ingest-{time}Z.log", True, numbers)


def test_the_example_of_the_docstring() -> None:
    files = [
        external("ingest.log.1", "11:00", {b"a": 7, b"c": 1}),
        external("ingest.log.2", "12:00", {b"a": 1, b"b": 1}),
        external("ingest.log.3", "10:00", {b"d": 1}),
    ]
    assert oldest_first(files) == [2, 1, 0]


def test_the_listeners_own_names_tell_where_numbers_do_not() -> None:
    files = [closed("12:00", {b"a": 1}), closed("11:00", {b"b": 1})]
    assert oldest_first(files) == [1, 0]
    assert oldest_first([*files, external("ingest.log.1", "11:30", {b"c": 1})]) == [1, 2, 0]


def test_numbers_count_more_than_names() -> None:
    files = [closed("12:00", {b"a": 1}), closed("11:00", {b"a": 2})]
    assert oldest_first(files) == [0, 1]


def test_files_that_contradict_each_other_are_in_the_order_of_their_times() -> None:
    files = [
        external("1", "12:00", {b"a": 1, b"b": 2}),
        external("2", "11:00", {b"a": 2, b"b": 1}),
    ]
    assert oldest_first(files) == [1, 0]


def test_equal_numbers_and_equal_times_leave_the_names() -> None:
    files = [external(name, "12:00", {b"a": 1}) for name in "cab"]
    assert oldest_first(files) == [1, 2, 0]


@given(
    written=st.lists(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1), max_size=8),
    data=st.data(),
)
def test_one_device_in_all_files_is_enough_whatever_the_clocks_say(
    written: list[list[bytes]], data: st.DataObject
) -> None:
    numbers: dict[bytes, int] = {}
    files = []
    for index, devices in enumerate(written):
        for device in (b"everywhere", *devices):
            numbers[device] = numbers.get(device, 0) + 1
        seen = {device: numbers[device] for device in (b"everywhere", *devices)}
        time = data.draw(st.sampled_from(["", "10:00", "11:00", "12:00"]))
        files.append(external(str(index), time, seen))
    shuffled = data.draw(st.permutations(files))
    assert [shuffled[place] for place in oldest_first(shuffled)] == files
