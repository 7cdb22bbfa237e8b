"""One connection of a device at a time, and none of a device that may not connect any more."""

import threading
from collections.abc import Callable

import pytest

from ingest.service.tree import _OFTEN as OFTEN
from tests.support.devices import Device, PackedDevice, TextDevice
from tests.support.listeners import Listener

Dialect = type[Device]


def test_a_newer_connection_takes_over(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as older, TextDevice(listener.addresses[0]) as newer:
        older.log_in(name)
        older.push_all("a", last=1)
        older.push("b")
        following = newer.log_in(name)
        # What the older was told counts; what was still on its way to it does not.
        acknowledged = [("ack", 2)] if following == 3 else []
        assert older.replies() == [*acknowledged, ("err", "replaced"), ("end", None)]
        newer.push_all("c", last=following)
    assert listener.frames(name)[following - 1 :] == ["c"]


def test_three_in_a_row(listener: Listener, name: str) -> None:
    connections = [TextDevice(listener.addresses[0]) for _ in range(4)]
    for following, device in enumerate(connections, 1):
        assert device.log_in(name) == following
        device.push_all(f"{following}", last=following)
    for device in connections[:-1]:
        assert device.last_words() == "replaced"
    for device in connections:
        device.socket.close()
    assert listener.frames(name) == ["1", "2", "3", "4"]


def test_many_at_once_leave_one(listener: Listener, name: str) -> None:
    connections = [TextDevice(listener.addresses[0]) for _ in range(10)]
    for device in connections:
        device.send(device.plain(name))
    outcomes = []
    for device in connections:
        device.send(b"a\n")
        device.close_side()
        outcomes.append(device.replies())
        device.socket.close()
    clean = [replies for replies in outcomes if ("err", "replaced") not in replies]
    assert len(clean) >= 1
    stored = len(listener.frames(name))
    acknowledged = [content for replies in outcomes for kind, content in replies if kind == "ack"]
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= set(range(1, stored + 1))


def test_next_is_true_under_load(listener: Listener, name: str) -> None:
    """The older pushes without a pause while newer ones take over again and again."""
    first = TextDevice(listener.addresses[0])
    first.log_in(name)
    devices = [first]
    for _ in range(10):
        devices[-1].push(*["x" * 200] * 2000)
        newer = TextDevice(listener.addresses[0])
        following = newer.log_in(name)
        assert len(listener.lines(name)) == following - 1
        *acknowledged, error, end = devices[-1].replies()
        assert (error, end) in [
            (("err", "replaced"), ("end", None)),
            (("err", "replaced"), ("reset", None)),
        ]
        if acknowledged:
            assert acknowledged[-1] == ("ack", following - 1)
        devices.append(newer)
    for device in devices:
        device.socket.close()
    listener.frames(name)


def test_the_older_one_does_not_read(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as older, PackedDevice(listener.addresses[0]) as newer:
        older.log_in(name)
        older.push("a")
        assert newer.log_in(name) in (1, 2)


def _disable(listener: Listener, name: str) -> None:
    listener.ingest("device", "disable", name)


def _remove(listener: Listener, name: str) -> None:
    listener.ingest("device", "remove", name)


def _give_new_token(listener: Listener, name: str) -> None:
    listener.ingest("device", "new-token", name)


def test_what_is_revoked_is_looked_for_several_times_a_second() -> None:
    assert OFTEN <= 0.25, "SECURITY.md promises that revoking cuts within a second"


@pytest.mark.parametrize("revoke", [_disable, _remove, _give_new_token])
def test_revoked(
    listener: Listener, name: str, dialect: Dialect, revoke: Callable[[Listener, str], None]
) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.push("a")
        revoke(listener, name)
        assert device.replies() == [("ack", 1), ("err", "revoked"), ("end", None)]
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name))
        assert device.last_words() == "auth-failed"
    assert listener.frames(name) == ["a"]


def test_enabled_again(listener: Listener, name: str) -> None:
    listener.ingest("device", "disable", name)
    listener.ingest("device", "enable", name)
    with TextDevice(listener.addresses[0]) as device:
        assert device.log_in(name) == 1


def test_revoked_while_the_device_sends_all_it_can(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        ended = threading.Event()

        def send() -> None:
            try:
                while not ended.is_set():
                    device.push(*["x" * 10_000] * 10)
            except OSError:  # the listener has closed
                pass

        sender = threading.Thread(target=send)
        sender.start()
        listener.ingest("device", "disable", name)
        replies = device.replies()
        ended.set()
        sender.join()
        *_, (kind, last), error, _ = replies
        assert (kind, error) == ("ack", ("err", "revoked"))
    assert len(listener.frames(name)) == last
