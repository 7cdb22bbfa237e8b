"""The page's process as programs see it: real processes, real sockets."""

import base64
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import ingest.watch
from ingest.bench.certificate import make_certificate
from ingest.layout import Layout
from ingest.ops.control import ask
from ingest.watch.auth import password_line
from tests.support.devices import Device, TextDevice
from tests.support.listeners import Listener
from tests.support.processes import TWISTD
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.pages import Page, write_log

OURS = {"X-Ingest": "test"}


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    with Listener(tmp_path_factory.mktemp("page") / "data") as running:
        running.add("a", "b", "c")
        yield running


@pytest.fixture(scope="module")
def page(listener: Listener) -> Iterator[Page]:
    with Page(listener.data) as running:
        yield running


def push(listener: Listener, name: str, *frames: str) -> Device:
    """Push frames and wait until they are on disk."""
    device = TextDevice(listener.addresses[0])
    following = device.log_in(name)
    device.send(*(device.frame(frame) for frame in frames))
    acknowledged = 0
    while acknowledged < following + len(frames) - 1:
        kind, acknowledged = device.reply()
        assert kind == "ack", (kind, acknowledged)
    return device


def row(page: Page, name: str) -> Any:
    rows = wait_for(lambda: page.get("devices", q=name)["rows"], f"the row of {name}")
    return rows[0]


def test_a_device_from_its_frame_to_its_curve(listener: Listener, page: Page) -> None:
    with push(listener, "a", "temp=20.5 door=open", "temp=21.5"):
        wait_for(lambda: page.connected() == 1, "the device")
        wait_for(lambda: page.device("a")["next"] == 3, "its frames")
        found = page.device("a")
        assert (found["why"], found["connection"]["phase"]) == ("", "open")
        assert page.get("devices/a/fields")["fields"][0]["name"] == "temp"
        (curve,) = page.get("series", device="a", field="temp", points=3600)["curves"]
        assert curve["source"] == "memory"
        assert (min(curve["low"]), max(curve["high"]), sum(curve["count"])) == (20.5, 21.5, 2)
        wait_for(lambda: page.get("status")["states"]["online"] == 1, "the count")
        assert page.get("status")["health"] == "ok"
        assert len(page.get("traffic")["frames"]) == 360
    wait_for(lambda: page.device("a")["state"] == "silent", "the end of its connection")
    assert "It is not connected" in page.device("a")["why"]


def test_the_listener_is_asked_for_no_devices_books(listener: Listener, page: Page) -> None:
    with push(listener, "a", "temp=1"):
        summary = ask(listener.layout.control, "summary")
        assert listener.status().keys() - summary.keys() == {"devices"}
        wait_for(lambda: page.get("status")["listener"], "the listener")
        assert page.get("status")["listener"].keys() == summary.keys()


def test_every_answer_has_the_headers_that_keep_others_out(page: Page) -> None:
    for path in ("", "app.js", "style.css", "api/status", "api/devices"):
        headers, body = page.fetch(path)
        assert body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers


def test_no_file_of_the_page_names_another_host_or_writes_markup() -> None:
    folder = Path(ingest.watch.__file__).parent / "page"
    files = [file for file in folder.iterdir() if file.suffix in (".html", ".js", ".css")]
    assert len(files) > 10
    for file in files:
        text = file.read_text()
        for never in ("http:", "https:", 'href="/', 'src="/', "innerHTML", "insertAdjacentHTML"):
            assert never not in text, file


@pytest.mark.parametrize(
    ("path", "arguments", "says"),
    [
        ("devices", {"sort": "x"}, "sort is one of"),
        ("devices", {"state": "x"}, "state is one of"),
        ("devices", {"page": "0"}, "page is from 1"),
        ("devices", {"page": "nan"}, "page is from 1"),
        ("series", {"device": "a"}, "in pairs"),
        ("series", {"device": "a/b", "field": "x"}, "no name of a device"),
        ("series", {"device": "a", "field": "x", "from": "2", "to": "1"}, "from must be before"),
        ("series", {"device": "a", "field": "x", "format": "exe"}, "format is"),
        ("series", {"device": "a", "field": "x", "points": "1e9"}, "points is from"),
        ("tail", {"after": "x"}, "no place in a log"),
    ],
)
def test_what_makes_no_sense_is_said(
    page: Page, path: str, arguments: dict[str, Any], says: str
) -> None:
    code, text = page.refusal(f"api/{path}", **arguments)
    assert code == 400
    assert says in text


def test_who_is_not_asked_for_gets_nothing(page: Page) -> None:
    assert page.refusal("api/devices/nope") == (404, "No device 'nope' is known.")
    for path in (
        *("nope", "api", "api/", "api/nope", "api/query/nope"),
        *("api/devices/a/b", "api/devices/a/fields/x"),
    ):
        assert page.refusal(path) == (404, "there is nothing at this address; see API.md"), path
    assert page.refusal("", method="POST", headers=OURS)[0] == 405
    assert page.refusal("api/status", method="POST", headers=OURS)[0] == 405
    assert "the header X-Ingest" in page.refusal("api/query", method="POST")[1]
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::", "", "["):
        code, text = page.refusal("api/status", headers={"Host": host})
        assert code == 403
        assert "not called by that name" in text
    for host in ("localhost", "LOCALHOST:7681", "127.0.0.1:1", "[::1]:7681", "[::1]"):
        assert page.get("status", {"Host": host})["role"] == "operate"


def test_only_the_page_itself_changes_anything(listener: Listener, page: Page) -> None:
    for headers in (
        {},
        {"X-Ingest": "1", "Origin": "http://evil.example"},
        {"X-Ingest": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-Ingest": "1", "Sec-Fetch-Site": "same-site"},
        {"Origin": page.url.rstrip("/")},
    ):
        assert page.refusal("api/rotate", headers=headers, method="POST")[0] == 403, headers
    code, text = page.refusal(
        "api/rotate", headers={**OURS, "Origin": page.url.rstrip("/")}, method="POST"
    )
    assert code == 200
    assert "closed" in text


def test_a_tail_is_resumed_where_it_ended(listener: Listener, page: Page) -> None:
    with push(listener, "b", "one", "two"):
        pass
    with page.tail(device="b", last=1) as events:
        (line,) = events.lines(1)
        assert '"text":"two"' in line
    with push(listener, "b", "three"), push(listener, "c", "not wanted"):
        pass
    listener.ingest("rotate")
    with push(listener, "b", "four"):
        pass
    with page.tail(events.last_id, device="b") as resumed:
        assert [each.split('"text":')[1] for each in resumed.lines(2)] == ['"three"}', '"four"}']
    with page.tail(device="b", after=events.last_id, grep='o"') as found:
        with push(listener, "b", "no", "yes"):
            pass
        assert len(found.lines(1)) == 1


def test_curves_are_files_too(listener: Listener, page: Page, tmp_path: Path) -> None:
    begun = time.time()
    with push(listener, "c", "x=1", "x=3"):
        wait_for(lambda: "x" in page.device("c")["fields"], "the field")
    asked: dict[str, Any] = {
        "device": ["c"],
        "field": ["x"],
        "from": time.time() - 7200,
        "points": 1,
    }
    headers, content = page.fetch("api/series", **asked, format="csv")
    assert headers["Content-Type"].startswith("text/csv")
    assert content.splitlines()[1].endswith(b",1,3,2,2")
    (tmp_path / "x.parquet").write_bytes(page.fetch("api/series", **asked, format="parquet")[1])
    (found,) = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert (found["device"], found["low"], found["high"], found["count"]) == ("c", 1.0, 3.0, 2)
    assert page.fetch("api/series", **asked, format="png")[1].startswith(b"\x89PNG")
    with push(listener, "c", "y=1.7e308", "y=-1.7e308"):  # whose span is no number
        wait_for(lambda: "y" in page.device("c")["fields"], "the field")
    huge = {**asked, "field": ["y"]}
    assert page.fetch("api/series", **huge, format="png")[1].startswith(b"\x89PNG")
    near = {**asked, "from": begun - 10, "points": 3000}
    for fine, source in (("0", "memory"), ("1", "log")):
        (curve,) = page.get("series", **near, fine=fine)["curves"]
        assert (curve["source"], sum(curve["count"])) == (source, 2)
    assert page.refusal("api/series", device="c", field="x", fine="2")[0] == 400


def test_older_readings_come_from_the_files(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    begin = int(time.time()) - 5 * 3600
    values = {
        "msgpack": '"data":{"temp":%d,"deep":{"er":%d},"time":%d}',
        "json": '"text":"{\\"temp\\":%d,\\"deep\\":{\\"er\\":%d},\\"time\\":%d}"',
        "pairs": '"text":"temp=%d deep.er=%d time=%d"',
        "influx": '"text":"weather,deep=%d temp=%d,deep.er=%d 1465839830100400200"',
        "csv": '"text":"%d,%d;%d"',
        "mixed": '"data":[%d,{"temp":%d,"x":%d}]',
    }
    write_log(
        layout,
        (
            (begin + second, device, second + 1, value % (second, second, second))
            for second in range(100)
            for device, value in values.items()
        ),
    )
    with Page(layout.data) as page:
        for device, field in (
            *(("msgpack", "temp"), ("msgpack", "deep.er"), ("msgpack", "time"), ("json", "temp")),
            *(("json", "deep.er"), ("pairs", "temp"), ("pairs", "deep.er"), ("pairs", "time")),
            *(("influx", "temp"), ("influx", "deep.er"), ("csv", "c1"), ("mixed", "c2.temp")),
        ):
            asked: dict[str, Any] = {"from": begin, "to": begin + 100, "points": 100}
            answer = page.get("series", device=device, field=field, **asked)
            (curve,) = answer["curves"]
            assert curve["source"] == "log"
            assert (sum(curve["count"]), min(curve["low"]), max(curve["high"])) == (100, 0, 99), (
                device,
                field,
            )
            assert curve["width"] == 1


def test_a_silent_device_is_found_with_its_lines_and_fields(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    long_ago = time.time() - 3000
    write_log(layout, ((long_ago + each, "a", each, f'"text":"v={each}"') for each in range(1, 9)))
    with Page(layout.data) as page:
        wait_for(lambda: page.get("status")["devices"] == 1, "the device")
        assert page.get("devices/a/fields")["fields"] == [{"name": "v", "last": 8.0}]
        with page.tail(device="a", last=3) as events:
            assert len(events.lines(3)) == 3
        assert row(page, "a")["next"] == 9


def test_it_serves_beside_a_listener_that_is_down_or_frozen(tmp_path: Path) -> None:
    pauses = {"ingest.watch.contact._TIMEOUT": 1.0, "ingest.watch.repeated._REGISTRY": 0.1}
    with (
        Listener(tmp_path / "data") as listener,
        Page(listener.data, pauses=pauses) as page,
    ):
        listener.add("a")
        wait_for(lambda: page.get("status")["health"] == "ok", "the listener")
        os.kill(listener.pid, signal.SIGSTOP)
        try:
            wait_for(lambda: page.get("status")["health"] == "down", "the frozen listener")
            assert "frozen or overloaded" in page.get("status")["reason"]
        finally:
            os.kill(listener.pid, signal.SIGCONT)
        wait_for(lambda: page.get("status")["health"] == "ok", "the listener that goes on")
        listener.stop()
        wait_for(lambda: page.get("status")["health"] == "down", "the listener's end")
        assert page.get("status")["listener"] is None
        wait_for(lambda: page.get("status")["devices"] == 1, "the registry")
        assert "does not answer" in page.device("a")["why"]


def test_a_frozen_page_slows_no_device(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener, Page(listener.data) as page:
        listener.add("a")
        os.kill(page.pid, signal.SIGSTOP)
        try:
            with push(listener, "a", *(f"v={number}" for number in range(1000))):
                pass
        finally:
            os.kill(page.pid, signal.SIGCONT)
        wait_for(lambda: page.device("a")["next"] == 1001, "what came meanwhile")


def test_a_page_that_was_killed_goes_on(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        first = Page(listener.data)
        first.start()
        with push(listener, "a", "v=1", "v=2"):
            wait_for(lambda: row(first, "a")["next"] == 3, "the frames")
        first.kill()
        with push(listener, "a", "v=3"):
            pass
        with Page(listener.data) as second:
            wait_for(lambda: row(second, "a")["next"] == 4, "what came meanwhile")
            (curve,) = second.get("series", device="a", field="v", points=1)["curves"]
            assert sum(curve["count"]) == 3


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [TWISTD, "-n", "--pidfile=", "ingest-watch", *arguments]
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--http", "tcp:0"), "may be reached from other hosts: give --password-file and TLS"),
        (("--http", "nonsense:1"), "Unknown endpoint type"),
        (("--password-file", "no-such-file"), "there is no file no-such-file"),
        (("--rules", "no-such-file"), "there is no file no-such-file"),
        (("--nonsense",), "option --nonsense not recognized"),
        (("extra",), "there is no argument 'extra'"),
    ],
)
def test_it_does_not_start_where_it_must_not(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    result = start("--data", tmp_path / "data", *arguments)
    assert result.returncode == 1
    assert says in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = start("--data", tmp_path, "--http", f"tcp:{port}:interface=127.0.0.1")
    assert result.returncode == 1
    assert "Address already in use" in result.stderr


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_beyond_this_machine_it_wants_a_password_and_tls(tmp_path: Path) -> None:
    passwords, key = tmp_path / "passwords", tmp_path / "key.pem"
    lines = [password_line("anna", "operate", "1"), password_line("bo", "view", "2")]
    passwords.write_text("\n".join(lines))
    passwords.chmod(0o600)
    make_certificate(key)
    endpoint = f"ssl:0:interface=0.0.0.0:privateKey={key}:certKey={key}"
    with (
        Listener(tmp_path / "data") as listener,
        Page(listener.data, "--password-file", passwords, http=endpoint) as page,
    ):
        page.url = page.url.replace("0.0.0.0", "127.0.0.1")
        assert page.url.startswith("https://")
        for path in ("", "api/status", "api/devices/a", "app.js"):
            assert page.refusal(path)[0] == 401
            assert page.refusal(path, headers=basic("bo", "1"))[0] == 401
        assert page.get("status", basic("bo", "2"))["role"] == "view"
        wait_for(lambda: page.get("status", basic("bo", "2"))["health"] == "ok", "the listener")
        looks, does = {**OURS, **basic("bo", "2")}, {**OURS, **basic("anna", "1")}
        assert page.refusal("api/rotate", headers=looks, method="POST")[0] == 403
        assert page.refusal("api/rotate", headers=does, method="POST")[0] == 200


def test_a_unix_socket_for_a_proxy(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    http = f"unix:{path}:mode=600"
    with Page(tmp_path / "data", http=http), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /api/status HTTP/1.0\r\nHost: ingest.example\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK") or answer.startswith(b"HTTP/1.0 200 OK")
    assert b'"health":"down"' in answer


def test_rules_run_beside_the_page(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "hot"\nwhen = "temp > 30"\n')
    with (
        Listener(tmp_path / "data") as listener,
        Page(listener.data, "--rules", rules) as page,
    ):
        listener.add("a")
        assert page.get("status")["alerts"] == 0
        with push(listener, "a", "temp=31"):
            pass
        wait_for(lambda: page.get("status")["alerts"] == 1, "the alert")
        (alert,) = page.get("alerts")["alerts"]
        assert (alert["rule"], alert["device"]) == ("hot", "a")
        rules.write_text('[[rule]]\nname = "warm"\nwhen = "temp > 20"\n')
        os.kill(page.pid, signal.SIGHUP)
        wait_for(
            lambda: [rule["name"] for rule in page.get("alerts")["rules"]] == ["warm"],
            "the new rules",
        )


def test_a_request_with_a_large_body_is_cut_off(page: Page) -> None:
    host, _, port = page.url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"POST /api/rotate HTTP/1.1\r\nHost: {host}\r\n".encode()
            + b"Content-Length: 99999999\r\n\r\n"
        )
        assert connection.recv(1) == b""
    assert page.get("status")["time"] > 0
