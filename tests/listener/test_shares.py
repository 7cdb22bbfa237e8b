"""Names that several connections have at once."""

import json
from collections.abc import Iterator

import msgpack
import pytest

from ingest.journal.memory import MemoryJournal
from ingest.listener.connection import Connection
from ingest.listener.factory import ConnectionFactory
from ingest.listener.shares import Shares
from ingest.wire.forward.session import make_converse
from ingest.wire.options import Options
from tests.listener.parts import Listener, Transport, lose, plain
from tests.support.journals import FailingHolder, Holder, record


@pytest.fixture
def parts() -> Iterator[Listener]:
    parts = Listener()
    parts.add("a")
    yield parts
    parts.close()


def connect(parts: Listener) -> tuple[Connection, Transport]:
    """Connect a client of Forward, whose device is `a`."""
    usual = parts.factory
    parts.factory = ConnectionFactory(
        parts.fleet, "forward", make_converse(Options({"device": "a"}))
    )
    client = parts.connect()
    parts.factory = usual
    return client


def chunk(name: str, *numbers: int) -> bytes:
    packed: bytes = msgpack.packb(["t", [[5, {"n": n}] for n in numbers], {"chunk": name}])
    return packed


def ack(name: str) -> bytes:
    packed: bytes = msgpack.packb({"ack": name})
    return packed


def stored(parts: Listener) -> list[tuple[int, int]]:
    records = map(json.loads, parts.journal.lines)
    return [(record["seq"], record["data"]["n"]) for record in records]


def test_each_is_told_of_its_own(parts: Listener) -> None:
    (first, one), (second, two) = connect(parts), connect(parts)
    parts.hear(first, chunk("x", 1, 2))
    parts.journal.commit()
    parts.hear(second, chunk("y", 3))
    parts.hear(first, chunk("z", 4))
    assert (one.read(), two.read()) == (ack("x"), b"")
    parts.journal.commit()
    assert (one.read(), two.read()) == (ack("z"), ack("y"))
    assert stored(parts) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    account = parts.fleet.accounts()["a"]
    assert (account.received_frames, account.written_frames) == (4, 4)
    assert account.acknowledged_frames == 4 and account.waiting_frames == 0


def test_one_that_is_lost_leaves_the_others(parts: Listener) -> None:
    (first, _), (second, two) = connect(parts), connect(parts)
    parts.hear(first, chunk("x", 1))
    lose(first)
    parts.hear(second, chunk("y", 2))
    assert parts.fleet.accounts()["a"].waiting_frames == 2
    parts.journal.commit()
    assert two.read() == ack("y")
    parts.fleet.check_deadlines(0.25)
    account = parts.fleet.accounts()["a"]
    assert (account.written_frames, account.waiting_frames) == (2, 0)
    third, three = connect(parts)
    parts.hear(third, chunk("x", 1))
    assert three.read() == ack("x")
    assert stored(parts) == [(1, 1), (2, 2)]


def test_the_lease_is_kept_until_all_is_durable(parts: Listener) -> None:
    client, _ = connect(parts)
    parts.hear(client, chunk("x", 1))
    lose(client)
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    parts.turns.run_one()
    assert transport.read() == b""  # its number is not certain yet
    parts.journal.commit()
    assert transport.read().startswith(b"OK device=a next=2 ")


def test_a_newcomer_that_shares_nothing_takes_over(parts: Listener) -> None:
    (first, one), (second, two) = connect(parts), connect(parts)
    parts.hear(first, chunk("x", 1))
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    parts.turns.run_one()
    assert transport.read() == b""
    parts.journal.commit()
    assert (one.read(), one.is_closed, two.is_closed) == (ack("x"), True, True)
    assert transport.read().startswith(b"OK device=a next=2 ")
    again, three = connect(parts)  # and is taken over from in turn
    assert transport.read().startswith(b"ERR replaced ")
    parts.hear(again, chunk("y", 2))
    parts.journal.commit()
    assert three.read() == ack("y")
    lose(second)


def test_a_claim_that_is_withdrawn(parts: Listener) -> None:
    device, transport = parts.log_in("a")
    parts.hear(device, b"x\n")
    client, _ = connect(parts)  # waits until that is durable
    lose(client)
    parts.journal.commit()
    assert b"ACK 1" in transport.read()
    again, two = connect(parts)
    parts.hear(again, chunk("y", 2))
    parts.journal.commit()
    assert two.read() == ack("y")


def test_a_revoked_name_is_cut_everywhere(parts: Listener) -> None:
    (first, one), (_, two) = connect(parts), connect(parts)
    parts.hear(first, chunk("x", 1))
    parts.registry.set_enabled("a", False)
    parts.fleet.check_revocations()
    assert (one.is_closed, two.is_closed) == (False, True)
    parts.journal.commit()
    assert (one.read(), one.is_closed) == (ack("x"), True)
    late, three = connect(parts)
    assert three.is_closed and late.device == ""


def test_a_name_that_is_not_registered(parts: Listener) -> None:
    parts.registry.remove("a")
    _, transport = connect(parts)
    assert transport.is_closed
    assert parts.fleet.incidents.handshakes == {"configured/auth-failed": 1}


def test_all_are_paused(parts: Listener) -> None:
    (_, one), (_, two) = connect(parts), connect(parts)
    parts.fleet.pause()
    assert one.is_paused and two.is_paused
    parts.fleet.resume()
    assert not one.is_paused and not two.is_paused


def test_one_that_leaves_as_it_is_let_in_takes_nobody_with_it(parts: Listener) -> None:
    device, _ = parts.log_in("a")
    parts.hear(device, b"x\n")
    (first, one), (second, two) = connect(parts), connect(parts)  # both wait until it is durable
    first.dataReceived(b"\xc1")  # which is no msgpack
    parts.hear(second, chunk("y", 1))
    parts.journal.commit()
    assert one.is_closed
    parts.journal.commit()
    assert two.read() == ack("y")
    lose(first)
    assert parts.fleet.accounts()["a"].waiting_frames == 0


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("failing", ["granted", "durable", "fenced"])
def test_one_that_fails_is_cut_and_the_others_do_not_notice(failing: str, place: int) -> None:
    journal = MemoryJournal()
    shares = Shares(journal)
    older, newer = Holder(), Holder()
    holders = [Holder(), Holder()]
    holders.insert(place, FailingHolder(failing, "abort"))
    journal.claim("a", older)
    for holder in holders:
        shares.claim("a", holder)
    journal.release(older.lease)
    present = [holder for holder in holders if holder.lease.holder is holder]
    for number, holder in enumerate(present, 1):
        shares.append(holder.lease, record("a", number), 1)
    journal.commit()
    journal.claim("a", newer)
    for holder in holders:
        is_bad = isinstance(holder, FailingHolder)
        assert (("abort", 0) in holder.told) == is_bad
        assert (holder.lease.holder is None) == is_bad
        if not is_bad:
            assert holder.told == [("granted", 0), ("durable", 1), ("fenced", 0)]
            shares.release(holder.lease)
    assert newer.told == [("granted", len(present))]
    assert journal.events == []
