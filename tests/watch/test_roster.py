"""The table of devices, and why one is not delivering."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ingest.devices.device import Device
from ingest.watch.contact import Answer, Contact
from ingest.watch.explaining import explain
from ingest.watch.roster import Roster

NOW = time.time()
OK = Answer(at=NOW, failure="", since=NOW, status={"health": "ok", "reason": ""})


def device(name: str, *, enabled: bool = True, note: str = "", seen: str | None = None) -> Device:
    return Device(name, enabled, "2026-01-01T00:00:00Z", note, seen, seen and "192.0.2.1:5")


def connection(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "device": name, "is_proved": True, "peer": "192.0.2.7:9", "phase": "open",
        "is_reading": True, "connected_s": 60.0, "heard_s_ago": 1.0, "waiting_frames": 0,
        "waiting_bytes": 0, "acknowledged": 3, **changes,
    }  # fmt: skip


def roster(*names: str) -> Roster:
    made = Roster()
    made.note_registry(map(device, names), NOW)
    return made


def test_a_connected_device_is_online() -> None:
    made = roster("a", "b")
    made.note_connections([connection("a")], NOW)
    assert made.states(NOW) == {"online": 1, "silent": 1, "failing": 0, "refused": 0, "disabled": 0}
    assert explain(made.entry("a"), OK, NOW) == ""
    made.note_connections([], NOW)
    assert made.states(NOW)["silent"] == 2


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({"heard_s_ago": 301.0}, "silent", "has sent nothing for 5 min 1 s"),
        ({"is_proved": False, "phase": "checking"}, "refused", "has not proved it yet"),
    ],
)
def test_a_connection_may_be_no_good(changes: dict[str, Any], state: str, says: str) -> None:
    made = roster("a")
    made.note_connections([connection("a", **changes)], NOW)
    assert made.entry("a").state(NOW) == state
    assert says in explain(made.entry("a"), OK, NOW)


def test_frames_that_wait_long_fail() -> None:
    made = roster("a")
    for moment in (NOW - 20, NOW):
        made.note_connections([connection("a", waiting_frames=7)], moment)
    assert made.entry("a").state(NOW) == "failing"
    assert "7 frames of it wait for the disk since 20 s" in explain(made.entry("a"), OK, NOW)
    made.note_connections([connection("a")], NOW)
    assert made.entry("a").state(NOW) == "online"


def test_refused_frames_fail_until_good_ones_come() -> None:
    made = roster("a")
    made.note_connections([connection("a")], NOW)
    for _ in range(2):  # it is told again and again
        made.note_incident("a", "bad-frame", "", NOW - 10)
    assert made.entry("a").state(NOW) == "failing"
    assert "bad-frame, 10 s ago" in explain(made.entry("a"), OK, NOW)
    made.note_records("a", NOW - 1, 5, 1, NOW)
    assert made.entry("a").state(NOW) == "online"


def test_who_is_not_let_in_is_refused() -> None:
    made = roster("a")
    made.note_incident("a", "auth-failed", "its token is wrong", NOW - 3)
    made.note_incident("nobody", "auth-failed", "", NOW)
    assert made.entry("a").state(NOW) == "refused"
    assert "ingest device new-token a" in explain(made.entry("a"), OK, NOW)
    assert "nobody" not in made.entries


def test_other_reasons() -> None:
    made = roster("a")
    entry = made.entry("a")
    assert "It has never connected" in explain(entry, OK, NOW)
    down = Answer(at=NOW, failure="no listener answers", since=NOW)
    assert "The listener does not answer" in explain(entry, down, NOW)
    full = Answer(at=NOW, failure="", status={"health": "disk-failing", "reason": "No space"})
    assert "takes no records (No space)" in explain(entry, full, NOW)
    made.note_registry([device("a", enabled=False)], NOW)
    assert entry.state(NOW) == "disabled"
    assert "ingest device enable a" in explain(entry, OK, NOW)
    made.note_records("a", NOW - 9, 1, 0, NOW)
    made.note_registry([], NOW)
    assert "ingest device add a" in explain(entry, OK, NOW)
    made.note_registry([], NOW + 3600)
    assert made.entries == {}


def test_claims_of_unknown_names_make_no_rows() -> None:
    made = roster("a")
    claims = [connection(f"x{number}", is_proved=False) for number in range(100)]
    made.note_connections([*claims, connection("a"), connection("a", is_proved=False)], NOW)
    assert list(made.entries) == ["a"]
    assert made.entry("a").state(NOW) == "online"


def test_search_sort_filter_and_paging() -> None:
    made = Roster()
    made.note_registry(
        (device(f"d{number:03}", note="Roof" if number == 7 else "") for number in range(120)),
        NOW,
    )
    made.note_connections([connection(f"d{number:03}") for number in range(30)], NOW)
    made.note_records("d005", NOW, 77, 300, NOW)
    assert [row["name"] for row in made.page("", "", "name", 1, 2, NOW).rows] == ["d000", "d001"]
    assert [row["name"] for row in made.page("", "", "-name", 1, 1, NOW).rows] == ["d119"]
    assert made.page("roof", "", "name", 1, 50, NOW).total == 1
    assert made.page("192.0.2.7", "", "name", 1, 50, NOW).total == 30
    online = made.page("", "online", "name", 9, 20, NOW)
    assert (online.total, online.page, online.pages, len(online.rows)) == (30, 2, 2, 10)
    top = made.page("", "", "-rate", 1, 1, NOW).rows[0]
    assert (top["name"], top["next"]) == ("d005", 78)
    assert top["rate"] == pytest.approx(300 / (30 + NOW % 30), rel=0.1)
    assert made.page("nothing like it", "", "name", 5, 50, NOW).rows == []


def test_a_listener_from_before_an_update_is_no_trouble(tmp_path: Path) -> None:
    connections = [connection("a")]

    def answer(listening: socket.socket) -> None:
        commands: dict[str, Any] = {
            "status": {"health": "ok", "reason": "", "devices": {}},
            "connections": connections,
        }
        for _ in range(4):
            client, _ = listening.accept()
            with client, client.makefile("rwb") as stream:
                asked = json.loads(stream.readline())["command"]
                known = asked in commands
                reply = {"ok": commands[asked]} if known else {"error": "unknown command"}
                stream.write(json.dumps(reply).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control.sock"))
        listening.listen()
        server = threading.Thread(target=answer, args=(listening,))
        server.start()
        made = roster("a")
        contact = Contact(tmp_path / "control.sock", made)
        contact.look()
        server.join()
    assert contact.answer.failure == ""
    assert made.states(NOW)["online"] == 1
    contact = Contact(tmp_path / "no such socket", made)
    contact.look()
    assert "no listener answers" in contact.answer.failure
    assert made.states(NOW)["online"] == 0
