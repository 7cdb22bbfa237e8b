"""An acknowledgement means that the record is on disk; strace is the witness."""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.devices import PackedDevice, TextDevice
from tests.support.listeners import Listener
from tests.support.waiting import wait_for

CALLS = "openat,write,writev,pwrite64,pwritev,sendto,fdatasync,fsync,rename"

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>(.*)|(\w+)\((.*))")
_UNFINISHED = " <unfinished ...>"
_RECORD = re.compile(r'\\"device\\":\\"([^"\\]+)\\",\\"seq\\":(\d+),')
_TARGET = re.compile(r"\d+<(.*?)>[,)]")


class Call(NamedTuple):
    """A system call that succeeded, with the lines of the trace where it begins and ends."""

    begin: int
    end: int
    name: str
    arguments: str

    @property
    def target(self) -> str:
        """What its first argument, a descriptor, stands for."""
        match = _TARGET.match(self.arguments)
        return match[1] if match else ""


def completed(trace: Iterable[str]) -> Iterator[Call]:
    """Put the calls of all threads together from a trace."""
    pending: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(trace):
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None:
            continue
        thread, resumed, name, arguments = match.groups()
        begin, name, so_far = (number, name, "") if name else pending.pop(thread)
        text = so_far + (arguments or resumed or "")
        if text.endswith(_UNFINISHED):
            pending[thread] = (begin, name, text.removesuffix(_UNFINISHED))
        elif not re.search(r"\) += -1 E", text):
            yield Call(begin, number, name, text)


def trace_of(tmp_path: Path, *options: str) -> list[Call]:
    """Run a listener under strace with two devices, over several rotations."""
    assert shutil.which("strace"), "these tests need strace: apt-get install strace"
    trace = tmp_path / "trace"
    # -D: twistd is our own child, and strace its grandchild; -y: descriptors with their names.
    strace = ("strace", "-D", "-f", "-yy", "-s", "100000", "-e", f"trace={CALLS}", "-o", str(trace))
    rotation = ("--rotate-size", "4KiB")
    with Listener(tmp_path / "data", *rotation, *options, under=strace) as listener:
        listener.add("a", "b")
        with TextDevice(listener.addresses[0]) as a, PackedDevice(listener.addresses[0]) as b:
            a.log_in("a")
            b.log_in("b")
            for last in range(10, 201, 10):
                a.push(*["x" * 20] * 10)
                b.push(*["x" * 20] * 10)
                a.wait_for_ack(last)
                b.wait_for_ack(last)
    wait_for(
        lambda: "+++ exited" in _last_line(trace) or "+++ killed" in _last_line(trace), "strace"
    )
    with trace.open() as lines:
        return list(completed(lines))


def _last_line(trace: Path) -> str:
    return trace.read_text().rstrip("\n").rpartition("\n")[2]


class Acknowledgement(NamedTuple):
    """That a record is on disk, said by a call."""

    device: str
    seq: int
    call: Call


def acknowledgements(calls: list[Call]) -> Iterator[Acknowledgement]:
    """Go through the acknowledgements that were sent."""
    devices: dict[str, str] = {}
    for call in calls:
        if call.name != "sendto":
            continue
        if match := re.search(r'"OK device=(\w+)', call.arguments):
            devices[call.target] = match[1]
        elif re.search(r"\\242ok\\20[34]", call.arguments):
            devices[call.target] = "b"
        for seq in re.findall(r"ACK (\d+)", call.arguments):
            yield Acknowledgement(devices[call.target], int(seq), call)
        if match := re.search(r'\\201\\243ack(.*)", \d+, ', call.arguments):
            yield Acknowledgement(devices[call.target], _msgpack_int(match[1]), call)


def _msgpack_int(escaped: str) -> int:
    data = escaped.encode().decode("unicode_escape").encode("latin-1")
    return data[0] if len(data) == 1 else int.from_bytes(data[1:], "big")


def is_log(path: str) -> bool:
    return path.endswith("/log/ingest.log")


def writes_of_records(calls: list[Call]) -> dict[tuple[str, int], Call]:
    """Find the call that wrote each record into the log."""
    return {
        (device, int(seq)): call
        for call in calls
        if call.name in ("write", "writev", "pwrite64", "pwritev") and is_log(call.target)
        for device, seq in _RECORD.findall(call.arguments)
    }


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """The calls of a listener with the default durability."""
    return trace_of(tmp_path_factory.mktemp("synced"))


def test_a_sync_lies_between_each_record_and_its_acknowledgement(synced: list[Call]) -> None:
    writes = writes_of_records(synced)
    syncs = [call for call in synced if call.name == "fdatasync" and is_log(call.target)]
    told = list(acknowledgements(synced))
    assert {(each.device, each.seq) for each in told} >= {("a", 200), ("b", 200)}
    for device, seq, call in told:
        write = writes[device, seq]
        assert any(write.end < sync.begin and sync.end < call.begin for sync in syncs), (
            device,
            seq,
        )


def test_every_record_is_written_once(synced: list[Call]) -> None:
    written = [
        record
        for call in synced
        if call.name in ("write", "writev") and is_log(call.target)
        for record in _RECORD.findall(call.arguments)
    ]
    assert sorted(written) == sorted((name, str(n)) for name in "ab" for n in range(1, 201))


def test_the_folder_is_synced_before_a_new_file_counts(synced: list[Call]) -> None:
    writes = writes_of_records(synced)
    changes = [
        call
        for call in synced
        if call.name == "rename" or (call.name == "openat" and "O_CREAT" in call.arguments)
        if re.search(r'/log/ingest[^"/]*\.log"', call.arguments)
    ]
    folder_syncs = [c for c in synced if c.name == "fsync" and c.target.endswith("/log")]
    assert sum(call.name == "rename" for call in changes) > 3
    for device, seq, call in acknowledgements(synced):
        write = writes[device, seq]
        before = max(change.end for change in changes if change.end < write.begin)
        assert any(before < sync.begin and sync.end < call.begin for sync in folder_syncs)


def test_without_syncs_where_the_operator_wants_none(tmp_path: Path) -> None:
    calls = trace_of(tmp_path, "--durability", "os")
    assert not [call for call in calls if call.name == "fdatasync" and is_log(call.target)]
    writes = writes_of_records(calls)
    told = list(acknowledgements(calls))
    assert len(told) > 10
    assert all(writes[device, seq].end < call.begin for device, seq, call in told)
