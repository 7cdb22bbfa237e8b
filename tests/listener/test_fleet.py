"""What connections have in common."""

from base64 import b64encode

import pytest

from ingest.listener.authentication import FailureLimit
from ingest.listener.connection import DeviceProtocol
from ingest.listener.stamp import Stamper
from ingest.wire.errors import ErrorCode
from tests.listener.parts import ELSEWHERE, LOOPBACK, Parts, Transport, lose, plain


def test_connections_are_counted_until_they_are_lost(parts: Parts) -> None:
    device, _ = parts.log_in()
    parts.connect()
    assert (len(parts.hub), list(parts.hub.devices())) == (2, ["a"])
    lose(device)
    assert (len(parts.hub), list(parts.hub.devices())) == (1, [])
    assert parts.hub.books.connections == 2


def test_too_many_connections_are_told_so() -> None:
    parts = Parts(max_connections=1)
    parts.log_in()
    device, transport = parts.connect()
    assert transport.read() == b""  # in its own dialect, so not before it speaks
    parts.hear(device, plain("a"))
    assert transport.read().startswith(b"ERR busy ")
    parts.close()


def test_a_crowd_is_shut_out() -> None:
    parts = Parts(max_connections=1)
    for _ in range(1 + 256):
        parts.connect()
    protocol, transport = parts.hub.buildProtocol(LOOPBACK), Transport()
    assert not isinstance(protocol, DeviceProtocol)
    protocol.makeConnection(transport)
    assert transport.disconnected
    assert parts.hub.books.errors == {"busy": 1}
    parts.close()


def test_too_many_failed_attempts_from_one_address(parts: Parts) -> None:
    parts.add("a")
    for _ in range(FailureLimit.BURST):
        device, _ = parts.connect()
        parts.hear(device, plain("a", "wrong"))
        parts.turns.run_one()
        lose(device)
    device, transport = parts.connect()
    parts.hear(device, plain("a"))
    assert transport.read().startswith(b"ERR busy ")
    assert parts.hub.refusal_of(LOOPBACK.host) is not None
    assert parts.hub.refusal_of(ELSEWHERE.host) is None
    parts.clock.advance(1)
    assert parts.hub.refusal_of(LOOPBACK.host) is None


def test_a_new_limit_counts_for_new_sessions(parts: Parts) -> None:
    older, older_transport = parts.log_in("older")
    parts.hub.set_settings(Parts(max_frame=10).hub.settings)
    newer, newer_transport = parts.log_in("newer")
    parts.hear(older, b"x" * 20 + b"\n")
    parts.hear(newer, b"x" * 20 + b"\n")
    parts.journal.commit()
    assert older_transport.read() == b"ACK 1\n"
    assert newer_transport.read().startswith(b"ERR frame-too-long ")


def test_revoked_devices_are_cut(parts: Parts) -> None:
    transports = {name: parts.log_in(name)[1] for name in ("disabled", "removed", "kept")}
    parts.registry.set_enabled("disabled", False)
    parts.registry.remove("removed")
    parts.hub.check_revocations()
    for name in ("disabled", "removed"):
        assert transports[name].read().startswith(b"ERR revoked ")
    assert transports["kept"].read() == b""
    assert list(parts.hub.devices()) == ["kept"]


def test_a_revocation_counts_once(parts: Parts) -> None:
    parts.add("a")
    parts.registry.set_enabled("a", False)
    parts.registry.set_enabled("a", True)
    parts.hub.check_revocations()
    _, transport = parts.log_in("a")
    parts.hub.check_revocations()
    assert transport.read() == b""


def test_who_was_seen_when(parts: Parts) -> None:
    device, _ = parts.log_in()
    begin = parts.clock.seconds()
    assert list(parts.hub.take_seen()) == [("a", _text(begin), "127.0.0.1:50123")]
    parts.clock.advance(5)
    parts.hear(device, b"x\n")
    lose(device)
    assert list(parts.hub.take_seen()) == [("a", _text(begin + 5), "127.0.0.1:50123")]
    assert not parts.hub.take_seen()


def test_a_round_notes_who_is_there(parts: Parts) -> None:
    device, _ = parts.log_in()
    parts.hub.take_seen()
    parts.clock.advance(5)
    heard = parts.clock.seconds()
    parts.hear(device, b"x\n")
    parts.pass_time(5)
    assert list(parts.hub.take_seen()) == [("a", _text(heard), "127.0.0.1:50123")]


def _text(seconds: float) -> str:
    return Stamper()(seconds).decode()


def test_handshakes_wait_for_their_turn_and_frames_do_not(parts: Parts) -> None:
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


def test_time_in_the_queue_does_not_count(parts: Parts) -> None:
    device, transport = parts.connect()
    device.dataReceived(b"AUTH PL")
    parts.clock.rightNow += 2 * parts.hub.settings.handshake_timeout
    parts.hub.check_times()
    parts.pass_time(0)
    assert transport.read() == b""


def test_who_closes_its_side_is_served_before(parts: Parts) -> None:
    lose(parts.log_in("a")[0])
    device, transport = parts.connect()
    device.dataReceived(plain("a") + b"the last line")
    device.readConnectionLost()
    parts.journal.commit()
    assert transport.read().endswith(b"\nACK 1\n")


def test_who_is_lost_before_its_turn_is_not_answered(parts: Parts) -> None:
    parts.add("a")
    device, transport = parts.connect()
    device.dataReceived(b"AUTH SCRAM-SHA-256 " + b64encode(b"n,,n=a,r=nonce") + b"\n")
    lose(device)
    parts.clock.advance(0)
    assert (transport.read(), len(parts.hub)) == (b"", 0)


def test_a_handshake_that_fails_leaves_the_others_their_turns(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(parts.log_in("a")[0])
    (unlucky, cut), (lucky, transport) = parts.connect(), parts.connect()
    monkeypatch.setattr(unlucky, "go_on", _fail)
    unlucky.dataReceived(plain("a"))
    lucky.dataReceived(plain("a"))
    parts.clock.advance(0)
    assert cut.disconnected
    assert transport.read().startswith(b"OK ")


def _fail() -> None:
    raise OSError("the registry can't be read")


def test_stopping_says_good_bye_and_waits(parts: Parts) -> None:
    device, transport = parts.log_in()
    parts.hear(device, b"a\n")
    stopped: list[None] = []
    parts.hub.stop().addCallback(stopped.append)
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


def test_stopping_without_connections(parts: Parts) -> None:
    stopped: list[None] = []
    parts.hub.stop().addCallback(stopped.append)
    assert stopped == [None]


def test_what_is_left_is_cut(parts: Parts) -> None:
    _, transport = parts.connect()
    parts.hub.abort()
    assert transport.disconnected


def test_the_books_of_a_hub(parts: Parts) -> None:
    device, _ = parts.log_in()
    parts.hear(device, b"a\nb\n")
    account = parts.hub.accounts()["a"]
    assert (account.received_frames, account.written_frames, account.waiting_frames) == (2, 0, 2)
    parts.journal.commit()
    parts.hear(device, b"x" * 70_000)
    lose(device)
    parts.hub.check_times()
    account = parts.hub.accounts()["a"]
    assert (account.received_frames, account.written_frames, account.waiting_frames) == (3, 2, 0)
    assert account.refused_frames == {ErrorCode.FRAME_TOO_LONG: 1}
    assert account.received_bytes == len(plain("a")) + 4 + 70_000
    assert account.written_bytes == sum(map(len, parts.journal.lines))
