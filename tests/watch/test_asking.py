"""What is asked of the page in SQL, the rules beside it, and Parquet in the background."""

import base64
import fcntl
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from ingest.layout import Layout
from ingest.watch import converting
from ingest.watch.auth import password_line
from ingest.watch.converting import Converting
from ingest.watch.rules.state import State
from tests.support.processes import free_port, of_threads
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.logs import close, text_line
from tests.watch.pages import Page, write_log
from tests.watch.rules.receiving import Device, Hook
from tests.watch.test_page import start

HEAVY = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"


def post(
    page: Page, path: str, value: object, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """Send JSON; return the status and the answer."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request = urllib.request.Request(
        f"{page.url}api/{path}", body, {"X-Ingest": "test", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def query(page: Page, sql: str, **more: Any) -> Any:
    """Ask with success."""
    code, answer = post(page, "query", {"sql": sql, **more})
    assert code == 200, answer
    return answer


class Asked(threading.Thread):
    """A query that goes on while the test does something else.

    Attributes:
        outcome: the status and the answer, at its end.
    """

    def __init__(self, page: Page, name: str, sql: str = HEAVY) -> None:
        super().__init__(daemon=True)
        self.outcome: tuple[int, Any] | None = None
        self._page = page
        self._value = {"sql": sql, "id": name, "seconds": 300}
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # the page may be stopped meanwhile
            self.outcome = post(self._page, "query", self._value)

    def ended(self) -> tuple[int, Any]:
        self.join(PATIENCE)
        assert self.outcome is not None
        return self.outcome


def queries(page: Page) -> int:
    count: int = page.get("status")["watcher"]["queries"]
    return count


def children(page: Page) -> list[str]:
    """Return the processes that the page has started."""
    return [child for found in of_threads(page.pid, "children") for child in found.split()]


def make_log(layout: Layout) -> float:
    """Write an hour of two devices; return when it begins."""
    layout.create()
    begin = float(int(time.time()) - 3600)
    write_log(
        layout,
        (
            (begin + second, device, second + 1, f'"text":"temp={second}"')
            for second in range(3600)
            for device in ("a", "b")
        ),
    )
    return begin


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("asking") / "data")


@pytest.fixture(scope="module")
def begin(layout: Layout) -> float:
    return make_log(layout)


@pytest.fixture(scope="module")
def page(layout: Layout, begin: float) -> Iterator[Page]:
    with Page(layout.data, "--columns", "off") as running:
        yield running


def test_an_answer_has_columns_types_and_rows(page: Page) -> None:
    answer = query(
        page, "SELECT device, count(*) AS n, max(temp) AS t FROM log GROUP BY 1 ORDER BY 1"
    )
    assert answer["columns"] == [
        {"name": "device", "type": "VARCHAR"},
        {"name": "n", "type": "BIGINT"},
        {"name": "t", "type": "DOUBLE"},
    ]
    assert answer["rows"] == [["a", 3600, 3599.0], ["b", 3600, 3599.0]]
    assert answer["truncated"] is False


def test_limits_of_time_devices_and_rows(page: Page, begin: float) -> None:
    answer = query(
        page,
        "SELECT count(*), min(seq) FROM log",
        since=begin + 10,
        until=begin + 15.5,
        device="a*",
    )
    assert answer["rows"] == [[6, 11]]
    answer = query(page, "SELECT seq FROM log WHERE device = 'a' ORDER BY seq", rows=3)
    assert (answer["rows"], answer["truncated"]) == ([[1], [2], [3]], True)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"{", "must be an object of JSON"),
        (b"\xff", "must be an object of JSON"),
        ([1], "must be an object of JSON"),
        ({}, "sql must be text"),
        ({"sql": 1}, "sql must be text"),
        ({"sql": "SELECT 1", "device": "a/b"}, "names no device"),
        ({"sql": "SELECT 1", "device": 1}, "device must be text"),
        ({"sql": "SELECT 1", "since": "x"}, "since is not a number"),
        ({"sql": "SELECT 1", "since": True}, "since is not a number"),
        ({"sql": "SELECT 1", "until": 1e300}, "until is from 0 to"),
        ({"sql": "SELECT 1", "seconds": 0}, "seconds is from 0.1 to 300"),
        ({"sql": "SELECT 1", "rows": 1e9}, "rows is from 1 to 10000"),
        ({"sql": "SELECT 1", "id": "x" * 65}, "id has at most 64"),
        ({"sql": "SELECT * FROM '/etc/passwd'"}, "there is no table"),
        ({"sql": "COPY log TO 'x'"}, "only SELECT is possible"),
        ({"sql": "\ud800"}, ""),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(page: Page, value: object, says: str) -> None:
    code, answer = post(page, "query", value)
    assert code == 400
    assert says in answer["error"]
    assert queries(page) == 0


def test_a_mistake_has_its_place(page: Page) -> None:
    code, answer = post(page, "query", {"sql": "SELECT 'é😀',\n  tmep FROM log"})
    assert (code, answer["position"], answer["line"], answer["column"]) == (400, 15, 2, 3)
    assert '"tmep" not found' in answer["error"]
    code, answer = post(page, "query", {"sql": "SELEC"})
    assert (answer["position"], answer["line"], answer["column"]) == (0, 1, 1)


def test_a_body_that_never_ends_is_refused(page: Page) -> None:
    with pytest.raises(OSError):  # it is cut off, and not kept
        post(page, "query", b'{"sql":"' + b"x" * (3 << 20) + b'"}')
    assert queries(page) == 0


def test_a_query_that_takes_too_long_is_ended(page: Page) -> None:
    code, answer = post(page, "query", {"sql": HEAVY, "seconds": 1})
    assert (code, answer) == (504, {"error": "the query took longer than 1 s, and was ended"})
    wait_for(lambda: children(page) == [], "the end of its process")


def test_a_query_is_cancelled_by_its_id(page: Page) -> None:
    asked = Asked(page, "mine")
    wait_for(lambda: children(page), "its process")
    assert post(page, "query", {"sql": "SELECT 1", "id": "mine"})[0] == 409
    assert post(page, "query/cancel", {"id": "mine"}) == (200, {"cancelled": True})
    assert asked.ended() == (409, {"error": "the query was cancelled"})
    wait_for(lambda: children(page) == [], "the end of its process")
    assert post(page, "query/cancel", {"id": "mine"})[0] == 404
    assert post(page, "query/cancel", {})[0] == 400


def test_a_query_ends_when_who_asked_goes_away(page: Page) -> None:
    host, _, port = page.url.removeprefix("http://").rstrip("/").partition(":")
    body = json.dumps({"sql": HEAVY, "seconds": 300}).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /api/query HTTP/1.1\r\nHost: localhost\r\nX-Ingest: 1\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        wait_for(lambda: children(page), "its process")
    wait_for(lambda: children(page) == [], "the end of its process")
    wait_for(lambda: queries(page) == 0, "the end of the query")


def test_few_queries_run_and_some_wait(page: Page) -> None:
    asked = [Asked(page, f"q{number}") for number in range(10)]
    wait_for(lambda: queries(page) == 10, "all of them")
    code, answer = post(page, "query", {"sql": "SELECT 1"})
    assert (code, answer["error"]) == (503, "too many queries wait at the moment")
    assert len(children(page)) <= 2
    for number in reversed(range(10)):  # those that wait first
        assert post(page, "query/cancel", {"id": f"q{number}"})[0] == 200
    assert {each.ended()[0] for each in asked} == {409}
    assert query(page, "SELECT 1")["rows"] == [[1]]


def test_a_query_is_asked_by_this_page_only(page: Page) -> None:
    for headers in (
        {"X-Ingest": "1", "Origin": "http://evil.example"},
        {"X-Ingest": "1", "Sec-Fetch-Site": "cross-site"},
        {"Origin": page.url.rstrip("/")},
    ):
        for path in ("query", "query/cancel", "queries"):
            assert page.refusal(f"api/{path}", headers=headers, method="POST")[0] == 403
    assert page.refusal("api/query")[0] == 405


def test_the_page_is_stopped_while_a_query_runs(tmp_path: Path) -> None:
    with Page(tmp_path / "data") as page:
        asked = [Asked(page, name) for name in ("one", "two", "three")]
        wait_for(lambda: len(children(page)) == 2, "two processes")
        page.stop()
        for each in asked:
            each.join(PATIENCE)
            assert not each.is_alive()


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_who_may_look_may_ask_and_keep_nothing(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    lines = [password_line("anna", "operate", "1"), password_line("bo", "view", "2")]
    passwords.write_text("\n".join(lines))
    passwords.chmod(0o600)
    with Page(tmp_path / "data", "--password-file", passwords) as page:
        looks, does = basic("bo", "2"), basic("anna", "1")
        assert post(page, "query", {"sql": "SELECT 1"})[0] == 401
        assert post(page, "query", {"sql": "SELECT 1"}, looks)[0] == 200
        value = {"name": "mine", "sql": "SELECT 1"}
        assert post(page, "queries", value, looks)[0] == 403
        assert post(page, "queries", value, does) == (200, {"queries": [value]})
        assert page.get("queries", looks) == {"queries": [value]}
        assert post(page, "rotate", {}, looks)[0] == 403


def test_queries_are_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    hostile = {"name": "<b>'\"\u2665", "sql": "SELECT '</script>'"}
    with Page(layout.data) as page:
        assert page.get("queries") == {"queries": []}
        assert post(page, "queries", {"name": "z", "sql": "SELECT 2"})[0] == 200
        assert post(page, "queries", hostile)[0] == 200
        for name, sql in (
            ("", "x"),
            ("a\nb", "x"),
            (1, "x"),
            ("x" * 101, "x"),
            ("x", "x" * 20_001),
        ):
            assert post(page, "queries", {"name": name, "sql": sql})[0] == 400
    with Page(layout.data) as page:
        assert [each["name"] for each in page.get("queries")["queries"]] == [hostile["name"], "z"]
        code, answer = post(page, "queries", {"name": hostile["name"], "sql": ""})
        assert answer == {"queries": [{"name": "z", "sql": "SELECT 2"}]}
        layout.saved_queries.write_text("broken")
        code, answer = post(page, "queries", {"name": "new", "sql": "SELECT 3"})
        assert code == 400
        assert "move it away" in answer["error"]
        assert layout.saved_queries.read_text() == "broken"


# Rules beside the page.


def hot(*targets: str, name: str = "hot") -> str:
    return f'[[rule]]\nname = "{name}"\nwhen = "temp > 30"\nthen = {json.dumps(targets)}\n'


def alerts(page: Page) -> Any:
    return page.get("alerts")


def test_rules_are_followed_and_say_what_they_did(tmp_path: Path) -> None:
    layout, file = Layout(tmp_path / "data"), tmp_path / "rules.toml"
    layout.create()
    dead = f"webhook:http://127.0.0.1:{free_port()}/secret"
    with Hook() as hook:
        file.write_text(hot(f"webhook:{hook.url}", dead, "exec:/bin/true"))
        with Page(layout.data, "--rules", file) as page:
            wait_for(lambda: "rules are in force" in page.output, "the rules")
            device = Device(layout)
            device.send("temp=31")
            wait_for(lambda: alerts(page)["alerts"], "the alert")
            wait_for(lambda: page.get("status")["alerts"] == 1, "the count")

            def did(event: Any) -> list[str]:
                return [each["state"] for each in event["did"]]

            wait_for(lambda: did(alerts(page)["alerts"][0]) == ["told", "waiting", "told"], "deeds")
            found = alerts(page)
            (fired,) = found["alerts"]
            assert (fired["rule"], fired["device"], fired["state"]) == ("hot", "a", "firing")
            assert fired["since"] <= fired["did"][0]["time"]
            assert found["rules"][0]["firing"] == 1
            assert [each["id"] for each in found["events"]] == [fired["id"]]
            wait_for(lambda: any(each["failure"] for each in alerts(page)["receivers"]), "why")
            assert "secret" not in json.dumps(found)
            hook.answer = 400
            device.send("temp=20")
            wait_for(lambda: alerts(page)["alerts"] == [], "the end")
            wait_for(lambda: did(alerts(page)["events"][0])[0] == "given up", "the refusal")
            assert "400" in alerts(page)["events"][0]["did"][0]["failure"]
            assert page.get("status")["rules"] == {"behind": 0.0, "trouble": ""}
        with Page(layout.data, "--rules", file) as page:
            wait_for(lambda: len(alerts(page)["events"]) == 2, "what was saved")
            assert did(alerts(page)["events"][0])[:2] == ["given up", "waiting"]


def test_a_hangup_reads_the_rules_again(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(hot())
    with Page(tmp_path / "data", "--rules", file) as page:

        def names() -> list[str]:
            return [rule["name"] for rule in alerts(page)["rules"]]

        assert names() == ["hot"]
        file.write_text(hot() + hot(name="second"))
        os.kill(page.pid, signal.SIGHUP)
        wait_for(lambda: names() == ["hot", "second"], "the new rules")
        file.write_text("[[rule]]\n")
        os.kill(page.pid, signal.SIGHUP)
        wait_for(lambda: "the rules stay as they are" in page.output, "what is wrong")
        assert names() == ["hot", "second"]
        assert "of before are in force" in alerts(page)["trouble"]
        assert "rules.toml:1: rule number 1: a rule needs a name" in alerts(page)["trouble"]
        file.write_text(hot())
        os.kill(page.pid, signal.SIGHUP)
        wait_for(lambda: names() == ["hot"], "the rules that are mended")
        assert alerts(page)["trouble"] == ""


def test_without_rules(tmp_path: Path) -> None:
    with Page(tmp_path / "data") as page:
        os.kill(page.pid, signal.SIGHUP)
        assert alerts(page)["enabled"] is False
        assert page.get("status")["alerts"] is None
        assert page.get("status")["rules"] is None


def test_rules_that_can_not_be_used_are_said_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nname = "x"\nwhen = "temp >"\n')
    data = tmp_path / "data"
    result = start("--data", data, "--rules", file)
    assert result.returncode == 1
    assert "can't start" in result.stderr
    file.write_text(hot())
    Layout(data).create()
    Layout(data).rules_state.write_bytes(b"no database at all, and longer than a header" * 9)
    result = start("--data", data, "--rules", file, "--http", "tcp:0:interface=127.0.0.1")
    assert result.returncode == 1
    assert "can't start the rules" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_heavy_queries_stop_neither_the_page_nor_the_rules(tmp_path: Path) -> None:
    layout, file = Layout(tmp_path / "data"), tmp_path / "rules.toml"
    layout.create()
    file.write_text(hot())
    device = Device(layout)
    with Page(layout.data, "--rules", file) as page:
        wait_for(lambda: "rules are in force" in page.output, "the rules")
        asked = [Asked(page, name) for name in ("one", "two")]
        wait_for(lambda: len(children(page)) == 2, "their processes")
        for turn in range(3):
            device.send("temp=31")
            wait_for(lambda: alerts(page)["alerts"], "the alert")
            device.send("temp=20")
            wait_for(lambda wanted=2 * turn + 2: len(alerts(page)["events"]) == wanted, "its end")  # type: ignore[misc]
        with page.tail(last=1) as events:
            assert len(events.lines(1)) == 1
        assert page.get("series", device="a", field="temp")["curves"][0]["count"]
        assert len(children(page)) == 2
        assert [each.outcome for each in asked] == [None, None]
        for name in ("one", "two"):
            post(page, "query/cancel", {"id": name})


# Parquet in the background.


@contextmanager
def columns_of(layout: Layout, *options: str) -> Iterator[Any]:
    with Page(layout.data, *options) as page:
        yield lambda: page.get("status")["watcher"]["columns"]


def test_closed_files_become_parquet(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    first = close(layout, 10, *(text_line(seq, f"temp={seq}") for seq in range(1, 100)))
    with Page(layout.data, pauses={"ingest.watch.converting._POLL": 0.1}) as page:

        def shown() -> Any:
            return page.get("status")["watcher"]["columns"]

        wait_for(lambda: shown()["converted"] == 1, "the Parquet")
        assert len(list(layout.columns_folder.glob("*/*.parquet"))) == 1
        close(layout, 20, *(text_line(seq, f"temp={seq}") for seq in range(100, 200)))
        wait_for(lambda: shown()["converted"] == 2, "the Parquet of the next")
        assert query(page, "SELECT count(*), max(temp) FROM log")["rows"] == [[199, 199.0]]
        first.path.unlink()
        wait_for(lambda: len(list(layout.columns_folder.glob("*/*.parquet"))) == 1, "its removal")
        name = close(layout, 30, text_line(1, "x"), suffix=".gz").path
        name.write_bytes(name.read_bytes()[:-9])
        wait_for(lambda: shown()["failed"], "the failure")
        assert "damaged" in shown()["failed"][0]["why"]


def test_nothing_is_converted_that_is_not_wanted(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    close(layout, 10, text_line(1, "x"))
    with columns_of(layout, "--columns", "off") as shown:
        assert shown() is None
    assert not layout.columns_folder.exists()
    result = start("--data", layout.data, "--columns", "perhaps")
    assert "--columns: 'perhaps' is neither on nor off" in result.stderr


def test_another_converter_is_waited_for(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.columns_folder.mkdir()
    with (layout.columns_folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with columns_of(layout) as shown:
            wait_for(lambda: "another process converts" in shown()["waits_for"], "the other")


def test_a_full_disk_is_left_to_the_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.create()
    close(layout, 10, text_line(1, "x"))
    made = Converting(layout)
    monkeypatch.setattr(converting, "_ROOM", 1 << 62)
    assert made.step() > 0
    assert "the disk has less than" in str(made.shown()["waits_for"])
    assert not list(layout.columns_folder.glob("*/*"))
    monkeypatch.setattr(converting, "_ROOM", 1)
    while made.step() == 0:
        pass
    assert made.shown() == {"waits_for": "", "converted": 1, "pending": 0, "failed": []}
    made.stop()


def test_why_no_parquet_can_be_made_is_shown(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.columns_folder.write_text("a file")
    made = Converting(layout)
    with pytest.raises(FileExistsError):
        made.step()
    assert made.shown()["waits_for"] == f"{layout.columns_folder}: File exists"
    layout.columns_folder.unlink()
    made.step()
    assert made.shown()["waits_for"] == ""
    made.stop()


def test_outcomes_go_with_their_events(tmp_path: Path) -> None:
    state = State(tmp_path / "rules.db")
    state.delivered("x", 7, 1, "")
    state.delivered("y", 7, 2, "it answers 400")
    assert {key: outcome.failure for key, outcome in state.outcomes([7, 8]).items()} == {
        (7, "x"): "",
        (7, "y"): "it answers 400",
    }
    state.close()
