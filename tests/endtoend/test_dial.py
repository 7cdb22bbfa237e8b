"""Devices that only answer, called by a real listener; the devices are real TCP servers."""

import json
import os
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.answering import (
    AnsweringDevice,
    answers,
    answers_and_closes,
    answers_over_tls,
    counts,
    counts_on,
    drips,
    drips_for_ever,
    never_ends,
    silent,
    talks,
)
from tests.support.certificates import make_certificate, tls_server
from tests.support.devices import TextDevice
from tests.support.listeners import ANY_PORT, Listener
from tests.support.processes import INGEST, TWISTD, run
from tests.support.waiting import wait_for

OFTEN = "100ms"


def table(device: str, port: int, **keys: Any) -> str:
    """Write a table `[[dial]]`; `until`, `every` and `send` have values unless they are given."""
    if not keys.keys() & {"until", "length", "silence", "close"}:
        keys["until"] = "\n"
    if "stay" not in keys:
        keys.setdefault("every", OFTEN)
    keys = {"device": device, "connect": f"tcp:127.0.0.1:{port}", "send": "Hello, IoT!", **keys}
    lines = [f"{key.replace('_', '-')} = {_toml(value)}" for key, value in keys.items()]
    return "\n".join(["[[dial]]", *lines, ""])


def _toml(value: object) -> str:
    return json.dumps(value)  # TOML spells these as JSON does


class Dialling(Listener):
    """A listener with tables `[[dial]]`, whose devices are registered before."""

    def __init__(self, folder: Path, *tables: str, under: tuple[str | Path, ...] = ()) -> None:
        self.config = folder / "ingest.toml"
        self.config.write_text("".join(tables))
        # When a device that is down is called again is a matter of tests with a clock of their own.
        pauses = {"ingest.listener.dialer._RETRY": 0.1}
        super().__init__(folder / "data", "--config", self.config, under=under, pauses=pauses)

    def reload(self, *tables: str) -> None:
        self.config.write_text("".join(tables))
        os.kill(self.pid, signal.SIGHUP)

    def wait_for_frames(self, device: str, count: int) -> list[Any]:
        wait_for(lambda: len(self.lines(device)) >= count, f"{count} frames of {device}")
        return self.frames(device)[:count]


def register(folder: Path, *names: str) -> None:
    Listener(folder / "data").add(*names)


def test_each_way_in_which_a_reply_ends(tmp_path: Path) -> None:
    register(tmp_path, "until", "length", "silence", "close", "stay")
    with (
        AnsweringDevice(answers(b"20.5\r\n", b"20.6\r\n")) as until,
        AnsweringDevice(answers(b"\x01\x03\xff\n")) as length,
        AnsweringDevice(answers(b"20.5")) as silence,
        AnsweringDevice(answers_and_closes(b"20.5\n20.6\n")) as close,
        AnsweringDevice(talks(b"a\nb", b"\nc\n")) as stay,
        Dialling(
            tmp_path,
            table("until", until.port),
            table("length", length.port, length=4, send_base64="AQID", send=""),
            table("silence", silence.port, silence="50ms"),
            table("close", close.port, close=True),
            table("stay", stay.port, stay=True, send=""),
        ) as listener,
    ):
        assert listener.wait_for_frames("until", 2) == ["20.5", "20.6"]
        assert listener.wait_for_frames("length", 2) == ["AQP/Cg=="] * 2
        assert listener.wait_for_frames("silence", 2) == ["20.5"] * 2
        assert listener.wait_for_frames("close", 2) == ["20.5\n20.6"] * 2
        assert listener.wait_for_frames("stay", 3) == ["a", "b", "c"]
        assert set(until.asked) == {b"Hello, IoT!"}
        assert length.asked[0] == b"\x01\x02\x03"
        assert stay.calls == 1
        dialled = listener.status()["dialled"]
        assert (dialled["devices"], dialled["down"], dialled["failures"]) == (5, 0, 0)
        assert "5 devices, 0 of them down" in listener.ingest("status")
    listener.ingest("verify")


def test_replies_are_in_the_format_of_their_device(tmp_path: Path) -> None:
    register(tmp_path, "a", "b")
    done = run(INGEST, "--data", tmp_path / "data", "device", "set", "a", "--format", "json")
    assert done.returncode == 0, done.stderr
    with (
        AnsweringDevice(answers(b'{"t":20.5}\n', b"broken\n")) as meter,
        AnsweringDevice(answers(b"t=20.5\n")) as logfmt,
        Dialling(
            tmp_path, table("a", meter.port), table("b", logfmt.port, format="logfmt")
        ) as listener,
    ):
        assert listener.wait_for_frames("a", 2) == [{"t": 20.5}, "broken"]
        assert listener.wait_for_frames("b", 1) == [{"t": 20.5}]
        wait_for(lambda: listener.status()["devices"]["a"]["unparsed_frames"] > 0, "the count")
        assert listener.status()["devices"]["b"]["unparsed_frames"] == 0


def test_one_line_when_a_device_goes_down_and_one_when_it_is_back(tmp_path: Path) -> None:
    register(tmp_path, "boiler")
    device = AnsweringDevice(answers(b"1\n"))
    with Dialling(tmp_path, table("boiler", device.port)) as listener:
        with device:
            listener.wait_for_frames("boiler", 1)
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said("is down: Connection refused") == 1
        assert listener.status()["dialled"]["down"] == 1
        before = len(listener.frames("boiler"))
        with AnsweringDevice(answers(b"2\n"), device.port):
            assert listener.wait_for_frames("boiler", before + 1)[-1] == "2"
            wait_for(lambda: listener.said("answers again") == 1, "the line")
            assert listener.status()["dialled"]["down"] == 0
        assert listener.said("is down") <= 2
    listener.ingest("verify")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (silent, "no reply with"),
        (answers_and_closes(b""), "it closed without a reply with"),
    ],
)
def test_a_device_that_gives_no_reply_is_down(tmp_path: Path, behaviour: Any, reason: str) -> None:
    register(tmp_path, "a", "b")
    with (
        AnsweringDevice(behaviour) as bad,
        AnsweringDevice(answers(b"1\n")) as good,
        Dialling(
            tmp_path, table("a", bad.port, timeout="100ms"), table("b", good.port)
        ) as listener,
    ):
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said(f"is down: {reason}") == 1
        assert listener.wait_for_frames("b", 3) == ["1"] * 3
        assert listener.lines("a") == []


def test_a_device_that_is_disabled_is_not_called(tmp_path: Path) -> None:
    register(tmp_path, "a")
    with (
        AnsweringDevice(answers(b"1\n")) as device,
        AnsweringDevice(answers(b"1\n")) as stranger,
        Dialling(tmp_path, table("a", device.port), table("b", stranger.port)) as listener,
    ):
        listener.wait_for_frames("a", 1)
        listener.ingest("device", "disable", "a")
        wait_for(lambda: listener.said("a at tcp:127.0.0.1") == 1, "the line")
        assert listener.said("is down: it is not registered, or disabled") == 2
        calls, failures = device.calls, listener.status()["dialled"]["failures"]
        wait_for(lambda: listener.status()["dialled"]["failures"] > failures + 4, "failures")
        assert (device.calls, stranger.calls) == (calls, 0)
        listener.ingest("device", "enable", "a")
        wait_for(lambda: device.calls > calls, "another call")


def test_a_connection_that_stays_is_cut_when_its_device_is_disabled(tmp_path: Path) -> None:
    register(tmp_path, "a")
    with (
        AnsweringDevice(talks(b"1\n")) as device,
        Dialling(tmp_path, table("a", device.port, stay=True, send="")) as listener,
    ):
        listener.wait_for_frames("a", 1)
        listener.ingest("device", "disable", "a")
        wait_for(lambda: listener.status()["connections"] == 0, "the end of the connection")
        assert device.calls == 1


def test_a_connection_that_is_lost_is_made_again(tmp_path: Path) -> None:
    register(tmp_path, "a")
    with (
        AnsweringDevice(answers_and_closes(b"1\n")) as device,
        Dialling(tmp_path, table("a", device.port, stay=True)) as listener,
    ):
        assert listener.wait_for_frames("a", 2) == ["1", "1"]
        assert device.calls >= 2
        assert listener.said("is down") == 0


def test_sighup(tmp_path: Path) -> None:
    register(tmp_path, "a", "b", "c")
    with (
        AnsweringDevice(answers(b"1\n")) as first,
        AnsweringDevice(answers(b"2\n")) as second,
        Dialling(tmp_path, table("a", first.port), table("b", first.port, every="1h")) as listener,
    ):
        listener.wait_for_frames("a", 1)
        listener.reload(table("b", first.port, every="1h"), table("c", second.port))
        assert listener.wait_for_frames("c", 1) == ["2"]
        assert listener.said("dial: a is called no more from now on") == 1
        assert listener.said(f"dial: c at tcp:127.0.0.1:{second.port} (every 0.1 s) from now") == 1
        assert listener.said("dial: b") == 0
        listener.reload(table("c", second.port, connect="carrier:pigeon"))
        wait_for(
            lambda: listener.said("the settings stay as they are: [[dial]] table 1, c") == 1,
            "the line",
        )
        frames = len(listener.lines("c"))
        listener.wait_for_frames("c", frames + 1)


def test_tls(tmp_path: Path) -> None:
    """The certificate of the device is checked for the name of its host."""
    register(tmp_path, "known", "unknown")
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    make_certificate(trusted / "device.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted / "device.pem")
    with AnsweringDevice(answers_over_tls(context, b"20.5\n")) as device:
        endpoint = f"tls:127.0.0.1:{device.port}"
        with Dialling(
            tmp_path,
            table("known", device.port, connect=f"{endpoint}:trustRoots={trusted}"),
            table("unknown", device.port, connect=endpoint),
        ) as listener:
            assert listener.wait_for_frames("known", 2) == ["20.5"] * 2
            wait_for(lambda: device.closed >= 2, "connections that are closed in good order")
            wait_for(lambda: listener.said("unknown at tls") == 1, "the line")
            assert listener.said("is down: TLS: certificate verify failed") == 1
            assert listener.lines("unknown") == []


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        (table("a", 1, connect="tcp:nowhere"), "[[dial]] table 1, a: connect = 'tcp:nowhere'"),
        (
            table("a", 1) + table("b", 1, connect="tls:x:1:trustRoots=/nowhere"),
            "[[dial]] table 2, b: connect = 'tls:x:1:trustRoots=/nowhere'",
        ),
        (
            table("a", 1, connect="tcp:127.0.0.1:99999"),
            "a port is from 1 to 65535; the form is tcp:",
        ),
        (table("a", 1, connect="tls:h:port=0"), "a port is from 1 to 65535"),
        (table("a", 1, connect="tcp::5"), "a host is wanted; the form is tcp:"),
        (table("a", 1, connect="tcp:::1:5"), "the form is tcp:192.0.2.1:12345, tcp:[2001:db8::1]"),
        (table("a", 1, untill="x"), "there is no 'untill'; did you mean until?"),
        (table("a", 1) + table("a", 2), "table 2, a: the device has another table already"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, tables: str, line: str) -> None:
    config = tmp_path / "ingest.toml"
    config.write_text(tables)
    data = tmp_path / "data"
    command: list[str | Path] = [
        TWISTD,
        "-n",
        "--pidfile=",
        "ingest",
        "--data",
        data,
        "--listen",
        ANY_PORT,
    ]
    done = run(*command, "--config", config)
    assert done.returncode == 1
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_replies_in_pieces(tmp_path: Path) -> None:
    register(tmp_path, "until", "length", "silence", "close")
    with (
        AnsweringDevice(drips(b"20.5\r\n21")) as until,
        AnsweringDevice(drips(b"20.5")) as length,
        AnsweringDevice(drips(b"20.5\r\n")) as silence,
        AnsweringDevice(drips(b"a\r\nb\r\n", closes=True)) as close,
        Dialling(
            tmp_path,
            table("until", until.port, until="\r\n"),
            table("length", length.port, length=4),
            table("silence", silence.port, silence="200ms"),
            table("close", close.port, close=True),
        ) as listener,
    ):
        assert listener.wait_for_frames("until", 2) == ["20.5"] * 2
        assert listener.wait_for_frames("length", 2) == ["20.5"] * 2
        assert listener.wait_for_frames("silence", 2) == ["20.5"] * 2
        assert listener.wait_for_frames("close", 2) == ["a\r\nb"] * 2
        assert listener.status()["dialled"]["failures"] == 0


@pytest.mark.parametrize(
    "ending", [{"until": "\n"}, {"silence": "1s"}, {"close": True}, {"length": 100_000}]
)
@pytest.mark.parametrize("stay", [False, True])
def test_a_reply_without_an_end(tmp_path: Path, ending: dict[str, Any], stay: bool) -> None:
    """It costs one connection and the bytes of one frame, and delays nobody."""
    if stay and "close" in ending:
        return
    register(tmp_path, "a", "b")
    keys = {**ending, "stay": True} if stay else ending
    with (
        AnsweringDevice(never_ends) as bad,
        AnsweringDevice(answers(b"1\n")) as good,
        Dialling(tmp_path, table("a", bad.port, **keys), table("b", good.port)) as listener,
    ):
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said("is down: more than 65536 bytes") == 1
        assert listener.wait_for_frames("b", 3) == ["1"] * 3
        assert listener.lines("a") == []


@pytest.mark.parametrize(
    "keys",
    [{"until": "\n"}, {"length": 1000}, {"close": True}, {"silence": "1s"},
     {"silence": "1s", "stay": True}],
)  # fmt: skip
def test_a_reply_that_drips_has_its_time(tmp_path: Path, keys: dict[str, Any]) -> None:
    register(tmp_path, "a")
    with (
        AnsweringDevice(drips_for_ever) as bad,
        Dialling(tmp_path, table("a", bad.port, timeout="300ms", **keys)) as listener,
    ):
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said("is down: no reply") == 1
        assert listener.lines("a") == []


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    register(tmp_path, "a", "b")
    with (
        AnsweringDevice(answers(b"1\n")) as good,
        Dialling(
            tmp_path, table("a", 1, connect="tcp:device.invalid:1"), table("b", good.port)
        ) as listener,
    ):
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said("a at tcp:device.invalid:1 is down: ") == 1
        assert listener.wait_for_frames("b", 3) == ["1"] * 3


def test_a_name_server_that_is_dead(tmp_path: Path) -> None:
    """Names that nobody tells keep nothing from names that are known, and no stop from its end."""
    silent_ones = [f"silent-{number}" for number in range(20)]
    register(tmp_path, "a", *silent_ones)
    settings = tmp_path / "resolv.conf"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server,
        AnsweringDevice(answers(b"1\n")) as device,
    ):
        name_server.bind(("127.53.0.1", 53))  # where it hears all, and says nothing
        settings.write_text("nameserver 127.53.0.1\n")
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        with Dialling(
            tmp_path,
            *(table(name, 1, connect=f"tcp:{name}.example:1") for name in silent_ones),
            table("a", device.port, connect=f"tcp:localhost:{device.port}"),
            under=("unshare", "--mount", "sh", "-c", script, settings),
        ) as listener:
            wait_for(lambda: listener.status()["dialled"]["calls"] > len(silent_ones), "the calls")
            calls = device.calls
            wait_for(lambda: device.calls > calls + 1, "calls of the device that is known")
            listener.wait_for_frames("a", 2)


@pytest.mark.parametrize(
    ("address", "days", "reason"),
    [("127.0.0.2", 1, "another name"), ("127.0.0.1", -1, "TLS: certificate verify failed")],
)
def test_a_certificate_that_is_not_good(
    tmp_path: Path, address: str, days: int, reason: str
) -> None:
    register(tmp_path, "a")
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    context = tls_server(make_certificate(trusted / "device.pem", timedelta(days=days), address))
    with (
        AnsweringDevice(answers_over_tls(context, b"20.5\n")) as device,
        Dialling(
            tmp_path,
            table("a", 1, connect=f"tls:127.0.0.1:{device.port}:trustRoots={trusted}"),
        ) as listener,
    ):
        wait_for(lambda: listener.status()["dialled"]["failures"] >= 2, "two failures")
        assert listener.said("a at tls:") == 1
        assert listener.said(reason) == 1
        assert listener.lines("a") == []


def test_a_kill_between_polls(tmp_path: Path) -> None:
    """Numbers stay exact, and no reply is stored twice."""
    register(tmp_path, "a", "b")
    with AnsweringDevice(counts) as polled, AnsweringDevice(counts_on) as staying:
        tables = (
            table("a", polled.port, every="1ms"),
            table("b", staying.port, stay=True, send=""),
        )
        with Dialling(tmp_path, *tables) as listener:
            for turn in range(5):
                listener.wait_for_frames("a", 5 * turn + 5)
                listener.wait_for_frames("b", 5 * turn + 5)
                listener.kill()
                listener.start()
            for name in ("a", "b"):
                replies = list(map(int, listener.wait_for_frames(name, 30)))
                assert replies == sorted(set(replies))
    listener.ingest("verify")


def test_a_device_that_is_dialled_and_pushes(tmp_path: Path) -> None:
    """Each takes over from the other, with the numbers of one device."""
    register(tmp_path, "a")
    with (
        AnsweringDevice(counts_on) as device,
        Dialling(tmp_path, table("a", device.port, stay=True, send="")) as listener,
    ):
        for turn in range(3):
            dialled = len(listener.lines("a"))
            listener.wait_for_frames("a", dialled + 3)
            with TextDevice(listener.addresses[0]) as pusher:
                following = pusher.log_in("a")
                pusher.push_all(f"pushed {turn}", last=following)
                assert listener.frames("a")[following - 1] == f"pushed {turn}"
                assert pusher.last_words() == "replaced"
        frames = listener.frames("a")
        replies = [int(frame) for frame in frames if not frame.startswith("pushed")]
        assert replies == sorted(set(replies))
        assert sum(frame.startswith("pushed") for frame in frames) == 3
    listener.ingest("verify")


def test_a_full_disk(tmp_path: Path) -> None:
    """No reply is lost: who stays waits, and who is polled is not asked meanwhile."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], check=True)
    try:
        register(disk, "polled", "staying")
        with (
            AnsweringDevice(counts) as polled,
            AnsweringDevice(counts_on) as staying,
            Dialling(
                disk,
                table("polled", polled.port, every="10ms"),
                table("staying", staying.port, stay=True, send=""),
            ) as listener,
        ):
            listener.wait_for_frames("polled", 3)
            _fill(disk / "ballast")
            wait_for(lambda: listener.status()["health"] == "disk-failing", "the full disk")
            wait_for(lambda: listener.status()["connections"] <= 2, "the end of polls")
            asked = len(polled.asked)
            wait_for(lambda: len(staying.asked) > 0, "the device that stays")
            before = listener.status()["uptime_s"]
            wait_for(lambda: listener.status()["uptime_s"] > before + 1, "a second")
            assert len(polled.asked) <= asked + 1
            stored = {name: len(listener.lines(name)) for name in ("polled", "staying")}
            (disk / "ballast").unlink()
            for name, count in stored.items():
                replies = list(map(int, listener.wait_for_frames(name, count + 50)))
                assert replies == list(range(1, count + 51))
            assert listener.status()["dialled"]["failures"] == 0
        listener.ingest("verify")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(4096)):
            pass
