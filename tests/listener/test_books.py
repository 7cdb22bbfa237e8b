"""The books balance at any instant."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.journal.interface import Holder
from ingest.journal.memory import MemoryJournal
from ingest.listener.books import Account, Books, Delivery, total
from tests.support.journals import Holder as NotingHolder
from tests.support.journals import append


def visit(journal: MemoryJournal, device: str = "a") -> Delivery:
    holder = NotingHolder()
    claimant: Holder = holder
    journal.claim(device, claimant)
    return Delivery("ingest/1", holder.lease, 0, holder.lease.last)


def close(journal: MemoryJournal, books: Books, ended: Delivery) -> None:
    journal.release(ended.lease)
    books.end(ended)


def test_an_account_reads_on_as_its_lease_does() -> None:
    journal = MemoryJournal()
    current = visit(journal)
    append(journal, current.lease, 3)
    account = current.account()
    assert (account.received_frames, account.written_frames, account.waiting_frames) == (3, 0, 3)
    journal.commit()
    current.acknowledged = 3
    account = current.account()
    assert (account.written_frames, account.acknowledged_frames, account.waiting_frames) == (
        3,
        3,
        0,
    )
    assert account.written_bytes == sum(map(len, journal.lines))


def test_totals_by_protocol_never_go_back() -> None:
    journal, books = MemoryJournal(), Books()
    first, second = visit(journal), visit(journal, "b")
    second.protocol = "other"
    append(journal, first.lease, 3)
    append(journal, second.lease, 2)
    second.refused = "bad-frame"
    before = books.totals([first, second])
    assert (before["ingest/1"].received_frames, before["other"].received_frames) == (3, 3)
    close(journal, books, first)
    books.close_durable()
    assert books.totals([second]) == before, "ended, and not on disk yet"
    journal.commit()
    close(journal, books, second)
    books.close_durable()
    after = books.totals([])
    assert (after["ingest/1"].received_frames, after["ingest/1"].written_frames) == (3, 3)
    assert after["other"].refused_frames == {"bad-frame": 1}
    assert total(after.values()) == total(books.accounts([]).values())


def test_a_refused_frame_was_received() -> None:
    current = visit(MemoryJournal())
    current.refused = "bad-frame"
    account = current.account()
    assert (account.received_frames, account.waiting_frames) == (1, 0)
    assert account.refused_frames == {"bad-frame": 1}


def test_a_second_visit_counts_from_its_own_first_frame() -> None:
    journal, books = MemoryJournal(), Books()
    for _ in range(2):
        current = visit(journal)
        append(journal, current.lease, 5)
        journal.commit()
        assert current.account().received_frames == 5
        close(journal, books, current)
    books.close_durable()
    assert books.accounts([])["a"].written_frames == 10


def test_a_visit_that_waits_for_the_disk_stays_open_in_the_books() -> None:
    journal, books = MemoryJournal(), Books()
    current = visit(journal)
    append(journal, current.lease, 5)
    close(journal, books, current)
    books.close_durable()
    assert books.accounts([])["a"].waiting_frames == 5
    journal.commit()
    books.close_durable()
    assert books.accounts([])["a"].waiting_frames == 0


def test_totals() -> None:
    one = Account(3, 30, 2, 20, 1)
    one.refused_frames["bad-frame"] = 1
    both = total([one, one])
    assert both == Account(6, 60, 4, 40, 2, one.refused_frames + one.refused_frames)
    assert (one.received_frames, one.refused_frames) == (3, {"bad-frame": 1})
    assert total([]) == Account()


_STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "append", "commit", "refuse", "close"]), st.integers(0, 2))
)


@given(_STEPS)
def test_they_balance_whatever_happens(steps: list[tuple[str, int]]) -> None:
    journal, books = MemoryJournal(), Books()
    visits: dict[int, Delivery] = {}
    received = refused = 0
    for step, number in steps:
        if step == "commit":
            journal.commit()
            books.close_durable()
        elif step == "open" and number not in visits and not _waits(journal, number):
            visits[number] = visit(journal, str(number))
        elif step == "append" and number in visits:
            append(journal, visits[number].lease, number + 1)
            received += number + 1
        elif step in ("refuse", "close") and number in visits:
            ended = visits.pop(number)
            if step == "refuse":
                ended.refused = "bad-frame"
                refused += 1
            close(journal, books, ended)
        summed = total(books.accounts(visits.values()).values())
        assert summed.received_frames == received + refused
        assert summed.written_frames == len(journal.lines)
        assert summed.refused_frames.total() == refused
        assert summed.waiting_frames == received - len(journal.lines)


def _waits(journal: MemoryJournal, number: int) -> bool:
    """Tell whether a device's last lease waits for the disk, so that none is granted yet."""
    return str(number) in {lease.device for lease in journal._leases}
