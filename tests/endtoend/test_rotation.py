"""The log's files: rotated between whole lines, compressed, kept for a while, and followed."""

import gzip
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from tests.support.devices import TextDevice
from tests.support.listeners import Listener
from tests.support.processes import INGEST, run
from tests.support.waiting import wait_for

ROTATED = re.compile(r"ingest-\d{8}T\d{6}\.\d{3}Z\.log(\.gz|\.zst)?")


def contents(listener: Listener) -> list[bytes]:
    """Return the content of each file of the log, oldest first, after a look at its name."""
    folder = listener.layout.log_folder
    names = sorted(path.name for path in folder.glob("ingest-*"))
    assert [name for name in names if not ROTATED.fullmatch(name)] == []
    closed = [_unpacked(folder / name) for name in names]
    return [*closed, (folder / "ingest.log").read_bytes()]


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as stream:
            return stream.read()
    return path.read_bytes()


@contextmanager
def following(log: Path, output: BinaryIO) -> Iterator[None]:
    """Run `tail -F` on a log, as an operator does."""
    command = ["tail", "-n", "+1", "-s", "0.01", "-F", str(log)]
    with subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def has_lines(path: Path, count: int) -> bool:
    return path.read_bytes().count(b"\n") == count


def check_whole(files: list[bytes], count: int) -> None:
    """Check that every file has whole lines, and that the numbers go on from one to the next."""
    assert all(content.endswith(b"\n") for content in files[:-1])
    lines = b"".join(files).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, count + 1))


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_by_size(tmp_path: Path, compress: str) -> None:
    options = ("--rotate-size", "10KiB", "--compress", compress)
    with Listener(tmp_path / "data", *options) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            for last in range(10, 501, 10):
                device.push_all(*["x" * 100] * 10, last=last)
        suffix = {"none": ".log", "gzip": ".gz", "zstd": ".zst"}[compress]
        folder = listener.layout.log_folder
        wait_for(
            lambda: {path.suffix for path in folder.glob("ingest-*")} == {suffix}, "compression"
        )
    files = contents(listener)
    assert len(files) > 5
    assert all(0 < len(content) <= 10 << 10 for content in files[:-1])
    check_whole(files, 500)


def test_by_time(tmp_path: Path) -> None:
    with Listener(tmp_path / "data", "--rotate-every", "1s") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            last = 0
            while len(contents(listener)) < 3:
                last += 1
                device.push_all("x", last=last)
                time.sleep(0.05)
        # A file is closed at its time although nothing comes any more.
        wait_for(lambda: contents(listener)[-1] == b"", "the last file's time")
    files = contents(listener)
    for content in files:
        assert len({json.loads(line)["time"][:19] for line in content.splitlines()}) <= 1
    check_whole(files, last)


def test_on_demand(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        assert listener.ingest("rotate") == "the log file is empty\n"
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            for last in (1, 2, 3):
                device.push_all("x", last=last)
                said = listener.ingest("rotate")
                assert said.startswith(f"rotated to {listener.layout.log_folder}/ingest-")
                assert Path(said.removeprefix("rotated to ").strip()).exists()
    files = contents(listener)
    assert len(files) == 4
    check_whole(files, 3)


def test_commands_without_a_listener(tmp_path: Path) -> None:
    for command in ("rotate", "status"):
        result = run(INGEST, "--data", tmp_path, command)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: no listener answers at ")


def test_sighup_follows_an_external_rotation(tmp_path: Path) -> None:
    with Listener(tmp_path / "data") as listener:
        listener.add("a")
        log = listener.layout.log_folder / "ingest.log"
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            device.push_all("before", last=1)
            log.rename(log.with_name("ingest.log.1"))
            os.kill(listener.pid, signal.SIGHUP)
            wait_for(log.exists, "a new file")
            device.push_all("after", last=2)
    assert '"text":"before"' in log.with_name("ingest.log.1").read_text()
    assert '"text":"after"' in log.read_text()


@pytest.mark.parametrize(
    ("option", "bound"), [(("--keep-files", "3"), 4), (("--keep-bytes", "2KiB"), 6)]
)
def test_retention(tmp_path: Path, option: tuple[str, str], bound: int) -> None:
    with Listener(tmp_path / "data", "--rotate-size", "1KiB", *option) as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            device.log_in("a")
            for last in range(1, 101):
                device.push_all("x" * 100, last=last)
        # The files since the last checkpoint of the positions stay: a start reads them.
        wait_for(lambda: len(listener.files()) <= bound, "the removal of old files")
    lines = b"".join(contents(listener)).splitlines()
    numbers = [json.loads(line)["seq"] for line in lines]
    assert numbers == list(range(numbers[0], 101))
    with Listener(tmp_path / "data") as listener, TextDevice(listener.addresses[0]) as device:
        assert device.log_in("a") == 101


def test_an_old_file_is_removed_by_its_age(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "log"
    folder.mkdir(parents=True)
    old = folder / "ingest-20200101T000000.000Z.log"
    old.write_text('{"time":"2020-01-01T00:00:00.000000Z","device":"a","seq":1,"text":"x"}\n')
    with Listener(tmp_path / "data", "--keep-days", "30") as listener:
        listener.add("a")
        with TextDevice(listener.addresses[0]) as device:
            assert device.log_in("a") == 2
        wait_for(lambda: not old.exists(), "the removal of an old file")


def test_a_reader_that_follows_the_name_sees_every_line_once(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Listener(tmp_path / "data", "--rotate-size", "20KiB") as listener:
        listener.add("a")
        with (
            seen.open("wb") as stream,
            TextDevice(listener.addresses[0]) as device,
            following(listener.layout.log_folder / "ingest.log", stream),
        ):
            device.log_in("a")
            for last in range(20, 1001, 20):
                device.push_all(*["x" * 50] * 20, last=last)
                # tail looks once in a while; two rotations meanwhile would be one too many.
                wait_for(partial(has_lines, seen, last), "tail")
    check_whole([seen.read_bytes()], 1000)
