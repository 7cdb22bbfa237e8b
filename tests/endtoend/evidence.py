"""What is found on the disk and on a terminal afterwards, read with no code of the project."""

import gzip
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from tests.endtoend.load import Device

_LINE = re.compile(
    rb'\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","device":"([^"]+)","seq":(\d+),(.*)\}\n'
)
_BLOCK = 1 << 20


def log_pieces(folder: Path) -> Iterator[bytes]:
    """Read the log from its begin to its end, rotated files included, in pieces."""
    plain = {path.name for path in folder.glob("ingest-*.log")}
    names = plain | {path.name.rpartition(".")[0] for path in folder.glob("ingest-*.log.*")}
    for name in sorted(name for name in names if name.endswith(".log")):
        yield from file_pieces(next(iter(sorted(folder.glob(name + "*")))))
    yield from file_pieces(folder / "ingest.log")


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces into lines, each with its LF.

    Raises:
        AssertionError: the last line has no LF.
    """
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    assert rest == b"", f"a line without its end: {rest[:200]!r}"


def check_lines(lines: Iterable[bytes], devices: Iterable[Device]) -> Counter[str]:
    """Compare lines with what the devices sent: each frame once, in order, to the byte.

    Returns:
        How many frames of each device there are; all that it was told of among them.

    Raises:
        AssertionError: a line is torn, repeated, missing or not what was sent.
    """
    sent = {device.name: (device, device.kind.record(device.name)[:-1]) for device in devices}
    counts: Counter[str] = Counter()
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match, f"no whole line: {line[:200]!r}, {len(line)} bytes"
        name, seq = match[1].decode(), int(match[2])
        counts[name] += 1
        assert seq == counts[name], f"{name}: {seq} follows {counts[name] - 1}"
        assert match[3] == sent[name][1] % seq, f"{name}: not what it sent as {seq}: {line[:200]!r}"
    for name, (device, _) in sent.items():
        assert device.acknowledged <= counts[name] <= device.sent, (
            f"{name}: {counts[name]} lines, {device.acknowledged} acknowledged, {device.sent} sent"
        )
    return counts


def digest(pieces: Iterable[bytes]) -> str:
    """Return the SHA-256 of a stream of pieces."""
    hashed = hashlib.sha256()
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def file_pieces(path: Path) -> Iterator[bytes]:
    """Read a file in pieces, decompressed as its name says."""
    with path.open("rb") as raw:
        stream: Any = raw
        if path.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=raw)
        if path.suffix == ".zst":
            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        yield from iter(lambda: stream.read(_BLOCK), b"")
