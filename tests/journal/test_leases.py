"""One holder at a time, and the newest wins."""

from ingest.journal.interface import Lease
from ingest.journal.leases import Leases
from tests.support.journals import Holder, Report


def make(position: int = 0) -> Leases:
    return Leases(lambda device: position, Report())


def settle(leases: Leases, lease: Lease, seq: int) -> None:
    """Make records durable."""
    lease.durable = seq
    leases.announce([lease])


def test_a_free_lease_is_granted_at_once() -> None:
    holder = Holder()
    make(41).claim("a", holder)
    assert holder.told == [("granted", 41)]
    assert (holder.lease.first, holder.lease.last, holder.lease.durable) == (42, 41, 41)


def test_leases_of_two_devices_do_not_touch() -> None:
    leases, first, second = make(), Holder(), Holder()
    leases.claim("a", first)
    leases.claim("b", second)
    assert first.told == second.told == [("granted", 0)]
    assert {lease.device for lease in leases} == {"a", "b"}


def test_a_claim_fences_the_holder_and_waits_for_its_release() -> None:
    leases, older, newer = make(), Holder(), Holder()
    leases.claim("a", older)
    leases.claim("a", newer)
    assert older.told[1:] == [("fenced", 0)]
    assert newer.told == []
    leases.release(older.lease)
    assert newer.told == [("granted", 0)]


def test_a_release_waits_for_the_disk() -> None:
    leases, older, newer = make(), Holder(), Holder()
    leases.claim("a", older)
    older.lease.last = 3
    leases.claim("a", newer)
    leases.release(older.lease)
    settle(leases, older.lease, 2)
    assert newer.told == []
    settle(leases, older.lease, 3)
    assert newer.told == [("granted", 0)]


def test_a_holder_hears_what_is_durable_until_it_releases() -> None:
    leases, holder = make(), Holder()
    leases.claim("a", holder)
    holder.lease.last = 2
    settle(leases, holder.lease, 1)
    leases.release(holder.lease)
    settle(leases, holder.lease, 2)
    assert holder.told[1:] == [("durable", 1)]
    assert list(leases) == []


def test_of_several_claims_the_newest_wins() -> None:
    leases, holders = make(), [Holder() for _ in range(4)]
    for holder in holders:
        leases.claim("a", holder)
    assert [holder.told for holder in holders] == [
        [("granted", 0), ("fenced", 0)],
        [("fenced", 0)],
        [("fenced", 0)],
        [],
    ]
    leases.release(holders[0].lease)
    assert holders[3].told == [("granted", 0)]


def test_a_holder_is_fenced_once() -> None:
    leases, older, first, second = make(), Holder(), Holder(), Holder()
    leases.claim("a", older)
    leases.claim("a", first)
    leases.claim("a", second)
    assert older.told.count(("fenced", 0)) == 1


def test_a_withdrawn_claim_is_not_granted() -> None:
    leases, older, newer = make(), Holder(), Holder()
    leases.claim("a", older)
    leases.claim("a", newer)
    leases.withdraw("a", newer)
    leases.release(older.lease)
    assert newer.told == []
    assert list(leases) == []


def test_a_claim_that_was_fenced_can_be_withdrawn_without_harm() -> None:
    leases, older, fenced, newest = make(), Holder(), Holder(), Holder()
    for holder in (older, fenced, newest):
        leases.claim("a", holder)
    leases.withdraw("a", fenced)
    leases.release(older.lease)
    assert newest.told == [("granted", 0)]


def test_a_claim_while_a_released_lease_waits_for_the_disk() -> None:
    leases, older, newer = make(), Holder(), Holder()
    leases.claim("a", older)
    older.lease.last = 1
    leases.release(older.lease)
    leases.claim("a", newer)
    assert older.told == [("granted", 0)]
    assert newer.told == []
    settle(leases, older.lease, 1)
    assert newer.told == [("granted", 0)]


def test_a_late_word_of_an_old_lease_changes_nothing() -> None:
    leases, older, newer = make(), Holder(), Holder()
    leases.claim("a", older)
    leases.release(older.lease)
    leases.claim("a", newer)
    leases.release(older.lease)
    assert [lease.device for lease in leases] == ["a"]
    assert newer.told == [("granted", 0)]
