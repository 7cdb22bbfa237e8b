"""What connections have in common."""

from base64 import b64encode

import pytest
from twisted.internet.interfaces import IAddress

from ingest.devices.registry import RegistryError
from ingest.listener.admission import REFUSALS, Limits
from ingest.listener.stamp import Stamper
from ingest.wire.errors import ErrorCode
from tests.listener.parts import LOOPBACK, Listener, lose, plain


def names(parts: Listener) -> list[str]:
    return [member.device for member in parts.fleet.devices()]


def test_connections_are_counted_until_they_are_lost(parts: Listener) -> None:
    device, _ = parts.log_in()
    parts.connect()
    assert (len(parts.fleet), names(parts)) == (2, ["a"])
    lose(device)
    assert (len(parts.fleet), names(parts)) == (1, [])
    assert parts.fleet.books.connections == 2


def test_too_many_connections_are_told_so() -> None:
    parts = Listener(max_connections=1)
    parts.log_in()
    device, transport = parts.connect()
    assert transport.read() == b""  # in its own dialect, so not before it speaks
    parts.hear(device, plain("a"))
    assert transport.read().startswith(b"ERR busy ")
    parts.close()


def test_a_crowd_waits_to_be_accepted() -> None:
    parts = Listener(max_connections=2)
    port = Port()
    parts.fleet.admission.ports = [port]
    crowd = [parts.connect()[0] for _ in range(2 + REFUSALS)]
    assert port.said == ["pause"]
    while len(crowd) > 2:
        lose(crowd.pop())
    assert port.said == ["pause"]
    lose(crowd.pop())
    assert port.said == ["pause", "resume"]
    parts.close()


class Port:
    """A port that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pauseProducing(self) -> None:
        self.said.append("pause")

    def resumeProducing(self) -> None:
        self.said.append("resume")


def fail(parts: Listener, device: str, peer: IAddress = LOOPBACK) -> bytes:
    """Let a device come with a wrong token; return what it is told."""
    connection, transport = parts.connect(peer)
    parts.hear(connection, plain(device, "wrong"))
    if not transport.value():
        parts.turns.run_one()
    lose(connection)
    return transport.read()


def greet(parts: Listener, device: str, peer: IAddress = LOOPBACK) -> bytes:
    """Let a device come with its token; return what it is told."""
    connection, transport = parts.connect(peer)
    parts.hear(connection, plain(device))
    if not transport.value():
        parts.turns.run_one()
    lose(connection)
    return transport.read()


def test_a_device_with_a_wrong_token_keeps_no_other_out(parts: Listener) -> None:
    parts.add("good", "bad")
    for _ in range(300):
        assert fail(parts, "bad").startswith(b"ERR auth-failed ")
    assert fail(parts, "bad").startswith(b"ERR busy ")
    assert greet(parts, "bad").startswith(b"ERR busy ")
    assert greet(parts, "good").startswith(b"OK ")
    parts.clock.advance(1)
    assert greet(parts, "bad").startswith(b"OK ")


def test_guessing_names_from_one_address_is_slow_and_known_devices_get_in(
    parts: Listener,
) -> None:
    parts.add("known", "new")
    assert greet(parts, "known").startswith(b"OK ")
    parts.pass_time(1)
    parts.registry.record_seen(parts.fleet.take_seen())
    for number in range(3000):
        parts.fleet.admission.failed(LOOPBACK.host, f"guess-{number}", parts.clock.seconds())
    assert greet(parts, "new").startswith(b"ERR busy ")
    assert greet(parts, "known").startswith(b"OK ")


def test_an_address_is_kept_out_also_while_the_registry_can_not_be_read(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3000):
        parts.fleet.admission.failed(LOOPBACK.host, f"guess-{number}", parts.clock.seconds())

    def fail_to_look(_: str) -> None:
        raise RegistryError("the disk is failing")

    monkeypatch.setattr(parts.registry, "get", fail_to_look)
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    assert transport.read().startswith(b"ERR busy ")


def test_scram_comes_under_the_same_limit(parts: Listener) -> None:
    for _ in range(300):
        parts.fleet.admission.failed(LOOPBACK.host, "a", parts.clock.seconds())
    device, transport = parts.connect()
    parts.hear(device, b"AUTH SCRAM-SHA-256 " + b64encode(b"n,,n=a,r=nonce") + b"\n")
    assert transport.read().startswith(b"ERR busy ")


def test_a_new_limit_counts_for_new_sessions(parts: Listener) -> None:
    older, older_transport = parts.log_in("older")
    parts.fleet.admission.limits = Limits(max_frame=10)
    newer, newer_transport = parts.log_in("newer")
    parts.hear(older, b"x" * 20 + b"\n")
    parts.hear(newer, b"x" * 20 + b"\n")
    parts.journal.commit()
    assert older_transport.read() == b"ACK 1\n"
    assert newer_transport.read().startswith(b"ERR frame-too-long ")


def test_revoked_devices_are_cut(parts: Listener) -> None:
    transports = {name: parts.log_in(name)[1] for name in ("disabled", "removed", "kept")}
    parts.registry.set_enabled("disabled", False)
    parts.registry.remove("removed")
    parts.fleet.check_revocations()
    for name in ("disabled", "removed"):
        assert transports[name].read().startswith(b"ERR revoked ")
    assert transports["kept"].read() == b""
    assert names(parts) == ["kept"]


def test_who_has_come_since_with_new_keys_is_not_cut(parts: Listener) -> None:
    parts.add("a")
    parts.registry.set_token("a", "another")
    protocol, transport = parts.connect()
    parts.hear(protocol, plain("a", "another"))
    parts.turns.run_one()
    parts.fleet.check_revocations()
    assert transport.read().startswith(b"OK ")
    assert len(parts.fleet.devices()) == 1


def test_who_waits_for_a_lease_is_cut_too(parts: Listener) -> None:
    older, _ = parts.log_in("a")
    parts.hear(older, b"x\n")
    protocol, transport = parts.connect()
    parts.hear(protocol, plain("a"))
    parts.registry.set_enabled("a", False)
    parts.fleet.check_revocations()
    parts.journal.commit()
    assert transport.read().startswith(b"ERR revoked ")
    assert not parts.fleet.devices()


def test_a_revocation_counts_once(parts: Listener) -> None:
    parts.add("a")
    parts.registry.set_enabled("a", False)
    parts.registry.set_enabled("a", True)
    parts.fleet.check_revocations()
    _, transport = parts.log_in("a")
    parts.fleet.check_revocations()
    assert transport.read() == b""


def test_who_was_seen_when(parts: Listener) -> None:
    device, _ = parts.log_in()
    begin = parts.clock.seconds()
    parts.pass_time(1)
    assert list(parts.fleet.take_seen()) == [("a", _text(begin), "127.0.0.1:50123")]
    parts.clock.advance(5)
    parts.hear(device, b"x\n")
    lose(device)
    assert list(parts.fleet.take_seen()) == [("a", _text(begin + 6), "127.0.0.1:50123")]
    assert not parts.fleet.take_seen()


def test_a_round_notes_who_is_there(parts: Listener) -> None:
    device, _ = parts.log_in()
    parts.fleet.take_seen()
    parts.clock.advance(5)
    heard = parts.clock.seconds()
    parts.hear(device, b"x\n")
    parts.pass_time(5)
    assert list(parts.fleet.take_seen()) == [("a", _text(heard), "127.0.0.1:50123")]


def _text(seconds: float) -> str:
    return Stamper()(seconds).decode()


def test_handshakes_wait_for_their_turn_and_frames_do_not(parts: Listener) -> None:
    running, acks = parts.log_in("running")
    lose(parts.log_in("a")[0])
    fresh, transport = parts.connect()
    fresh.dataReceived(plain("a"))
    running.dataReceived(b"x\n")
    parts.journal.commit()
    assert acks.read() == b"ACK 1\n"
    assert (transport.read(), transport.is_paused) == (b"", True)
    parts.clock.advance(0)
    assert (transport.read()[:3], transport.is_paused) == (b"OK ", False)


def test_time_in_the_queue_does_not_count(parts: Listener) -> None:
    device, transport = parts.connect()
    device.dataReceived(b"AUTH PL")
    parts.clock.rightNow += 2 * parts.fleet.admission.limits.handshake_timeout
    parts.fleet.check_deadlines(0)
    parts.pass_time(1)
    assert transport.read() == b""


def test_who_closes_its_side_is_served_before(parts: Listener) -> None:
    lose(parts.log_in("a")[0])
    device, transport = parts.connect()
    device.dataReceived(plain("a") + b"the last line")
    device.readConnectionLost()
    parts.journal.commit()
    assert transport.read().endswith(b"\nACK 1\n")


def test_who_is_lost_before_its_turn_is_not_answered(parts: Listener) -> None:
    parts.add("a")
    device, transport = parts.connect()
    device.dataReceived(b"AUTH SCRAM-SHA-256 " + b64encode(b"n,,n=a,r=nonce") + b"\n")
    lose(device)
    parts.clock.advance(0)
    assert (transport.read(), len(parts.fleet)) == (b"", 0)


def test_a_handshake_that_fails_leaves_the_others_their_turns(
    parts: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(parts.log_in("a")[0])
    (unlucky, cut), (lucky, transport) = parts.connect(), parts.connect()
    monkeypatch.setattr(unlucky._conversation, "_context", None)
    unlucky.dataReceived(plain("a"))
    lucky.dataReceived(plain("a"))
    parts.clock.advance(0)
    assert cut.disconnected
    assert transport.read().startswith(b"OK ")


def test_stopping_says_good_bye_and_waits(parts: Listener) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\n")
    stopped: list[None] = []
    parts.fleet.stop().addCallback(stopped.append)
    assert transport.read() == b""
    parts.journal.commit()
    assert transport.read().startswith(b"ACK 1\nERR shutting-down ")
    late, late_transport = parts.connect()
    parts.hear(late, plain("a"))
    assert late_transport.read().startswith(b"ERR shutting-down ")
    lose(device)
    assert stopped == []
    lose(late)
    assert stopped == [None]


def test_stopping_without_connections(parts: Listener) -> None:
    stopped: list[None] = []
    parts.fleet.stop().addCallback(stopped.append)
    assert stopped == [None]


def test_what_is_left_is_cut(parts: Listener) -> None:
    _, transport = parts.connect()
    parts.fleet.abort()
    assert transport.disconnected


def test_the_books_of_a_fleet(parts: Listener) -> None:
    device, _ = parts.log_in()
    parts.hear(device, b"a\nb\n")
    account = parts.fleet.accounts()["a"]
    assert (account.received_frames, account.written_frames, account.waiting_frames) == (2, 0, 2)
    parts.journal.commit()
    parts.hear(device, b"x" * 70_000)
    lose(device)
    parts.fleet.check_deadlines(0)
    account = parts.fleet.accounts()["a"]
    assert (account.received_frames, account.written_frames, account.waiting_frames) == (3, 2, 0)
    assert account.refused_frames == {ErrorCode.FRAME_TOO_LONG: 1}
    assert account.received_bytes == len(plain("a")) + 4 + 70_000
    assert account.written_bytes == sum(map(len, parts.journal.lines))
