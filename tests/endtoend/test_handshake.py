"""How a device proves who it is; see "The handshake" in ingest/PROTOCOL.md."""

import re
from base64 import b64encode

import pytest
from scramp import ScramException

from ingest.ops.control import ask
from tests.support.devices import TIME, TOKEN, Device, PackedDevice, TextDevice, pack
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

Dialect = type[Device]


def test_plain(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name))
        assert device.reply() == ("ok", {"device": name, "next": 1, "max_frame": 65536})
        device.push_all("a", "b", last=2)
    assert listener.frames(name) == ["a", "b"]


def test_plain_to_the_byte(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.send(b"AUTH PLAIN ", b64encode(f"\0{name}\0{TOKEN}".encode()), b"\r\n")
        line = device.socket.recv(1000).decode()
    ok = rf"OK device={name} next=1 max_frame=65536 time={TIME}\n"
    assert re.fullmatch(ok, line), line


def test_scram(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        client = device.begin_scram(name)
        device.send(device.response(client.get_client_final().encode()))
        kind, pairs = device.reply()
        assert kind == "ok"
        client.set_server_final(pairs.pop("data").decode())  # raises if the listener can't know
        assert pairs == {"device": name, "next": 1, "max_frame": 65536}
        device.push_all("a", last=1)
    assert listener.frames(name) == ["a"]


def test_scram_with_a_wrong_token(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        client = device.begin_scram(name, "wrong")
        device.send(device.response(client.get_client_final().encode()), device.frame("lost"))
        assert device.last_words() == "auth-failed"
    assert listener.frames(name) == []


def test_a_device_that_is_refused_is_named(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        client = device.begin_scram(name, "wrong")
        device.send(device.response(client.get_client_final().encode()))
        assert device.last_words() == "auth-failed"
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name, token="wrong"))
        assert device.last_words() == "auth-failed"
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain("stranger", token="wrong"))
        assert device.last_words() == "auth-failed"
    devices = listener.status()["devices"]
    assert devices[name]["refusals"] == {"auth-failed": 2}
    assert devices[name]["received_frames"] == 0
    assert "stranger" not in devices
    newest = {each["device"]: each["kind"] for each in ask(listener.layout.control, "incidents")}
    assert newest[name] == newest["stranger"] == "auth-failed"


def test_scram_of_an_unknown_device_fails_as_late_as_a_wrong_token(
    listener: Listener, dialect: Dialect
) -> None:
    with dialect(listener.addresses[0]) as device:
        client = device.begin_scram("nobody")
        device.send(device.response(client.get_client_final().encode()))
        assert device.last_words() == "auth-failed"


def test_an_unknown_device_has_the_same_salt_each_time(listener: Listener) -> None:
    salts = []
    for _ in range(2):
        with TextDevice(listener.addresses[0]) as device:
            salts.append(device.begin_scram("nobody").salt)
    assert salts[0] == salts[1]


def test_the_listener_proves_itself_in_scram(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        client = device.begin_scram(name)
        device.send(device.response(client.get_client_final().encode()))
        _, pairs = device.reply()
        proof = pairs["data"].decode()
    with pytest.raises(ScramException):
        client.set_server_final(proof[:-4] + "AAA=")


def test_scram_with_all_sent_ahead(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        client = device.begin_scram(name)
        device.send(device.response(client.get_client_final().encode()), device.frame("ahead"))
        assert device.reply()[0] == "ok"
        device.wait_for_ack(1)
    assert listener.frames(name) == ["ahead"]


def test_frames_sent_ahead_of_plain(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name), device.frame("a"), device.frame("b"))
        assert device.reply()[0] == "ok"
        device.wait_for_ack(2)
    assert listener.frames(name) == ["a", "b"]


def test_frames_sent_ahead_and_then_closed(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name), device.frame("a"), device.frame("b"))
        device.close_side()
        assert device.replies() == [
            ("ok", {"device": name, "next": 1, "max_frame": 65536}), ("ack", 2), ("end", None)
        ]  # fmt: skip
    assert listener.frames(name) == ["a", "b"]


def test_frames_sent_ahead_of_a_full_close(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name), device.frame("a"), device.frame("b"))
    wait_for(lambda: len(listener.lines(name)) == 2, "frames of a device that is gone")


def test_more_sent_ahead_than_one_read_takes(
    listener: Listener, name: str, dialect: Dialect
) -> None:
    texts = [f"{number:06d}" for number in range(30_000)]
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name), *map(device.frame, texts))
        assert device.reply()[0] == "ok"
        device.wait_for_ack(len(texts))
    assert listener.frames(name) == texts


def test_frames_sent_ahead_with_a_wrong_token(
    listener: Listener, name: str, dialect: Dialect
) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(name, "wrong"), device.frame("a"), device.frame("b"))
        assert device.replies() == [("err", "auth-failed"), ("end", None)]
    assert listener.frames(name) == []


def test_a_handshake_byte_by_byte(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        for byte in device.plain(name) + device.frame("a"):
            device.send(bytes([byte]))
        assert device.reply()[0] == "ok"
        device.wait_for_ack(1)


@pytest.mark.parametrize("ack", ["durable", "none"])
def test_the_option_ack(listener: Listener, name: str, dialect: Dialect, ack: str) -> None:
    with dialect(listener.addresses[0]) as device:
        assert device.log_in(name, ack) == 1
        device.push("a", "b")
        device.close_side()
        acknowledgements = [] if ack == "none" else [("ack", 2)]
        assert device.replies()[-2:] == [*acknowledgements, ("end", None)]
    assert listener.frames(name) == ["a", "b"]


@pytest.mark.parametrize("failure", ["unknown", "wrong", "disabled"])
def test_one_answer_for_all_failures(
    listener: Listener, name: str, dialect: Dialect, failure: str
) -> None:
    if failure == "disabled":
        listener.ingest("device", "disable", name)
    claimed = "nobody" if failure == "unknown" else name
    with dialect(listener.addresses[0]) as device:
        device.send(device.plain(claimed, "wrong" if failure == "wrong" else TOKEN))
        assert device.last_words() == "auth-failed"
    with TextDevice(listener.addresses[0]) as text_device:
        text_device.send(text_device.plain(claimed, "wrong" if failure == "wrong" else TOKEN))
        line = text_device.socket.recv(1000)
    assert line == b"ERR auth-failed unknown device, wrong token or device disabled\n"


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "CRAM-MD5", "SCRAM-SHA-256-PLUS", "plain"])
def test_other_mechanisms(listener: Listener, dialect: Dialect, mechanism: str) -> None:
    with dialect(listener.addresses[0]) as device:
        device.send(device.auth(mechanism, b""))
        assert device.last_words() == "mechanism-unsupported"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"\n", "bad-frame"),
        (b"hello\n", "auth-required"),
        (b"   \n", "auth-required"),
        (b"AUTH\n", "bad-frame"),
        (b"AUTH PLAIN\n", "bad-frame"),
        (b"AUTH PLAIN !!!!\n", "bad-frame"),
        (b"AUTH PLAIN AAA\n", "bad-frame"),
        (b"AUTH PLAIN AGEAYg== ack=perhaps\n", "bad-frame"),
        (b"AUTH SCRAM-SHA-256 AGEAYg==\n", "bad-frame"),
        (b"AUTH PLAIN " + b"A" * 4096, "frame-too-long"),
        (b"A" * 5000, "frame-too-long"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "auth-required"),
        (b"\x00", "bad-frame"),
        (b"\x7f", "bad-frame"),
        (b"\xa0", "bad-frame"),
        (b"\xc0", "bad-frame"),
        (b"\xe0", "bad-frame"),
        (b"\xff\xfe", "bad-frame"),
        (b"\x16\x03\x01\x02\x00", "bad-frame"),
    ],
)  # fmt: skip
def test_first_bytes_that_are_no_handshake(listener: Listener, first: bytes, code: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.send(first)
        assert device.last_words() == code


def test_http_gets_an_answer_that_a_person_can_read(listener: Listener) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" in device.socket.recv(1000)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (pack({}), "auth-required"),
        (pack([]), "auth-required"),
        (pack(["auth", "PLAIN"]), "auth-required"),
        (pack({"data": b""}), "auth-required"),
        (pack({"auth": "PLAIN"}), "bad-frame"),
        (pack({"auth": "PLAIN", "data": 1}), "bad-frame"),
        (pack({"auth": 1, "data": b""}), "bad-frame"),
        (pack({"auth": "PLAIN", "data": b"", "ack": "perhaps"}), "bad-frame"),
        (b"\x82\xc1", "bad-frame"),
        (b"\x91" * 100, "bad-frame"),
        (b"\x81\xa4auth\xdb\xff\xff\xff\xff", "frame-too-long"),
        (b"\xdf\xff\xff\xff\xff", "frame-too-long"),
        (b"\xdd\xff\xff\xff\xff", "frame-too-long"),
        (b"\xdc\x00\x00", "auth-required"),
        (b"\xde\x00\x00", "auth-required"),
    ],
)
def test_first_objects_that_are_no_handshake(listener: Listener, first: bytes, code: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        device.send(first)
        assert device.last_words() == code


def test_a_text_response_in_msgpack_may_be_str(listener: Listener, name: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        device.send(pack({"auth": "PLAIN", "data": f"\0{name}\0{TOKEN}"}))
        assert device.reply()[0] == "ok"


def test_the_authorization_identity(listener: Listener, name: str) -> None:
    for identity, kind in ((name, "ok"), ("another", "err")):
        with TextDevice(listener.addresses[0]) as device:
            device.send(device.auth("PLAIN", f"{identity}\0{name}\0{TOKEN}".encode()))
            assert device.reply()[0] == kind


def test_silence_and_a_close_need_no_answer(listener: Listener) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.close_side()
        assert device.replies() == [("end", None)]
