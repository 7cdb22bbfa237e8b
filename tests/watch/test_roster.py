"""The table of devices, and why one is not delivering."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ingest.devices.device import Device
from ingest.listener.incidents import KINDS
from ingest.watch.contact import Answer, Contact
from ingest.watch.explaining import MEANINGS, explain
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


def incident(name: str, kind: str, at: float, text: str = "") -> dict[str, Any]:
    return {"device": name, "kind": kind, "at": at, "text": text, "host": "192.0.2.8"}


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
        ({"is_proved": False, "phase": "checking"}, "silent", "has not proved it yet"),
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
    assert "7 frames of it have waited for the disk for 20 s" in explain(made.entry("a"), OK, NOW)
    made.note_connections([connection("a", is_paused=True)], NOW)
    assert made.entry("a").state(NOW) == "failing"
    assert "has read nothing from it for 20 s" in explain(made.entry("a"), OK, NOW)
    made.note_connections([connection("a")], NOW)
    assert made.entry("a").state(NOW) == "online"


def test_refused_frames_fail_until_good_ones_come() -> None:
    made = roster("a")
    made.note_connections([connection("a")], NOW)
    for _ in range(5):  # it is told again and again
        made.note_incidents([incident("a", "bad-frame", NOW - 10)])
    assert made.entry("a").state(NOW) == "failing"
    assert "bad-frame, 10 s ago, from 192.0.2.8" in explain(made.entry("a"), OK, NOW)
    made.note_records("a", NOW - 1, 5, 1, NOW)
    assert made.entry("a").state(NOW) == "online"


def test_who_is_not_let_in_is_refused() -> None:
    made = roster("a")
    made.note_incidents(
        [incident("a", "auth-failed", NOW - 3), incident("nobody", "auth-failed", NOW)]
    )
    assert made.entry("a").state(NOW) == "refused"
    assert "ingest device new-token a" in explain(made.entry("a"), OK, NOW)
    assert "nobody" not in made.entries
    assert [each["device"] for each in made.strangers] == ["nobody"]
    made.note_registry(map(device, ("a", "nobody")), NOW)
    assert made.entry("nobody").state(NOW) == "refused", "it was registered a moment later"
    assert made.strangers == []


def test_a_fleet_that_comes_back_is_not_refused() -> None:
    made = roster("a", "b", "c")
    shaking = {"is_proved": False, "phase": "checking", "connected_s": 2.0}
    made.note_connections([connection("a", **shaking), connection("b", **shaking)], NOW)
    made.note_records("b", NOW + 1, 1, 1, NOW + 1)
    made.note_records("c", NOW + 1, 1, 1, NOW + 1)
    states = {name: made.entry(name).state(NOW + 5) for name in "abc"}
    assert states == {"a": "silent", "b": "online", "c": "online"}
    assert explain(made.entry("b"), OK, NOW + 5) == explain(made.entry("c"), OK, NOW + 5) == ""
    assert made.entry("c").state(NOW + 20) == "silent", "it came, delivered and went"
    assert "If it connects only to deliver" in explain(made.entry("c"), OK, NOW + 20)


def test_a_device_that_connects_only_to_deliver_is_online_in_between() -> None:
    made = roster("polled", "lost")
    made.note_connections([connection("lost")], NOW - 31)
    for name in ("polled", "lost"):
        made.note_records(name, NOW - 60, 1, 1, NOW - 60)
        made.note_records(name, NOW - 30, 2, 1, NOW - 30)
    made.note_connections([], NOW)
    assert made.entry("polled").state(NOW) == "online"
    assert explain(made.entry("polled"), OK, NOW) == ""
    assert made.entry("polled").state(NOW + 61) == "silent", "it has missed three times"
    assert made.entry("lost").state(NOW) == "silent", "it was connected all the time"
    made.lose_listener(NOW)
    assert made.entry("polled").state(NOW) == "silent", "nobody can deliver"
    assert "only to deliver" not in explain(made.entry("lost"), OK, NOW)


def test_what_comes_again_and_again_is_not_made_good_by_frames_in_between() -> None:
    made = roster("a")
    made.note_connections([connection("a", heard_s_ago=0.0)], NOW)
    for moment in (NOW - 20, NOW - 10, NOW):
        made.note_incidents([incident("a", "replaced", moment)])
        made.note_records("a", moment + 1, 5, 1, moment + 1)
    assert made.entry("a").state(NOW + 2) == "failing"
    says = explain(made.entry("a"), OK, NOW + 2)
    assert "replaced, again and again, 2 s ago, from 192.0.2.8: two devices use" in says
    assert made.entry("a").state(NOW + 301) != "failing"


def test_who_guesses_the_token_of_a_device_does_it_no_harm() -> None:
    made = roster("a")
    made.note_connections([connection("a", heard_s_ago=0.0)], NOW)
    for moment in (NOW - 20, NOW - 10, NOW):
        made.note_incidents([incident("a", "auth-failed", moment)])
    assert made.entry("a").state(NOW) == "online"
    assert explain(made.entry("a"), OK, NOW) == "", "a new token would cut off the right one"


def test_when_it_was_heard_does_not_move_with_the_clock() -> None:
    made = roster("a")
    made.note_connections([connection("a", heard_s_ago=5.0)], NOW)
    assert made.page("", "", "name", 1, 1, NOW + 7).rows[0]["last"] == pytest.approx(NOW - 5)


def test_a_registry_that_fails_keeps_only_new_ones_out() -> None:
    made = roster("a", "b")
    made.note_connections([connection("a")], NOW)
    answer = Answer(at=NOW, failure="", status={"health": "registry-failing", "reason": "torn"})
    assert explain(made.entry("a"), answer, NOW) == ""
    assert "can look up no device (torn)" in explain(made.entry("b"), answer, NOW)
    answer = Answer(at=NOW, failure="", status={"health": "positions-failing", "reason": "torn"})
    assert explain(made.entry("a"), answer, NOW) == ""


def test_each_thing_that_goes_wrong_has_words() -> None:
    assert set(MEANINGS) == set(KINDS)


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
    contact.look()
    assert "no listener answers" in contact.answer.failure
    assert made.states(NOW)["online"] == 0
