"""What a real listener says of refusals and the disk."""

import socket
from pathlib import Path
from threading import Thread

from ingest.layout import Layout
from ingest.watch.rules.surroundings import ask_listener
from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for


def test_a_listener_tells_its_refusals(tmp_path: Path) -> None:
    data = tmp_path / "ingest-data"
    assert ask_listener(Layout(data).control) is None
    with Listener(data, "--max-frame", "100", cwd=tmp_path) as listener:
        listener.add("a")
        for _ in range(3):
            with TextDevice(listener.addresses[0]) as device:
                device.log_in("a")
                device.push("ok", "x" * 200)
                while device.reply()[0] != "end":
                    pass
        told = wait_for(lambda: ask_listener(Layout(data).control))
        assert told.refusals == {"a": 3}
    assert ask_listener(Layout(data).control) is None


def test_what_is_no_listener(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(control))
        server.listen()
        assert ask_listener_of(server, control, b"nonsense\n") is None
        assert ask_listener_of(server, control, b'{"error": "no"}\n') is None
        told = ask_listener_of(server, control, b'{"ok": {"devices": {}, "disk_full_in_s": 9.5}}\n')
        assert told == 9.5


def ask_listener_of(server: socket.socket, control: Path, answer: bytes) -> float | None:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    thread = Thread(target=serve)
    thread.start()
    told = ask_listener(control)
    thread.join()
    return None if told is None else told.disk_full_in
