"""Input that no device should send: it gets its error code, and nobody else notices."""

import pytest

from tests.support.devices import TOKEN, Device, PackedDevice, TextDevice, pack
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

Dialect = type[Device]

pytestmark = pytest.mark.usefixtures("bystander")

TOO_LONG = 65537

BAD_TEXT = {
    "a line over max_frame": (b"x" * TOO_LONG + b"\nlost\n", "frame-too-long"),
    "a line over max_frame whose LF never comes": (b"x" * TOO_LONG, "frame-too-long"),
    "a very long line": (b"x" * (1 << 20), "frame-too-long"),
}
BAD_OBJECTS = {
    "0xc1": (b"\xc1", "bad-frame"),
    "0xc1 within": (b"\x92\x01\xc1", "bad-frame"),
    "nested 10,000 deep": (b"\x91" * 10_000 + b"\xc0", "bad-frame"),
    "nested 65 deep": (b"\x91" * 65 + b"\xc0", "bad-frame"),
    "maps nested 65 deep": (b"\x81\xa1k" * 65 + b"\xc0", "bad-frame"),
    "4 GiB of str": (b"\xdb\xff\xff\xff\xff", "frame-too-long"),
    "4 GiB of bin": (b"\xc6\xff\xff\xff\xffabc", "frame-too-long"),
    "4 GiB of ext": (b"\xc9\xff\xff\xff\xff\x05", "frame-too-long"),
    "an array of 4 Gi items": (b"\xdd\xff\xff\xff\xff", "frame-too-long"),
    "a map of 4 Gi items": (b"\xdf\xff\xff\xff\xff", "frame-too-long"),
    "arrays of 60,000 items in one another": (
        b"\xdc\xea\x60" * 60 + b"\xc0" * TOO_LONG,
        "frame-too-long",
    ),
    "a str of one byte too many": (pack("x" * (TOO_LONG - 3)), "frame-too-long"),
    "a str of twice as many": (pack("x" * (2 * TOO_LONG)), "frame-too-long"),
    "a timestamp of 5 bytes": (b"\xc7\x05\xff\0\0\0\0\0", "bad-frame"),
    "a timestamp of 10^9 nanoseconds": (
        b"\xd7\xff\xff\xff\xff\xfc\0\0\0\0",
        "bad-frame",
    ),
}


def refused(listener: Listener, device: Device, name: str, bad: bytes, code: str) -> None:
    """Check that `bad` is refused, and that what came before it counts."""
    following = device.log_in(name)
    device.push_all("before", last=following)
    device.send(device.frame("with it"), bad)
    assert device.replies() == [("ack", following + 1), ("err", code), ("end", None)]
    assert listener.frames(name)[following - 1 :] == ["before", "with it"]


@pytest.mark.parametrize("what", BAD_TEXT)
def test_bad_text(listener: Listener, name: str, what: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        refused(listener, device, name, *BAD_TEXT[what])


@pytest.mark.parametrize("what", BAD_OBJECTS)
def test_bad_objects(listener: Listener, name: str, what: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        refused(listener, device, name, *BAD_OBJECTS[what])


def test_frames_of_exactly_max_frame(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all("x" * 65536, last=1)
    with PackedDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all("x" * 65533, last=2)  # and a header of 3 bytes
    assert [len(text) for text in listener.frames(name)] == [65536, 65533]


def test_text_that_is_not_utf8_and_nul_bytes_are_frames(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(b"\xff\xfe\n\0\0\n\xc0\n")
        device.wait_for_ack(3)
    assert listener.frames(name) == ["//4=", "\0\0", "wA=="]


def test_the_other_dialect_is_no_way_back(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(pack({"auth": "PLAIN", "data": b""}) + b"\n")
        device.wait_for_ack(1)
    (line,) = listener.lines(name)
    assert '"raw":' in line or '"text":' in line


def test_a_reset_in_the_middle_of_a_frame(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(device.frame("whole"), device.frame("cut")[:-1])
        device.wait_for_ack(1)
        device.reset()
    with dialect(listener.addresses[0]) as device:
        assert device.log_in(name) == 2
    assert listener.frames(name) == ["whole"]


def test_a_reset_before_the_acknowledgement(
    listener: Listener, name: str, dialect: Dialect
) -> None:
    for _ in range(20):
        with dialect(listener.addresses[0]) as device:
            device.log_in(name)
            device.push(*["x"] * 10)
            device.reset()
    with dialect(listener.addresses[0]) as device:
        following = device.log_in(name)
        device.push_all("last", last=following)
    assert len(listener.frames(name)) == following


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "x" * 1000, "ü\x00y", "\udcff"])
def test_wrong_tokens(listener: Listener, name: str, dialect: Dialect, token: str) -> None:
    with dialect(listener.addresses[0]) as device:
        response = f"\0{name}\0".encode() + token.encode("utf-8", "surrogateescape")
        device.send(device.auth("PLAIN", response), device.frame("lost"))
        assert device.last_words() in ("auth-failed", "bad-frame")
    assert listener.frames(name) == []


@pytest.mark.parametrize("claimed", ["", "../etc", 'a"b', "a b", "x" * 129, "ü", "%s", "{host}"])
def test_names_that_no_device_has(listener: Listener, dialect: Dialect, claimed: str) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(claimed))
        assert device.last_words() == "auth-failed"


def test_memory_does_not_grow(listener: Listener, name: str) -> None:
    def round_of_bad_input() -> None:
        for bad, code in BAD_TEXT.values():
            with TextDevice(listener.addresses[0]) as device:
                device.log_in(name)
                device.send(bad)
                assert device.last_words() == code
        for bad, code in BAD_OBJECTS.values():
            with PackedDevice(listener.addresses[0]) as packed:
                packed.log_in(name)
                packed.send(bad)
                assert packed.last_words() == code
        with TextDevice(listener.addresses[0]) as device:
            device.log_in(name)
            device.send(b"x" * 60_000)
            device.reset()

    for _ in range(5):
        round_of_bad_input()
    before = listener.resident
    for _ in range(20):
        round_of_bad_input()
    # 380 refused connections later: not as much as 10 kB of each is left.
    assert listener.resident - before < 4 << 20


def test_many_announcements_reserve_nothing(listener: Listener) -> None:
    names = [f"liar-{number}" for number in range(200)]
    listener.add(*names)
    devices = [PackedDevice(listener.addresses[0]) for _ in names]
    for device, name in zip(devices, names, strict=True):
        device.log_in(name)
    before = listener.resident
    for device in devices:
        device.send(b"\xda\xff\x00abc", b"\xdc\x0f\xff\x01")
    wait_for(
        lambda: listener.status()["total"]["received_bytes"] >= 200 * 10, "all of the announcements"
    )
    # 200 announcements of 64 KB would be 13 MB.
    assert listener.resident - before < 6 << 20
    for device in devices:
        device.socket.close()
