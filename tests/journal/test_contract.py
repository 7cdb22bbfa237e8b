"""The contract that every journal keeps, on all that there are; and the twin's own part."""

import pytest

from ingest.journal.interface import Journal, LeaseError
from tests.support.implementations import implementations
from tests.support.journals import JOURNALS, Driven, DrivenMemory, Holder, YieldingHolder, append


def claim(driven: Driven, device: str) -> Holder:
    holder = Holder()
    driven.journal.claim(device, holder)
    driven.settle(lambda: bool(holder.told))
    return holder


def test_no_journal_is_left_out() -> None:
    """Add a new one to `JOURNALS`: then it runs all of this, and the table of faults."""
    assert implementations(Journal, "ingest.journal") <= set(JOURNALS)


class TestContract:
    """What a session may rely on, whichever journal it has."""

    def test_numbers_begin_at_1(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        assert holder.told == [("granted", 0)]
        assert holder.lease.first == 1

    def test_nothing_is_durable_before_the_journal_says_so(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        append(driven.journal, holder.lease, 3)
        assert (holder.lease.last, holder.lease.durable) == (3, 0)
        driven.settle(lambda: holder.lease.durable == 3)
        assert holder.told[-1] == ("durable", 3)

    def test_what_is_durable_is_in_the_log_in_order(self, driven: Driven) -> None:
        a, b = claim(driven, "a"), claim(driven, "b")
        for _ in range(10):
            append(driven.journal, a.lease, 2)
            append(driven.journal, b.lease, 1)
        driven.settle(lambda: a.lease.durable == 20 and b.lease.durable == 10)
        lines = driven.lines()
        for device, count in ((b"a", 20), (b"b", 10)):
            of_device = [line for line in lines if b'"device":"%b"' % device in line]
            numbers = [int(line.split(b'"seq":')[1].split(b",")[0]) for line in of_device]
            assert numbers == list(range(1, count + 1))
        assert len(lines) == 30

    def test_durable_numbers_rise(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        for _ in range(50):
            append(driven.journal, holder.lease)
        driven.settle(lambda: holder.lease.durable == 50)
        numbers = [seq for kind, seq in holder.told if kind == "durable"]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 50

    def test_the_bytes_that_are_durable_are_counted(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        append(driven.journal, holder.lease, 5)
        driven.settle(lambda: holder.lease.durable == 5)
        assert holder.lease.written == sum(map(len, driven.lines()))

    def test_the_next_lease_goes_on(self, driven: Driven) -> None:
        first = claim(driven, "a")
        append(driven.journal, first.lease, 3)
        driven.journal.release(first.lease)
        second = claim(driven, "a")
        assert second.told == [("granted", 3)]
        assert second.lease.first == 4
        assert len(driven.lines()) == 3

    def test_a_newer_holder_waits_for_the_older_ones_records(self, driven: Driven) -> None:
        older, newer = YieldingHolder(driven.journal), Holder()
        driven.journal.claim("a", older)
        driven.settle(lambda: bool(older.told))
        append(driven.journal, older.lease, 100)
        driven.journal.claim("a", newer)
        assert ("fenced", 0) in older.told
        driven.settle(lambda: bool(newer.told))
        assert newer.told == [("granted", 100)]
        assert len(driven.lines()) == 100

    def test_a_claim_may_be_withdrawn(self, driven: Driven) -> None:
        older, newer = claim(driven, "a"), Holder()
        driven.journal.claim("a", newer)
        driven.journal.withdraw("a", newer)
        append(driven.journal, older.lease)
        driven.settle(lambda: older.lease.durable == 1)
        driven.journal.release(older.lease)
        assert newer.told == []
        assert claim(driven, "a").told == [("granted", 1)]

    def test_a_claim_may_be_withdrawn_before_any_answer(self, driven: Driven) -> None:
        """Whoever withdraws what was granted at once hears no more than that."""
        first, second = Holder(), Holder()
        driven.journal.claim("a", first)
        was_told = list(first.told)
        driven.journal.withdraw("a", first)
        if was_told:
            driven.journal.release(first.lease)
        driven.journal.claim("a", second)
        driven.settle(lambda: bool(second.told))
        assert second.told == [("granted", 0)]
        assert first.told == was_told

    def test_a_lease_that_was_released_brings_no_more(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        driven.journal.release(holder.lease)
        following = claim(driven, "a")
        with pytest.raises(LeaseError, match="a has ended"):
            append(driven.journal, holder.lease)
        append(driven.journal, following.lease)
        driven.settle(lambda: following.lease.durable == 1)
        assert len(driven.lines()) == 1

    def test_what_waits_is_the_backlog(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        assert driven.journal.backlog == 0
        append(driven.journal, holder.lease, 5)
        waiting = driven.journal.backlog
        driven.settle(lambda: holder.lease.durable == 5)
        assert (waiting, driven.journal.backlog) == (sum(map(len, driven.lines())), 0)

    def test_all_is_well(self, driven: Driven) -> None:
        assert driven.journal.health is None
        assert driven.events() == []

    def test_what_was_appended_before_close_is_written(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        append(driven.journal, holder.lease, 1000)
        driven.close()
        assert len(driven.lines()) == 1000

    def test_a_released_lease_hears_no_more(self, driven: Driven) -> None:
        holder = claim(driven, "a")
        append(driven.journal, holder.lease)
        driven.journal.release(holder.lease)
        claim(driven, "a")
        assert holder.told == [("granted", 0)]


def test_the_twin_makes_durable_what_was_appended_before_a_commit() -> None:
    driven = DrivenMemory()
    holder = claim(driven, "a")
    append(driven.journal, holder.lease)
    assert driven.lines() == []
    driven.journal.commit()
    append(driven.journal, holder.lease)
    assert len(driven.lines()) == 1
    assert holder.told == [("granted", 0), ("durable", 1)]
