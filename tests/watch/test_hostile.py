"""Devices and visitors who mean no good, and folders that go away: the page stays, and says so."""

import json
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ingest.layout import Layout
from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.processes import TWISTD, run
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.pages import Page, write_log

OURS = {"X-Ingest": "test"}
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("hostile") / "data")
    layout.create()
    return layout


@pytest.fixture(scope="module")
def page(layout: Layout) -> Iterator[Page]:
    with Page(layout.data) as running:
        yield running


def say(page: Page, request: bytes) -> bytes:
    """Send bytes, and return all that is answered before the end of the connection."""
    host, _, port = page.url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def write_frames(layout: Layout, device: str, *values: object) -> None:
    """Append frames of JSON to the log."""
    now = time.time()
    write_log(
        layout,
        (
            (now, device, number, f'"text":{json.dumps(json.dumps(value))}')
            for number, value in enumerate(values, 1)
        ),
    )


# What devices send.


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900 + "1" + "]" * 900,
        '{"a":' * 500 + "1" + "}" * 500,
        "9" * 60_000,
        "a=" * 30_000,
        '{"\\ud800":1}',
        "\u2028=1 \u202e=2 \u0000=3",
        "x" * 60_000 + "=1",
    ],
    ids=["arrays", "maps", "number", "pairs", "surrogate", "steering", "name"],
)
def test_no_frame_ends_the_following(tmp_path: Path, text: str) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    now = time.time()
    with Page(layout.data) as page:
        write_log(layout, iter([(now, "evil", 1, f'"text":{json.dumps(text)}')]))
        write_log(layout, iter([(now, "good", 1, '"text":"temp=1"')]))
        wait_for(lambda: page.device("good")["fields"] == ["temp"], "the curve of another device")
        assert page.get("status")["watcher"]["trouble"] == ""
        fields = page.get("devices/evil/fields")["fields"]
        assert all(len(each["name"]) <= 128 for each in fields)


def test_a_device_with_10000_names_has_so_many_curves(layout: Layout, page: Page) -> None:
    frames = [{f"f{number}": 1 for number in range(begin, begin + 500)} for begin in
              range(0, 10_000, 500)]  # fmt: skip
    write_frames(layout, "many", *frames)
    wait_for(lambda: page.device("many")["next"] == 21, "the frames")
    wait_for(lambda: len(page.device("many")["fields"]) == 200, "the curves")
    status = page.get("status")["watcher"]
    assert status["left_out"] >= 9800
    assert len(page.get("devices/many/fields")["fields"]) == 200


def test_a_field_that_changes_its_type_has_its_numbers(layout: Layout, page: Page) -> None:
    values = [1, "two", None, {"x": 3}, [4], 5.5, 2**63, 1e308]
    write_frames(layout, "fickle", *({"v": value} for value in values))
    wait_for(lambda: page.device("fickle")["next"] == len(values) + 1, "the frames")
    wait_for(lambda: "v" in page.device("fickle")["fields"], "the curve")
    for since in (time.time() - 600, 1.0):  # from memory, and from the log
        asked: dict[str, Any] = {"from": since, "points": 1}
        (curve,) = page.get("series", device="fickle", field="v", **asked)["curves"]
        assert sum(curve["count"]) == 4, since
        assert (min(curve["low"]), max(curve["high"])) == (1.0, 1e308)


@pytest.mark.parametrize("name", ["a.b", "a/b", "a'b", 'a"b', "ä€😀", "a b", "-- x", "a;b", "%41"])
def test_any_name_of_a_field_has_its_curve(layout: Layout, page: Page, name: str) -> None:
    device = f"names-{name.encode().hex()}"
    write_frames(layout, device, {name: 7})
    wait_for(lambda: name in page.device(device)["fields"], "the field")
    for since in (time.time() - 600, 1.0):
        asked: dict[str, Any] = {"from": since, "points": 1}
        (curve,) = page.get("series", device=device, field=name, **asked)["curves"]
        assert sum(curve["count"]) == 1, since


# What visitors send.


@pytest.mark.parametrize(
    "place",
    [
        "null", "[]", "1e999", "[1,2,3]", '["","",-1]', '["","zz",0]', "{" * 5000, "\xff",
        '["","",1e99]', '["../../etc/passwd"]', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_place_that_is_none(page: Page, place: str) -> None:
    answer = say(
        page,
        b"GET /api/tail?last=0 HTTP/1.0\r\nHost: 127.0.0.1\r\nLast-Event-ID: "
        + place.encode("latin-1")
        + b"\r\n\r\n",
    )
    assert not answer or answer.split(b" ")[1] == b"400", answer[:100]


def test_a_place_that_never_was_is_told_and_followed(layout: Layout, page: Page) -> None:
    for place in (
        json.dumps(["", "", 1 << 60]),
        json.dumps(["../../../../etc/passwd", "00", 0]),
        json.dumps(["ingest-99991231T235959.999Z.log", "ff" * 40, 12]),
    ):
        with page.tail(place, device="after-*") as events:
            write_frames(layout, "after-all", "here")
            kind = ""
            while kind != "lines":
                kind, data = events.next()
                if kind == "lines" and not data:
                    kind = ""
            assert "after-all" in data[0]


@pytest.mark.parametrize("name", [b"Host", b"Origin", b"Sec-Fetch-Site", b"Authorization"])
def test_headers_of_any_bytes_are_refused(page: Page, name: bytes) -> None:
    heads = {b"Host": b"127.0.0.1", name: b"\xff\xfe"}
    lines = b"".join(b"%b: %b\r\n" % pair for pair in heads.items())
    answer = say(page, b"POST /api/rotate HTTP/1.0\r\n" + lines + b"\r\n")
    assert answer.split(b" ")[1] == b"403", answer[:100]


@pytest.mark.parametrize(
    "request_line",
    [
        b"PUT /api/rotate", b"DELETE /api/devices/a", b"OPTIONS /api/status", b"TRACE /",
        b"NONSENSE /", b"CONNECT 127.0.0.1:22",
    ],
)  # fmt: skip
def test_unknown_methods_change_nothing(page: Page, request_line: bytes) -> None:
    answer = say(page, request_line + b" HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.split(b" ")[1] == b"403"
    allowed = say(page, request_line + b" HTTP/1.0\r\nHost: 127.0.0.1\r\nX-Ingest: 1\r\n\r\n")
    assert allowed.split(b" ")[1] in (b"404", b"405", b"501"), allowed
    if b" 405 " in allowed.split(b"\r\n")[0] and b"/api/status" in request_line:
        assert b"\r\nAllow: GET, HEAD\r\n" in allowed


def test_head_has_no_body(page: Page) -> None:
    for path in (b"/", b"/api/status", b"/api/devices", b"/api/tail"):
        answer = say(page, b"HEAD " + path + b" HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"200"
        assert body == b""


def test_huge_requests_are_cut_off(page: Page) -> None:
    for request in (
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"\0" * 100_000,
    ):
        answer = say(page, request)
        assert not answer or answer.split(b" ")[1] == b"400", answer[:100]
    assert page.get("status")["time"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"points": "1e9"}, {"points": "nan"}, {"points": "-1"}, {"points": "inf"}, {"from": "nan"},
        {"to": "inf"}, {"from": "x"}, {"from": "9e9"}, {"from": "5", "to": "5"}, {"to": "-1"},
        {"points": "9" * 400},
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense(page: Page, arguments: dict[str, Any]) -> None:
    code, text = page.refusal("api/series", device="a", field="x", **arguments)
    assert code == 400
    assert "is" in text or "must" in text


def test_who_holds_connections_keeps_nobody_out(page: Page) -> None:
    host, _, port = page.url.removeprefix("http://").rstrip("/").partition(":")
    with ExitStack() as stack:
        for number in range(600):
            slow = stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
            slow.sendall(b"GET / HTTP/1.1\r\nX: " if number % 2 else b"")
            if number % 25 == 0:  # before more than the kernel holds for it wait to be accepted
                assert page.get("status")["time"] > 0
        assert page.get("status")["time"] > 0
        descriptors = len(list(Path(f"/proc/{page.pid}/fd").iterdir()))
        assert descriptors < 400


# What becomes of the folder.


def test_a_log_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    with Page(layout.data) as page:
        write_frames(layout, "a", {"v": 1})
        wait_for(lambda: page.device("a")["next"] == 2, "the frame")
        shutil.rmtree(layout.log_folder)
        wait_for(lambda: page.get("status")["watcher"]["trouble"], "the trouble")
        layout.create()
        write_frames(layout, "b", {"v": 1})
        wait_for(lambda: page.device("b")["next"] == 2, "the new log")
        assert page.get("status")["watcher"]["trouble"] == ""


def test_a_page_that_is_there_before_the_listener(tmp_path: Path) -> None:
    with Page(tmp_path / "data") as page:
        assert page.get("status")["health"] == "down"
        with Listener(tmp_path / "data") as listener:
            wait_for(lambda: page.get("status")["health"] == "ok", "the listener")
            listener.add("a")
            with TextDevice(listener.addresses[0]) as device:
                device.log_in("a")
                device.push_all("v=1", last=1)
                wait_for(lambda: page.device("a")["fields"] == ["v"], "its frame")


def test_a_registry_that_is_replaced_or_no_registry(tmp_path: Path) -> None:
    with (
        Listener(tmp_path / "data") as listener,
        Page(listener.data, pauses={"ingest.watch.repeated._REGISTRY": 0.1}) as page,
    ):
        listener.add("a")
        wait_for(lambda: page.get("status")["devices"] == 1, "the registry")
        with Listener(tmp_path / "other") as other:
            other.add("b", "c")
            other.ingest("backup", str(tmp_path / "backup.tar"))
        listener.ingest("restore", str(tmp_path / "backup.tar"))
        wait_for(lambda: page.get("devices", q="c")["total"] == 1, "the other registry")
        listener.layout.devices.write_bytes(b"no database" * 1000)
        wait_for(lambda: page.get("status")["health"] == "registry-failing", "what it says")
        assert page.get("devices", q="c")["total"] == 1, "what was known stays"
        listener.kill()
        page.kill()


def test_two_pages_of_one_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    with Page(layout.data) as first, Page(layout.data) as second:
        for number in range(1, 6):
            write_log(layout, iter([(time.time(), "a", number, '"text":"v=1"')]))
            for each in (first, second):
                wait_for(lambda page=each: page.device("a")["next"] == number + 1, "the frame")  # type: ignore[misc]  # noqa: B023
        for each in (first, second):
            assert each.get("status")["watcher"]["trouble"] == ""


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    ended = run(TWISTD, "-n", "--pidfile=", "ingest-watch", "--data", tmp_path / "data")
    assert ended.returncode == 1
    said = f"ingest-watch: can't start: {tmp_path / 'data'}: Not a directory; check --data"
    assert said in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_restart_in_the_middle_of_rotations(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", "--rotate-size", "4KiB", "--compress", "zstd") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            last = 0
            for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                with Page(listener.data) as page:
                    for _ in range(5):
                        device.push_all(*(f"v={last + each}" for each in range(1, 101)),
                                        last=last + 100)  # fmt: skip
                        last += 100
                    wait_for(lambda: page.device("a")["next"], "a frame")
                    if how == signal.SIGKILL:
                        page.kill()
        with Page(listener.data) as page:
            wait_for(lambda: page.device("a")["next"] == last + 1, "all frames")
            (curve,) = page.get("series", device="a", field="v", points=1)["curves"]
            assert (sum(curve["count"]), max(curve["high"])) == (last, last)
            assert page.get("status")["watcher"]["problems"] == []
