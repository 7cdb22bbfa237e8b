"""How fast SQL over the log is, and how small Parquet. Run: `python -m tests.bench.query_speed`.

It makes a log of the benchmark's own frames (`ingest.bench.frames`), as closed files of 256 MiB,
asks for the mean by device and hour over the lines, converts them, and asks again. Other programs
disturb it: of several runs the fastest counts, and ratios tell more than times. It needs about
2 GB for a while, in the folder for temporary files; `--records` makes it smaller.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack
import orjson

from ingest.bench.frames import make_block
from ingest.layout import Layout
from ingest.log.files import rotated_name
from ingest.record import Values, record_block
from ingest.watch.columns import Converter
from ingest.watch.query import Limits, run_query
from tests.log.logs import at

DEVICES = 100
HOURS = 24
READ = 100  # frames that one read brings
FILE_SIZE = 256 << 20
ROUNDS = 5

MEAN = (
    "SELECT device, date_trunc('hour', time) AS hour, avg({field}) AS mean, count(*) AS n"
    " FROM log GROUP BY ALL"
)
Kind = tuple[bytes, bytes, list[bytes], str]


def msgpack_kind() -> Kind:
    """Maps of 56 bytes, as the listener writes them."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(make_block("msgpack", 56).data)
    return b',"data":', b"}\n", [orjson.dumps(frame) for frame in unpacker], "temp"


def text_kind() -> Kind:
    """Lines of 50 bytes."""
    return b',"text":"', b'"}\n', make_block("text", 50).data.split(b"\n")[:-1], "temp"


def blocks(kind: Kind, records: int) -> Iterator[bytes]:
    """One read after another, each of another device."""
    key, end, values, _ = kind
    step = timedelta(hours=HOURS) * READ / records
    for read in range(records // READ):
        moment = at(0).replace(tzinfo=None) + read * step
        time_ = moment.isoformat(timespec="microseconds").encode() + b"Z"
        turn, device = divmod(read, DEVICES)
        place = read * READ % (len(values) - READ)
        frames = Values(key, values[place : place + READ], end)
        yield record_block(time_, b"bench-%04d" % device, turn * READ + 1, frames)


def write_log(layout: Layout, kind: Kind, records: int) -> int:
    """Write closed files; return their size in bytes."""
    source = blocks(kind, records)
    total = 0
    newest = None
    while block := next(source, None):
        newest = rotated_name(at(total / 1e6 + 1), newest)
        with (layout.log_folder / newest).open("wb") as stream:
            stream.write(block)
            while stream.tell() < FILE_SIZE and (block := next(source, None)):
                stream.write(block)
            total += stream.tell()
    return total


def ask(layout: Layout, field: str, records: int) -> float:
    """Ask once; return the seconds that it took, with the start of its process."""
    result = run_query(
        layout, MEAN.format(field=field), limits=Limits(seconds=600, memory=1 << 30, threads=2)
    )
    counted = sum(row[3] for row in result.rows if isinstance(row[3], int))
    assert counted == records, (counted, records)
    return result.seconds


def convert(layout: Layout) -> float:
    """Convert all files; return the records a second of the fastest one."""
    converter = Converter(layout)
    rates = []
    try:
        while True:
            before, begun = converter.progress.records, time.perf_counter()
            if not converter.convert_next():
                break
            records = converter.progress.records - before
            rates.append(records / (time.perf_counter() - begun))
            print(f"  {records:,} records, {rates[-1]:,.0f} a second", flush=True)
    finally:
        converter.stop()
    assert converter.progress.failed == ()
    # The last one may be short, and the start of a process then counts too much.
    return max(rates)


def measure(name: str, kind: Kind, records: int) -> None:
    """Measure one kind of frames, and print what must be reached."""
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.create()
        size = write_log(layout, kind, records)
        print(f"{name}: {records:,} records, {size / 1e9:.2f} GB of lines", flush=True)
        lines = min(ask(layout, kind[3], records) for _ in range(2))
        rate = convert(layout)
        stored = sum(path.stat().st_size for path in layout.columns_folder.glob("*/*.parquet"))
        columns = min(ask(layout, kind[3], records) for _ in range(ROUNDS))
    print(f"  mean by device and hour: {columns:.2f} s over Parquet (must be under 1 s)")
    print(f"  the same over the lines: {lines:.2f} s, {lines / columns:.0f} times (must be 10)")
    print(f"  converted: {rate:,.0f} records/s (must be 500,000)")
    print(f"  size: {stored / 1e6:.1f} MB, 1/{size / stored:.0f} of the lines (must be 1/8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    records = parser.parse_args().records // READ * READ
    measure("msgpack maps of 56 bytes", msgpack_kind(), records)
    measure("text of 50 bytes", text_kind(), records)


if __name__ == "__main__":
    main()
