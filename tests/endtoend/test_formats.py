"""Line formats with a real listener: by its option, and by what the registry says."""

import re
from pathlib import Path

from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.processes import INGEST, run


def push(listener: Listener, name: str, *lines: str) -> None:
    with TextDevice(listener.addresses[0]) as device:
        following = device.log_in(name)
        device.push_all(*lines, last=following + len(lines) - 1)


def test_a_format_counts_in_the_books_and_in_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, options in (("a", []), ("b", ["--format", "influx"])):
        done = run(INGEST, "--data", data, "device", "add", name, "--token", "s3cr3t", *options)
        assert done.returncode == 0, done.stderr
    settings = tmp_path / "ingest.toml"
    settings.write_text(
        '[[listen]]\nendpoint = "tcp:0:interface=127.0.0.1"\nformat = "json"\n', encoding="utf-8"
    )
    with Listener(data, "--config", settings, listen=()) as listener:
        push(listener, "a", '{"t": 20.5}', "booting", "[1]")
        push(listener, "b", "room t=20i")
        listener.ingest("device", "set", "a", "--format", "logfmt")
        push(listener, "a", "t=20.5", '{"t": 20.5}')
        frames = listener.all_frames()
        assert frames["a"] == [{"t": 20.5}, "booting", [1], {"t": 20.5}, '{"t": 20.5}']
        assert frames["b"] == [{"measurement": "room", "fields": {"t": 20}}]
        books = listener.status()["devices"]
        assert (books["a"]["unparsed_frames"], books["b"]["unparsed_frames"]) == (2, 0)
        assert books["a"]["written_frames"] == 5
        assert re.search(r"not in their format +2 ", listener.ingest("status"))
        listener.ingest("verify")
    with Listener(data, "--config", settings, listen=()) as listener:
        push(listener, "a", "t=20.6")
        assert listener.frames("a")[-1] == {"t": 20.6}
