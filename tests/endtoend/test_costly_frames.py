"""Devices whose frames cost much wait for their own cost, and keep nobody else waiting."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.devices import PackedDevice, TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

COSTLY = 50

_NESTED = b"\x81\xa1k" * 62 + b"\xc0"
_COUNT = 65_000 // len(_NESTED)
FRAME: bytes = b"\xdc" + (_COUNT + 1).to_bytes(2, "big") + _NESTED * _COUNT + b"\xc4\x01x"
"""Maps nested 62 deep, and one bin, so that all of them take the way through Python."""


@contextmanager
def flood(sockets: list[socket.socket]) -> Iterator[None]:
    """Send costly frames on all connections, as fast as they are taken, while the block lasts."""
    stop = threading.Event()
    sender = threading.Thread(target=_send, args=(sockets, stop))
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


def _send(sockets: list[socket.socket], stop: threading.Event) -> None:
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_WRITE, [0])
        while not stop.is_set():
            for key, _ in selector.select(0.05):
                sent = key.data
                sent[0] += key.fileobj.send(FRAME[sent[0] % len(FRAME) :])  # type: ignore[union-attr]


def test_fifty_devices_with_costly_frames_and_an_honest_one(listener: Listener) -> None:
    names = [f"costly-{number}" for number in range(COSTLY)]
    listener.add(*names, "honest")
    costly = [PackedDevice(listener.addresses[0]) for _ in names]
    for device, name in zip(costly, names, strict=True):
        device.log_in(name, ack="none")
    with TextDevice(listener.addresses[0]) as honest, flood([each.socket for each in costly]):
        honest.log_in("honest")
        wait_for(lambda: _frames_of(listener, "costly-"), "the first costly frame")
        before = _frames_of(listener, "costly-")
        seq = 0
        while _frames_of(listener, "costly-") < before + COSTLY:
            seq += 1
            honest.push_all("reading", last=seq)
        # In turn with all others, it would have had one acknowledgement for each fifty frames.
        assert seq > COSTLY / 5
    for device in costly:
        device.socket.close()
    assert listener.frames("honest") == ["reading"] * seq


def _frames_of(listener: Listener, prefix: str) -> int:
    return sum(
        path.read_bytes().count(b'"device":"' + prefix.encode())
        for path in listener.files()
        if path.exists()
    )
