"""What becomes of frames; see "Frames" to "What is stored" in ingest/PROTOCOL.md."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.devices import Device, PackedDevice, TextDevice, pack
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

Dialect = type[Device]

_RECORD = re.compile(
    r'\{"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)","device":"([^"]+)","seq":(\d+),(.*)\}'
)


def test_the_record_to_the_byte(listener: Listener, name: str, dialect: Dialect) -> None:
    before = datetime.now(UTC)
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.push_all("temp=20.5", 'quo"te \\ \t ü', last=2)
    after = datetime.now(UTC)
    lines = listener.lines(name)
    matches = [_RECORD.fullmatch(line) for line in lines]
    assert [match and match.groups()[1:] for match in matches] == [
        (name, "1", f'"{dialect.field}":"temp=20.5"'),
        (name, "2", rf'"{dialect.field}":"quo\"te \\ \t ü"'),
    ]
    for match in matches:
        assert match is not None
        assert before <= datetime.fromisoformat(match[1]) <= after + timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"temp=20.5\r\n", '"text":"temp=20.5"'),
        (b"temp=20.5\r\r\n", '"text":"temp=20.5\\r"'),
        (b" \n", '"text":" "'),
        (b"nul \0 nul\n", '"text":"nul \\u0000 nul"'),
        (b"\xff\x00\xfe\n", '"raw":"/wD+"'),
        (b"\xff\r\n", '"raw":"/w=="'),
        ("20 °\n".encode(), '"text":"20 °"'),
        (b"\xed\xa0\x80\n", '"raw":"7aCA"'),
        (b'{"json":"is text"}\n', '"text":"{\\"json\\":\\"is text\\"}"'),
        (b"AUTH PLAIN AAAA\n", '"text":"AUTH PLAIN AAAA"'),
        (b"\x81\xa1a\x01\n", '"raw":"gaFhAQ=="'),
        (b"\x7f\n", '"text":"\\u007f"'),
        ("\u2028\n".encode(), '"text":"\\u2028"'),
        (b"x" * 65536 + b"\n", f'"text":"{"x" * 65536}"'),
        (b"x" * 65536 + b"\r\n", f'"text":"{"x" * 65536}"'),
    ],
)
def test_a_line_of_text(listener: Listener, name: str, line: bytes, field: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(line)
        device.wait_for_ack(1)
    files = b"".join(path.read_bytes() for path in listener.files())
    (record,) = [each for each in files.split(b"\n") if f'"device":"{name}"'.encode() in each]
    assert record.decode().partition('"seq":1,')[2] == field + "}"


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        ("c3", "true"),
        ("c2", "false"),
        ("00", "0"),
        ("ff", "-1"),
        ("cfffffffffffffffff", "18446744073709551615"),
        ("d38000000000000000", "-9223372036854775808"),
        ("cb4034800000000000", "20.5"),
        ("ca3f000000", "0.5"),
        ("cb8000000000000000", "-0.0"),
        ("a0", '""'),
        ("a53230 20c2b0", '"20 °"'),
        ("d9036f6c64", '"old"'),
        ("90", "[]"),
        ("9301c0cb8000000000000000", "[1,null,-0.0]"),
        ("80", "{}"),
        ("81a474656d70cb4034800000000000", '{"temp":20.5}'),
        ("82a16101a162 9102", '{"a":1,"b":[2]}'),
        ("81a16181a16281a163c0", '{"a":{"b":{"c":null}}}'),
        ("c403ff00fe", '{"$binary":"/wD+"}'),
        ("c400", '{"$binary":""}'),
        ("a2c328", '{"$binary":"wyg="}'),
        ("91a2c328", '[{"$binary":"wyg="}]'),
        ("cb7ff8000000000000", '{"$number":"NaN"}'),
        ("cb7ff0000000000000", '{"$number":"Infinity"}'),
        ("caff800000", '{"$number":"-Infinity"}'),
        ("81a178cb7ff8000000000000", '{"x":{"$number":"NaN"}}'),
        ("d6ff6b02d454", '{"$date":"2026-11-22T11:39:00Z"}'),
        ("d7ff773594006b02d454", '{"$date":"2026-11-22T11:39:00.500000000Z"}'),
        ("c70cff00000001ffffffffffffffff", '{"$date":"1969-12-31T23:59:59.000000001Z"}'),
        ("d40501", '{"$ext":[5,"AQ=="]}'),
        ("c70005", '{"$ext":[5,""]}'),
        ("d4fe01", '{"$ext":[-2,"AQ=="]}'),
        ("8101a161", '{"$map":[[1,"a"]]}'),
        ("82a16101c002", '{"$map":[["a",1],[null,2]]}'),
        ("81c40161 01", '{"$map":[[{"$binary":"YQ=="},1]]}'),
        ("819101 02", '{"$map":[[[1],2]]}'),
        ("81a52464617465 01", '{"$map":[["$date",1]]}'),
        ("81a124 01", '{"$map":[["$",1]]}'),
        ("82a22461 01a16202", '{"$a":1,"b":2}'),
        ("91" * 63 + "90", "[" * 64 + "]" * 64),
    ],
)
def test_a_msgpack_object(listener: Listener, name: str, frame: str, data: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(bytes.fromhex(frame))
        device.wait_for_ack(1)
    (record,) = listener.lines(name)
    assert record.partition('"seq":1,')[2] == f'"data":{data}}}'


def test_keep_alives_are_no_frames(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        keep_alive = device.keep_alive
        device.send(keep_alive, keep_alive, device.frame("a"), keep_alive, device.frame("b"))
        device.send(keep_alive)
        device.wait_for_ack(2)
        device.close_side()
        assert device.replies() == [("end", None)]
    assert listener.frames(name) == ["a", "b"]


def test_an_empty_line_with_cr_is_a_keep_alive(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(b"\r\n\r\na\r\n")
        device.wait_for_ack(1)
    assert listener.frames(name) == ["a"]


def test_frames_cut_anywhere(listener: Listener, name: str, dialect: Dialect) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        for byte in device.frame("temp=20.5") + device.frame("temp=20.6"):
            device.send(bytes([byte]))
        device.wait_for_ack(2)
    assert listener.frames(name) == ["temp=20.5", "temp=20.6"]


def test_next_goes_on_across_connections(listener: Listener, name: str) -> None:
    dialects: list[Dialect] = [TextDevice, PackedDevice, TextDevice]
    for following, dialect in zip((1, 3, 5), dialects, strict=True):
        with dialect(listener.addresses[0]) as device:
            assert device.log_in(name) == following
            device.push_all("a", "b", last=following + 1)
    assert listener.frames(name) == ["a", "b"] * 3


def test_next_counts_what_was_not_acknowledged(
    listener: Listener, name: str, dialect: Dialect
) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name, ack="none")
        device.push("a", "b", "c")
        wait_for(lambda: len(listener.lines(name)) == 3, "the frames")
        device.reset()
    with dialect(listener.addresses[0]) as device:
        assert device.log_in(name) == 4
        device.push_all("d", last=4)
    assert listener.frames(name) == ["a", "b", "c", "d"]


def test_acknowledgements_rise_to_the_last(listener: Listener, name: str, dialect: Dialect) -> None:
    texts = [f"{number:06d}" for number in range(20_000)]
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        for start in range(0, len(texts), 100):
            device.push(*texts[start : start + 100])
        device.wait_for_ack(len(texts))
        device.close_side()
        assert device.replies() == [("end", None)]
    assert listener.frames(name) == texts


def test_a_closed_side_gets_the_last_acknowledgement(
    listener: Listener, name: str, dialect: Dialect
) -> None:
    with dialect(listener.addresses[0]) as device:
        device.log_in(name)
        device.push(*["x" * 1000] * 5000)
        device.close_side()
        *_, last, end = device.replies()
        assert (last, end) == (("ack", 5000), ("end", None))
    assert len(listener.frames(name)) == 5000


def test_a_last_line_without_lf(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(b"whole\nlast")
        device.close_side()
        assert device.replies()[-2:] == [("ack", 2), ("end", None)]
    assert listener.frames(name) == ["whole", "last"]


def test_a_last_line_without_lf_before_a_full_close(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name, ack="none")
        device.send(b"whole\nlast")
    wait_for(lambda: len(listener.lines(name)) == 2, "both lines")
    assert listener.frames(name) == ["whole", "last"]


def test_a_last_line_without_lf_before_a_reset(listener: Listener, name: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(b"whole\nlast")
        device.wait_for_ack(1)
        device.reset()
    with TextDevice(listener.addresses[0]) as device:
        assert device.log_in(name) == 2
        device.push_all("after", last=2)
    assert listener.frames(name) == ["whole", "after"]


def test_an_object_that_a_reset_cuts(listener: Listener, name: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(pack("whole"), pack("cut")[:-1])
        device.wait_for_ack(1)
        device.reset()
    with PackedDevice(listener.addresses[0]) as device:
        assert device.log_in(name) == 2
        device.push_all("after", last=2)
    assert listener.frames(name) == ["whole", "after"]


def test_an_object_that_a_close_cuts(listener: Listener, name: str) -> None:
    with PackedDevice(listener.addresses[0]) as device:
        device.log_in(name)
        device.send(pack("whole"), pack("cut")[:-1])
        device.close_side()
        assert device.replies() == [("ack", 1), ("err", "bad-frame"), ("end", None)]
    assert listener.frames(name) == ["whole"]


def test_devices_side_by_side(listener: Listener) -> None:
    names = [f"side-{number}" for number in range(20)]
    listener.add(*names)
    dialects: list[Dialect] = [TextDevice, PackedDevice]
    devices = [dialects[number % 2](listener.addresses[0]) for number in range(len(names))]
    for device, name in zip(devices, names, strict=True):
        device.log_in(name)
    for turn in range(50):
        for device, name in zip(devices, names, strict=True):
            device.push(f"{name} {turn}")
    for device, name in zip(devices, names, strict=True):
        device.wait_for_ack(50)
        device.socket.close()
        assert listener.frames(name) == [f"{name} {turn}" for turn in range(50)]


def test_every_line_of_the_log_is_json(listener: Listener) -> None:
    for path in listener.files():
        content = path.read_text()
        assert content.endswith("\n") or not content
        for line in content.split("\n")[:-1]:
            assert list(json.loads(line))[:3] == ["time", "device", "seq"]
