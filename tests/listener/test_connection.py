"""The pump between a transport, a session and the journal."""

import json
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress

from ingest.listener.deadlines import LINGER
from ingest.listener.factory import ConnectionFactory
from ingest.wire.conversation import Claim, Context, Peer, Standing
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.framed import Framed
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.ingest1.text_dialect import TextDialect
from tests.listener.parts import ELSEWHERE, LOOPBACK, Listener, lose, plain

HANDSHAKE, IDLE = 10.0, 60.0


@pytest.fixture
def parts() -> Iterator[Listener]:
    parts = Listener(handshake_timeout=HANDSHAKE, idle_timeout=IDLE)
    yield parts
    parts.close()


OK = b"OK device=a next=%d max_frame=65536 time=2026-11-22T11:39:00.000000Z\n"


def texts(parts: Listener) -> list[str]:
    return [json.loads(line)["text"] for line in parts.journal.lines]


def names(parts: Listener) -> list[str]:
    return [member.device for member in parts.fleet.devices()]


def test_an_acknowledgement_waits_for_the_journal(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\nb\n")
    assert transport.read() == b""
    parts.journal.commit()
    assert transport.read() == b"ACK 2\n"
    assert texts(parts) == ["a", "b"]


def test_the_time_of_a_record_is_that_of_its_bytes(parts: Listener) -> None:
    device, _ = parts.log_in()
    parts.clock.advance(0.25)
    parts.hear(device, b"a\n")
    parts.clock.advance(1)
    parts.journal.commit()
    assert json.loads(parts.journal.lines[0])["time"] == "2026-11-22T11:39:00.250000Z"


def test_frames_ahead_wait_for_the_token(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a") + b"x\n")
    assert transport.is_paused
    assert transport.read() == b""
    parts.turns.run_one()
    assert not transport.is_paused
    assert transport.read() == OK % 1
    parts.journal.commit()
    assert transport.read() == b"ACK 1\n"


def test_what_comes_while_the_token_is_checked_waits_for_the_lease(parts: Listener) -> None:
    """TLS, say, may still have some when we read no more; and the end of the stream behind it."""
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a") + b"x\ny")
    parts.hear(device, b"z\nla")
    parts.hear(device, b"st")
    device.readConnectionLost()
    assert transport.read() == b""
    parts.turns.run_one()
    assert transport.read() == OK % 1
    parts.journal.commit()
    assert (transport.read(), transport.disconnecting) == (b"ACK 3\n", True)
    assert texts(parts) == ["x", "yz", "last"]


def test_what_comes_behind_an_error_is_not_taken(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a") + b"x" * 70_000 + b"\n")
    parts.hear(device, b"y\n")
    device.readConnectionLost()
    parts.turns.run_one()
    assert transport.read().partition(b"\n")[2].startswith(b"ERR frame-too-long ")
    assert parts.journal.lines == []


def test_frames_ahead_of_a_wrong_token_are_dropped(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a", "wrong") + b"x\n")
    parts.turns.run_one()
    parts.journal.commit()
    assert transport.read().startswith(b"ERR auth-failed ")
    assert transport.is_closed and not transport.disconnecting
    assert parts.journal.lines == []


def test_a_connection_that_is_lost_while_its_token_is_checked(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a") + b"x\n")
    lose(device)
    parts.turns.run_one()
    parts.journal.commit()
    assert (len(parts.fleet), parts.journal.lines, transport.read()) == (0, [], b"")
    assert parts.log_in()[0].device == "a"


def test_a_takeover_waits_for_the_older_ones_frames(parts: Listener) -> None:
    older, older_transport = parts.log_in()
    parts.hear(older, b"a\n")
    newer, newer_transport = parts.connect()
    parts.hear(newer, plain("a"))
    assert older_transport.read() == newer_transport.read() == b""
    assert older_transport.is_paused
    parts.journal.commit()
    acknowledged, error = older_transport.read().splitlines()
    assert acknowledged == b"ACK 1"
    assert error.startswith(b"ERR replaced ")
    assert newer_transport.read() == OK % 2
    lose(older)
    parts.hear(newer, b"b\n")
    parts.journal.commit()
    assert newer_transport.read() == b"ACK 2\n"


def test_a_claim_that_waits_is_replaced_too(parts: Listener) -> None:
    older, _ = parts.log_in()
    parts.hear(older, b"a\n")
    (middle, middle_transport), (newest, newest_transport) = parts.connect(), parts.connect()
    parts.hear(middle, plain("a") + b"lost\n")
    parts.hear(newest, plain("a"))
    assert middle_transport.read().startswith(b"ERR replaced ")
    parts.journal.commit()
    assert newest_transport.read().startswith(b"OK device=a next=2 ")
    assert texts(parts) == ["a"]


def test_a_connection_that_is_lost_while_it_waits_for_its_lease(parts: Listener) -> None:
    older, _ = parts.log_in()
    parts.hear(older, b"a\n")
    newer, newer_transport = parts.connect()
    parts.hear(newer, plain("a"))
    lose(newer, ConnectionLost)
    parts.journal.commit()
    assert newer_transport.read() == b""
    _, transport = parts.connect()
    following, transport = parts.connect()
    parts.hear(following, plain("a"))
    assert transport.read().startswith(b"OK device=a next=2 ")


def test_a_closed_side_gets_the_last_acknowledgement(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\nlast")
    device.readConnectionLost()
    assert (transport.read(), transport.disconnecting) == (b"", False)
    parts.journal.commit()
    assert (transport.read(), transport.disconnecting) == (b"ACK 2\n", True)
    assert texts(parts) == ["a", "last"]


def test_a_side_that_closes_while_the_token_is_checked(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a") + b"a\nlast")
    device.readConnectionLost()
    parts.turns.run_one()
    parts.journal.commit()
    ok, acknowledged = transport.read().splitlines()
    assert (ok[:2], acknowledged, transport.disconnecting) == (b"OK", b"ACK 2", True)


def test_a_last_line_counts_after_a_close_and_not_after_a_reset(parts: Listener) -> None:
    for name, reason in (("closed", None), ("reset", ConnectionLost)):
        device, _ = parts.log_in(name)
        parts.hear(device, b"whole\nlast")
        if reason is None:
            lose(device)
        else:
            lose(device, reason)
        parts.journal.commit()
    assert texts(parts) == ["whole", "last", "whole"]


def test_nothing_is_said_on_a_connection_that_is_lost(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\n")
    lose(device)
    parts.journal.commit()
    assert transport.read() == b""
    assert len(parts.fleet) == 0


def test_an_error_comes_after_what_was_accepted(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\n" + b"x" * 70_000)
    assert (transport.read(), transport.is_paused) == (b"", True)
    parts.journal.commit()
    acknowledged, error = transport.read().splitlines()
    assert acknowledged == b"ACK 1"
    assert error.startswith(b"ERR frame-too-long ")
    assert transport.is_closed


def test_nothing_counts_after_the_last_word(parts: Listener) -> None:
    device, transport = parts.log_in()
    device.fail(PeerError(ErrorCode.REVOKED, "gone"))
    transport.clear()
    assert not transport.is_paused  # only to hear it close
    parts.hear(device, b"late\n")
    device.fail(PeerError(ErrorCode.SHUTTING_DOWN, "too"))
    parts.journal.commit()
    assert (transport.read(), parts.journal.lines) == (b"", [])


def test_who_does_not_close_is_cut(parts: Listener) -> None:
    device, transport = parts.log_in()
    device.fail(PeerError(ErrorCode.REVOKED, "gone"))
    parts.pass_time(LINGER)
    assert not transport.disconnected
    parts.pass_time(0.1)
    assert transport.disconnected


def test_a_slow_disk_does_not_count_as_lingering(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\n")
    device.fail(PeerError(ErrorCode.REVOKED, "gone"))
    parts.pass_time(10 * LINGER)
    assert not transport.disconnected
    parts.journal.commit()
    assert transport.read().startswith(b"ACK 1\nERR revoked ")


def test_the_handshake_has_its_time(parts: Listener) -> None:
    device, transport = parts.connect()
    parts.hear(device, b"AUTH PL")
    parts.pass_time(HANDSHAKE)
    assert transport.read() == b""
    parts.hear(device, b"AI")
    parts.pass_time(0.1)
    assert transport.read().startswith(b"ERR auth-timeout ")


def test_who_speaks_only_after_its_time_is_not_listened_to(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.pass_time(HANDSHAKE + 0.1)
    assert transport.read().startswith(b"ERR auth-timeout ")
    parts.hear(device, plain("a") + b"late\n")
    assert transport.read() == b""
    assert names(parts) == []


def test_our_time_is_not_the_devices(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    parts.pass_time(HANDSHAKE * 2)
    parts.turns.run_one()
    assert transport.read().startswith(b"OK ")


def test_idle(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.pass_time(IDLE)
    parts.hear(device, b"\n")
    parts.pass_time(IDLE)
    assert transport.read() == b""
    parts.pass_time(0.1)
    assert transport.read().startswith(b"ERR idle-timeout ")


def test_idle_for_ever() -> None:
    parts = Listener(idle_timeout=0)
    _, transport = parts.log_in()
    parts.pass_time(1e9)
    assert transport.read() == b""
    parts.close()


def test_time_in_which_we_do_not_read_is_not_idle(parts: Listener) -> None:
    _, transport = parts.log_in()
    parts.fleet.pause()
    parts.pass_time(IDLE * 2)
    parts.fleet.resume()
    parts.pass_time(IDLE)
    assert transport.read() == b""


def test_a_full_journal_stops_frames_and_no_handshakes(parts: Listener) -> None:
    _, transport = parts.log_in()
    parts.fleet.pause()
    fresh, fresh_transport = parts.connect()
    assert transport.is_paused and not fresh_transport.is_paused
    parts.hear(fresh, plain("b"))
    parts.turns.run_one()
    assert fresh_transport.read().startswith(b"ERR auth-failed ")
    parts.fleet.resume()
    assert not transport.is_paused


def test_who_is_let_in_while_the_journal_is_full_waits(parts: Listener) -> None:
    parts.fleet.pause()
    _, transport = parts.log_in()
    assert transport.is_paused
    parts.fleet.resume()
    assert not transport.is_paused


def test_a_full_journal_does_not_keep_an_end_from_being_heard(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.fleet.pause()
    device.fail(PeerError(ErrorCode.REVOKED, "gone"))
    assert transport.read().startswith(b"ERR revoked ")
    assert not transport.is_paused


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        (LOOPBACK, True),
        (IPv6Address("TCP", "::1", 1), True),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
        (UNIXAddress("/run/ingest"), True),
        (ELSEWHERE, False),
        (IPv6Address("TCP", "2001:db8::1", 1), False),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), False),
        (IPv6Address("TCP", "fe80::1%eth0", 1), False),
    ],
)
def test_who_may_send_its_token_in_clear(parts: Listener, peer: IAddress, allowed: bool) -> None:
    parts.add("a")
    device, transport = parts.connect(peer)
    parts.hear(device, plain("a"))
    if allowed:
        parts.turns.run_one()
    assert transport.read().startswith(b"OK " if allowed else b"ERR plaintext-refused ")


def test_keys_that_were_revoked_during_the_handshake(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    parts.registry.set_enabled("a", False)
    parts.turns.run_one()
    assert transport.read().startswith(b"ERR revoked ")


@pytest.mark.parametrize("name", ['a","seq":9,"text":"', "a\n", "", "a" * 129])
@pytest.mark.parametrize("shared", [False, True])
def test_a_protocol_that_checks_no_name_writes_under_none(
    parts: Listener, name: str, shared: bool
) -> None:
    class Careless(ConfiguredIdentity):
        def claim(self, peer: Peer, said: str | None = None) -> Claim:
            return Claim(name, self.standing)

    def converse(context: Context) -> Framed:
        identity = Careless(None, (), Standing.UNREGISTERED)
        return Framed(context, identity, TextDialect(context.max_frame), shared=shared)

    parts.factory = ConnectionFactory(parts.fleet, "careless", converse)
    device, transport = parts.connect()
    parts.hear(device, b"x\n")
    parts.journal.commit()
    assert transport.read().startswith(b"ERR auth-failed ")
    assert parts.journal.lines == []
    lose(device)
    assert list(parts.fleet.members()) == []


def test_without_acknowledgements(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    parts.hear(device, plain("a", ack="none") + b"a\n")
    parts.turns.run_one()
    transport.clear()
    parts.journal.commit()
    parts.hear(device, b"b\n")
    device.readConnectionLost()
    parts.journal.commit()
    assert (transport.read(), transport.disconnecting) == (b"", True)
    assert texts(parts) == ["a", "b"]


def test_its_peer_for_people(parts: Listener) -> None:
    assert str(parts.connect(ELSEWHERE)[0].peer) == "192.0.2.1:50123"
    assert str(parts.connect(UNIXAddress(None))[0].peer) == "local"
