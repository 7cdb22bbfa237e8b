"""How fast `ingest verify` reads a log. Run it: `python -m tests.bench.verify_speed`.

It takes the processor's time and the best of several rounds, since other programs disturb it.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest.log.files import ACTIVE
from ingest.log.verifying import verify
from ingest.record import Values, record_block

SIZE = 32 << 20  # bytes of each log
READ = 64 << 10  # bytes that one read of a device at full speed brings
DEVICES = 5000
ROUNDS = 5

TEXT = b',"text":"', b"temp=20.5 hum=41 door=shut battery=87 x=%07d", b'"}\n'
ESCAPED = b',"text":"', rb"{\"temp\":20.5,\"door\":\"shut\",\"x\":%07d}", b'"}\n'
DATA = b',"data":', b'{"temp":20.5,"hum":41,"door":"shut","x":%d}', b"}\n"

Kind = tuple[bytes, bytes, bytes]


def runs(kind: Kind) -> Iterator[bytes]:
    """Ten devices at full speed: each read brings many frames."""
    key, value, end = kind
    values = [value % number for number in range(READ // len(value))]
    for read in range(1 << 30):
        first = read // 10 * len(values) + 1
        device = b"fast-%d" % (read % 10)
        yield record_block(_time(read), device, first, Values(key, values, end))


def interleaved(kind: Kind) -> Iterator[bytes]:
    """Many devices, each with one frame to a read, in an order that is not always the same."""
    key, value, end = kind
    for read in range(1 << 30):
        turn, place = divmod(read, DEVICES)
        device = (place * 7 + turn * 13) % DEVICES
        values = Values(key, [value % read], end)
        yield record_block(_time(read), b"slow-%d" % device, turn + 1, values)


def mixed(kind: Kind) -> Iterator[bytes]:
    """A device at full speed among slow ones: single records between the reads."""
    slow = interleaved(kind)
    for block in runs(kind):
        yield block
        yield from islice(slow, 20)


def _time(read: int) -> bytes:
    seconds, micros = divmod(read * 7, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    return b"2026-11-22T11:%02d:%02d.%06dZ" % (minutes, seconds, micros)


def write_log(folder: Path, blocks: Iterator[bytes]) -> int:
    """Write a log of `SIZE` bytes or a little more. Returns its size."""
    size = 0
    with (folder / ACTIVE).open("wb") as stream:
        while size < SIZE:
            size += stream.write(next(blocks))
    return size


def measure(blocks: Iterator[bytes]) -> float:
    """Write a log and verify it. Returns millions of bytes for each second of the processor."""
    with TemporaryDirectory() as name:
        size = write_log(Path(name), blocks)
        return size / 1e6 / min(_seconds(Path(name)) for _ in range(ROUNDS))


def _seconds(folder: Path) -> float:
    begin = time.process_time()
    report = verify(folder)
    spent = time.process_time() - begin
    assert report.breach_count == 0, report.breaches[0]
    return spent


def main() -> None:
    logs: list[tuple[str, Callable[[Kind], Iterator[bytes]]]] = [
        ("10 devices at full speed", runs),
        (f"{DEVICES:,} devices, line by line", interleaved),
        ("both", mixed),
    ]
    kinds = ("text", TEXT), ("text with escapes", ESCAPED), ("msgpack", DATA)
    for name, log in logs:
        for kind, frames in kinds:
            print(f"{name + ', ' + kind:50}{measure(log(frames)):6.0f} MB/s", flush=True)


if __name__ == "__main__":
    main()
