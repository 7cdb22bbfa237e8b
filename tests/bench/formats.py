"""What each line format costs a frame, beside msgpack and opaque text.

    python -m tests.bench.formats [--rounds 7]

In memory, without sockets and disks, in reads of 64 KiB: what becomes a record, its line included.
The same readings, as each format writes them. Nanoseconds are of CPU, and a figure is the best of
all rounds, which alternate: a busy machine only adds.
"""

import time
from collections.abc import Callable, Iterator

import click
import msgpack
import orjson

from ingest.names import FORMATS
from ingest.record import record_block
from ingest.wire.formats import line_format
from ingest.wire.framing import Framing
from ingest.wire.ingest1.msgpack_dialect import MsgpackDialect
from ingest.wire.ingest1.text_dialect import TextDialect

_READ = 65536
_MAX_FRAME = 65536
_READING = {"seq": 12345, "temp": 20.5, "humidity": 0.4, "name": "sensor-no"}
_NESTED = {"id": 12345, "at": {"lat": 48.1, "lon": 11.5}, "readings": [{"t": 20.5}, {"t": 20.75}]}
_JSON = orjson.dumps(_READING)

_LINES = {
    "json": _JSON,
    "json with blanks": _JSON.replace(b",", b", ").replace(b":", b": "),
    "json, nested": orjson.dumps(_NESTED),
    "json with a time in nanoseconds": _JSON.replace(b"12345", b"1465839830100400200"),
    "logfmt": b"seq=12345 temp=20.5 humidity=0.4 name=sensor-no",
    "influx": b"room,name=sensor-no seq=12345i,temp=20.5,humidity=0.4",
    "graphite": b"room.sensor-no.temp 20.5 1461178000",
    "nmea": b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A",
    "csv": b"12345,20.5,0.4,sensor-no",
}
_PACKED: bytes = msgpack.packb(_READING)
_PACKED_NESTED: bytes = msgpack.packb(_NESTED)


def _text(name: str) -> Callable[[], Framing]:
    def make() -> Framing:
        dialect = TextDialect(_MAX_FRAME)
        dialect.parse_by(line_format(name))
        return dialect

    return make


def _packed() -> Framing:
    return MsgpackDialect(_MAX_FRAME)


def _runs() -> Iterator[tuple[str, Callable[[], Framing], bytes]]:
    yield "msgpack", _packed, _PACKED
    yield "msgpack, nested", _packed, _PACKED_NESTED
    yield "opaque", _text("opaque"), _JSON + b"\n"
    for title, line in _LINES.items():
        name = next(name for name in FORMATS if title.startswith(name))
        yield title, _text(name), line + b"\n"
    yield "json, of which one in a hundred is none", _text("json"), b""


def _stream(frame: bytes) -> bytes:
    if frame:
        return frame * (_READ // len(frame))
    return ((_JSON + b"\n") * 99 + b"warming up\n") * 10


def _nanoseconds(make: Callable[[], Framing], stream: bytes) -> float:
    """Return what a frame costs, from the read to the line of the log."""
    framing, frames = make(), 0
    begun = time.thread_time()
    for _ in range(20):
        values = framing.cut(stream).values
        record_block(b"2026-11-22T11:39:00.123456Z", b"sensor-1", frames + 1, values)
        frames += len(values.items)
    return (time.thread_time() - begun) / frames * 1e9


@click.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=7, show_default=True)
def main(rounds: int) -> None:
    """Print what each line format costs a frame."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for title, make, frame in _runs():
            cost = _nanoseconds(make, _stream(frame))
            best[title] = min(cost, best.get(title, cost))
    click.echo("| frames | ns each | msgpack = 1 |\n|---|---:|---:|")
    for title, cost in best.items():
        beside = best["msgpack, nested" if "nested" in title else "msgpack"]
        click.echo(f"| {title} | {cost:,.0f} | {cost / beside:.2f} |")


if __name__ == "__main__":
    main()
