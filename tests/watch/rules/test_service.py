"""The rules in a process of their own, with real receivers, killed at bad moments."""

import email
import email.policy
import json
import os
import random
import shutil
import signal
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.layout import Layout
from ingest.log.reading import lines
from ingest.ops.control import ask
from ingest.record import Values, parse, record_block, record_time
from ingest.watch.rules.replay import replay
from tests.support.devices import TOKEN, PackedDevice, TextDevice
from tests.support.listeners import Listener
from tests.support.processes import free_port
from tests.support.waiting import PATIENCE, wait_for
from tests.watch.rules.making import rules
from tests.watch.rules.receiving import Device, Hook, Watcher, program


def hot(*targets: str, more: str = "") -> str:
    return f'[[rule]]\nname = "hot"\nwhen = "temp > 30"\nthen = {json.dumps(targets)}\n{more}'


@pytest.fixture
def device(layout: Layout) -> Device:
    return Device(layout)


def alerts(layout: Layout) -> list[tuple[int, str, str]]:
    found: list[Any] = [parse(line) for line in lines(layout.alerts_folder)]
    return [(each.seq, each.device, each.value["state"]) for each in found]


def test_a_webhook_is_told(layout: Layout, device: Device) -> None:
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        device.send("temp=31.5 door=open")
        wait_for(lambda: len(hook.got) == 1)
        (shown,) = wait_for(lambda: watcher.shows("alerts"))
        device.send("temp=20")
        wait_for(lambda: len(hook.got) == 2)
        wait_for(lambda: watcher.shows("alerts") == [])
        (first, fired), (second, cleared) = hook.got
        assert (first, second) == (f"{fired['id']}-firing", f"{fired['id']}-cleared")
        assert (fired["rule"], fired["device"], fired["state"]) == ("hot", "a", "firing")
        assert fired["fields"] == {"temp": 31.5}
        assert cleared["fields"] == {"temp": 20.0}
        assert {key: shown[key] for key in fired} == fired
        assert shown["then"] == [f"webhook:{hook.url.removesuffix('/hook')}/…"]
        assert [each["state"] for each in watcher.shows("events")] == ["cleared", "firing"]
        assert watcher.shows("rules")[0]["test"] == "temp > 30"
        wait_for(lambda: watcher.shows("receivers")[0]["waiting"] == 0)
        assert watcher.shows("lag") == 0
        watcher.stop()


def test_killed_between_firing_and_delivery(layout: Layout, device: Device) -> None:
    port = free_port()
    with Watcher(layout, hot(f"webhook:http://127.0.0.1:{port}/")) as watcher:
        device.send("temp=31")
        wait_for(lambda: len(alerts(layout)) == 1)
        wait_for(lambda: watcher.shows("receivers")[0]["failure"])
        watcher.kill()
        device.send("temp=20")
        with Hook(port) as hook:
            watcher.start()
            wait_for(lambda: hook.states() == [("a", "firing"), ("a", "cleared")])
            wait_for(lambda: watcher.shows("receivers")[0]["waiting"] == 0)
            assert len(hook.got) == 2
    assert alerts(layout) == [(1, "a", "firing"), (2, "a", "cleared")]


def test_killed_while_it_is_told(layout: Layout, device: Device) -> None:
    """The receiver knows, the watcher does not know that: told again, with the same key."""
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        hook.answer = None
        device.send("temp=31")
        wait_for(lambda: len(hook.got) == 1)
        watcher.kill()
        hook.answer = 204
        watcher.start()
        wait_for(lambda: len(hook.got) == 2)
        assert hook.got[0] == hook.got[1]
        wait_for(lambda: watcher.shows("receivers")[0]["waiting"] == 0)
    assert alerts(layout) == [(1, "a", "firing")]


def test_killed_again_and_again(layout: Layout, device: Device) -> None:
    """At any instant: nothing fires twice, nothing is forgotten, nothing is out of order."""
    chance = random.Random(7)
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        for turn in range(8):
            for number in range(40):
                device.send(f"temp={chance.choice([20, 31])}", f"d{number % 5}")
                if number % 10 == 0:
                    time.sleep(chance.random() * 0.05)  # so that kills meet all kinds of moments
            watcher.kill()
            if turn % 2:
                device.send("temp=31", "away")
                device.send("temp=20", "away")
            watcher.start()
        expected = [
            (each.device, "firing" if each.firing else "cleared", each.id)
            for each in replay(
                layout.log_folder, rules(layout.data, watcher.rules.read_text()).rules,
                None, datetime.now(UTC), lambda error: pytest.fail(str(error)),
            )
        ]  # fmt: skip
        wait_for(lambda: len(alerts(layout)) == len(expected))
        wait_for(lambda: len({key for key, _ in hook.got}) == len(expected))
    found: list[Any] = [parse(line).value for line in lines(layout.alerts_folder)]
    assert [(each["device"], each["state"], each["id"]) for each in found] == expected
    told = list(dict.fromkeys((body["device"], body["state"], body["id"]) for _, body in hook.got))
    assert told == expected


def test_a_dead_receiver_delays_nobody_else(layout: Layout, device: Device) -> None:
    dead = f"webhook:http://127.0.0.1:{free_port()}/"
    with Hook() as hangs, Hook() as fails, Hook() as good:
        hangs.answer, fails.answer = None, 503
        targets = [dead, *(f"webhook:{each.url}" for each in (hangs, fails, good))]
        soon = "ingest.watch.rules.courier._FIRST_PAUSE=0.1"
        with Watcher(layout, hot(*targets), soon) as watcher:
            for _ in range(5):
                device.send("temp=31")
                device.send("temp=20")
            wait_for(lambda: len(good.got) == 10)
            assert [body["state"] for _, body in good.got] == ["firing", "cleared"] * 5
            assert len(hangs.got) == 1
            wait_for(lambda: len(fails.got) >= 2)
            assert fails.got[0] == fails.got[1]
            wait_for(lambda: any(
                each["failure"] == "it answers 503" for each in watcher.shows("receivers")
            ))  # fmt: skip
            fails.answer = 200
            wait_for(lambda: len(fails.states()) == 10)
            assert [state for _, state in fails.states()] == ["firing", "cleared"] * 5
            watcher.stop()


def test_what_a_receiver_never_takes_is_passed_by(layout: Layout, device: Device) -> None:
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        hook.answer = 400
        device.send("temp=31")
        wait_for(lambda: len(hook.got) == 1)
        wait_for(lambda: watcher.shows("receivers")[0]["waiting"] == 0)
        hook.answer = 204
        device.send("temp=20")
        wait_for(lambda: len(hook.got) == 2)
        assert hook.got[1][1]["state"] == "cleared"
        assert "is not told event 1: it answers 400" in watcher.output


def test_other_rules_by_sighup(layout: Layout, device: Device) -> None:
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        watcher.reload("[[rule]]\nname = 1")
        wait_for(lambda: "the rules stay as they are" in watcher.output)
        device.send("temp=31")
        wait_for(lambda: len(hook.got) == 1)
        watcher.reload(hot(f"webhook:{hook.url}").replace("30", "40"))
        wait_for(lambda: watcher.shows("rules")[0]["test"] == "temp > 40")
        device.send("temp=35")
        wait_for(lambda: len(hook.got) == 2)
        assert hook.got[1][1]["state"] == "cleared"


def test_from_a_device_to_its_alert(tmp_path: Path) -> None:
    """With a real listener, a device of either dialect, and a rotation in between."""
    with Listener(tmp_path / "ingest-data", cwd=tmp_path) as listener:
        listener.add("cold-1", "cold-2")
        address = listener.addresses[0]
        with (
            Hook() as hook,
            Watcher(listener.layout, hot(f"webhook:{hook.url}")),
            TextDevice(address) as text,
            PackedDevice(address) as packed,
        ):
            text.log_in("cold-1")
            packed.log_in("cold-2")
            text.push("temp=31.5")
            wait_for(lambda: hook.states() == [("cold-1", "firing")])
            ask(listener.layout.control, "rotate")
            packed.send(b"\x81\xa4temp\x20\x81\xa4temp\x01")
            text.push('{"temp":20}')
            wait_for(lambda: len(hook.got) == 4)
            assert sorted(hook.states()) == [
                ("cold-1", "cleared"), ("cold-1", "firing"),
                ("cold-2", "cleared"), ("cold-2", "firing"),
            ]  # fmt: skip


def test_a_device_that_is_never_let_in(tmp_path: Path) -> None:
    """Wrong tokens, and right ones of a device that is disabled; neither ever connected."""
    text = '[[rule]]\nname = "refused"\nrefused = 3\nthen = ["webhook:%s"]\n'
    with Listener(tmp_path / "ingest-data", cwd=tmp_path) as listener:
        listener.add("wrong", "disabled", "well")
        listener.ingest("device", "disable", "disabled")
        often = "ingest.watch.rules.runner._LOOK_AROUND=0.1"
        with Hook() as hook, Watcher(listener.layout, text % hook.url, often):
            for name in ["wrong", "disabled", "stranger"] * 3 + ["well"] * 2:
                with TextDevice(listener.addresses[0]) as device:
                    token = TOKEN if name == "disabled" else "wrong"
                    device.send(device.plain(name, token=token))
                    assert device.last_words() == "auth-failed"
            wait_for(lambda: len(hook.got) == 2)
            assert sorted(hook.states()) == [("disabled", "firing"), ("wrong", "firing")]
            assert {body["message"] for _, body in hook.got} == {
                "disabled: refused 3 times", "wrong: refused 3 times",
            }  # fmt: skip


def test_silence_in_real_time(layout: Layout, device: Device) -> None:
    text = '[[rule]]\nname = "quiet"\nsilent = "2s"\n'
    with Watcher(layout, text) as watcher:
        device.send("x")
        (alert,) = wait_for(lambda: watcher.shows("alerts"))
        assert alert["message"] == "a: silent for 2 s"
        device.send("x")
        wait_for(lambda: watcher.shows("alerts") == [])


def test_how_far_behind_it_is(layout: Layout, device: Device) -> None:
    """It was off while much came; nothing of it is passed over."""
    with Hook() as hook, Watcher(layout, hot(f"webhook:{hook.url}")) as watcher:
        device.send("temp=20")
        wait_for(lambda: watcher.shows("rules"))
        watcher.stop()
        hour_ago = record_time(datetime.now(UTC) - timedelta(hours=1))
        texts = [b'"temp=20"'] * 300_000
        texts[150_000] = b'"temp=31"'
        with (layout.log_folder / "ingest.log").open("ab") as log:
            log.write(record_block(hour_ago, b"a", 2, Values(b',"text":', texts, b"}\n")))
        watcher.start()
        assert wait_for(lambda: watcher.shows("lag")) > 3500
        wait_for(lambda: watcher.shows("lag") == 0)
        assert "s behind the log" in watcher.output
        wait_for(lambda: hook.states() == [("a", "firing"), ("a", "cleared")])
        assert hook.got[0][1]["seq"] == 150_002


def script(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_program_is_run(layout: Layout, device: Device, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = script(tmp_path, f'env >>"{out}.env"; cat >>"{out}"; sleep 300 & echo $! >>"{out}.pids"')
    message = 'message = "$(touch owned) `touch owned` {door}"'
    text = hot(f"exec:{path}", more=message).replace("temp >", "door != '' && temp >")
    with Watcher(layout, text) as watcher:
        device.send("temp=31 door=$(touch${IFS}owned)")
        wait_for(lambda: out.exists() and out.read_text().count("\n") == 1)
        device.send("temp=20 door=x")
        wait_for(lambda: out.read_text().count("\n") == 2)
        wait_for(lambda: watcher.shows("receivers")[0]["waiting"] == 0)
    for pid in Path(f"{out}.pids").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    fired, cleared = map(json.loads, out.read_text().splitlines())
    assert (fired["state"], cleared["state"]) == ("firing", "cleared")
    environment = Path(f"{out}.env").read_text().splitlines()
    assert "INGEST_RULE=hot" in environment
    assert "INGEST_DEVICE=a" in environment
    assert "INGEST_FIELD_temp=31.0" in environment
    assert "INGEST_FIELD_door=$(touch${IFS}owned)" in environment
    assert "INGEST_MESSAGE=$(touch owned) `touch owned` $(touch${IFS}owned)" in environment
    assert not list(tmp_path.rglob("owned"))


def test_a_program_that_fails_is_run_again(layout: Layout, device: Device, tmp_path: Path) -> None:
    path = script(tmp_path, f'[ -e "{tmp_path}/well" ] && exit 0; echo "no line"; exit 3')
    with Watcher(layout, hot(f"exec:{path}")) as watcher:
        device.send("temp=31")
        wait_for(lambda: watcher.shows("receivers")[0]["failure"] == "it ended with 3: no line")
        (tmp_path / "well").touch()
        wait_for(lambda: watcher.shows("receivers") == [
            {"target": f"exec:{path}", "waiting": 0, "failure": ""}
        ])  # fmt: skip


def test_what_a_program_starts_ends_with_it(layout: Layout, device: Device, tmp_path: Path) -> None:
    """One that can't be asked to end, and waits for another; the watcher is stopped meanwhile."""
    started = tmp_path / "started"
    text = "trap '' TERM\nsleep 1000 &\necho $! $$ > %s.new\nmv %s.new %s\nwait\n"
    text = text.replace("%s", str(started))
    with Watcher(layout, hot(f"exec:{script(tmp_path, text)}")) as watcher:
        device.send("temp=31")
        wait_for(started.exists)
        watcher.stop()
        assert not [pid for pid in started.read_text().split() if runs(pid)]


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_mail_server_is_told(layout: Layout, device: Device, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    with program(sys.executable, "-m", "tests.watch.rules.mailserver", str(inbox)) as output:
        port = int(output.readline())
        mail = f'[mail]\nserver = "127.0.0.1:{port}"\nfrom = "watch@example.org"\n'
        text = hot("mail:ops@example.org", "mail:nobody@example.org",
                   more='message = "{device} – {door}"\n' + mail)  # fmt: skip
        text = text.replace("temp >", "door != '' && temp >")
        with Watcher(layout, text) as watcher:
            device.send('temp=31 door="a\0\r\nBcc:x@y\u202e"')
            device.send("temp=20 door=x")
            wait_for(lambda: len(list(inbox.glob("*.eml"))) == 2)
            wait_for(lambda: "nobody@example.org is not told" in watcher.output)
            wait_for(lambda: all(not each["waiting"] for each in watcher.shows("receivers")))
    fired, cleared = (
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in sorted(inbox.glob("*.eml"))
    )
    # Twisted makes CR LF of each LF; no server likes a CR by itself (RFC 5321, 2.3.8).
    assert not any(set(b"\r\0") & set(path.read_bytes()) for path in inbox.glob("*.eml"))
    assert fired["Subject"] == "[firing] a – a Bcc:x@y"
    assert (fired["From"], fired["To"]) == ("watch@example.org", "ops@example.org")
    assert fired["Bcc"] is None
    assert cleared["Subject"] == "[cleared] a – x"
    assert cleared["In-Reply-To"] == fired["Message-ID"]
    assert "rule: hot" in fired.get_content()


def test_an_alertmanager_is_told(layout: Layout, device: Device, tmp_path: Path) -> None:
    found = shutil.which("prometheus-alertmanager")
    assert found, "install Debian's prometheus-alertmanager"
    config = tmp_path / "alertmanager.yml"
    config.write_text("route:\n  receiver: none\nreceivers:\n- name: none\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def active() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{url}/api/v2/alerts?active=true", timeout=PATIENCE) as answer:
            found: list[dict[str, Any]] = json.load(answer)
            return found

    def is_up() -> bool:
        try:
            return active() == []
        except OSError:
            return False

    with program(
        found, f"--config.file={config}", f"--storage.path={tmp_path}/am",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", ready=is_up,
    ), Watcher(layout, hot(f"alertmanager:{url}")) as watcher:  # fmt: skip
        device.send("temp=31")
        (alert,) = wait_for(active)
        assert alert["labels"] == {"alertname": "hot", "device": "a", "job": "ingest"}
        assert alert["annotations"]["summary"] == "a: temp > 30"
        ends, starts = map(datetime.fromisoformat, (alert["endsAt"], alert["startsAt"]))
        assert (ends - starts).total_seconds() > 600
        (shown,) = wait_for(lambda: watcher.shows("alerts"))
        assert alert["annotations"]["id"] == shown["id"]
        device.send("temp=20")
        wait_for(lambda: active() == [])


def test_a_state_that_can_not_be_used_is_said(layout: Layout) -> None:
    layout.rules_state.write_bytes(b"no database at all, and longer than a header of SQLite" * 9)
    with (
        pytest.raises(AssertionError, match="can't start the rules: file is not a database"),
        Watcher(layout, hot()),
    ):
        pass
