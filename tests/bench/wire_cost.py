"""What each kind of msgpack costs the wire, for each byte: the table of the worst inputs.

    python -m tests.bench.wire_cost [--beside CHECKOUT] [--rounds 5] [--only WORD]

In memory, without sockets and disks. Each input goes through a conversation of `ingest/1`, in reads
as a network may bring them. With `--beside`, the same is measured with the code of another
checkout, in alternating rounds. Seconds are of CPU, and a figure is the best of all rounds: a busy
machine only adds.
"""

import gc
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click
import msgpack

FRAME = 65536
READ = 120 << 10  # bytes, the most that the listener reads at once
_HERE = Path(__file__).resolve().parents[2]
_COLLECT_AFTER = 20_000  # as the listener has it


class Input(NamedTuple):
    """A stream of frames, and how it arrives.

    Attributes:
        stream: whole frames.
        piece: bytes of each read.
    """

    stream: bytes
    piece: int = READ

    def reads(self) -> list[bytes]:
        """Cut the stream."""
        return [self.stream[at : at + self.piece] for at in range(0, len(self.stream), self.piece)]


def _array(item: bytes, last: bytes = b"") -> bytes:
    """Write a frame of nearly 64 KiB: an array of one item over and over."""
    count = (FRAME - 5 - len(last)) // len(item)
    return b"\xdd" + struct.pack(">I", count + bool(last)) + item * count + last


def _text(text: str) -> bytes:
    packed: bytes = msgpack.packb(text * ((FRAME - 5) // len(text.encode())))
    return packed


def _wide(deep: int) -> bytes:
    """Write a frame that is nested so deep, with all its bytes at the bottom."""
    return b"\x91" * deep + b"\xdd" + struct.pack(">I", 65000) + b"\x01" * 65000


_MAP: bytes = msgpack.packb({"seq": 12345, "temp": 20.5, "humidity": 0.4, "name": "sensor-no"})
_LARGER: bytes = msgpack.packb({f"key-{number}": number / 3 for number in range(16)})
_BIN = b"\xc4\x01x"
_NAN = b"\xcb\x7f\xf8" + b"\0" * 6
_DOLLAR = b"\x81\xa2$a\x01"
_DATE = b"\xd6\xff\0\0\0\x01"
_NESTED = b"\x81\xa1k" * 62 + b"\xc0"

INPUTS = {
    "plain maps, reads of 120 KiB": Input(_MAP * 9000),
    "plain maps, reads of 64 KiB": Input(_MAP * 9000, 65536),
    "plain maps, a read each": Input(_MAP * 2000, len(_MAP)),
    "plain maps of 16 floats": Input(_LARGER * 2000),
    "plain maps of 16 floats, a read each": Input(_LARGER * 1000, len(_LARGER)),
    "plain strs of 60 kB": Input(msgpack.packb("x" * 60000) * 6),
    "plain array of small ints": Input(_array(b"\x01") * 4),
    "array of small ints, in pieces of 16 KiB": Input(_array(b"\x01") * 4, 16384),
    "array of small ints, in pieces of 1,400 bytes": Input(_array(b"\x01") * 4, 1400),
    "array of small ints, in pieces of 63 bytes": Input(_array(b"\x01"), 63),
    "array of small ints, byte by byte": Input(_array(b"\x01")[:20_000], 1),
    "array of maps 62 deep": Input(_array(_NESTED) * 4),
    "array of maps 62 deep, in pieces of 16 KiB": Input(_array(_NESTED) * 4, 16384),
    "array of empty arrays": Input(_array(b"\x90") * 4),
    "array of empty maps": Input(_array(b"\x80") * 4),
    "63 deep and wide at the bottom, in pieces of 50 kB": Input(_wide(62) * 4, 50_000),
    "small ints, a frame each": Input(b"\x01" * READ * 2),
    "one bin among maps": Input((_MAP * 1000 + _BIN + _MAP * 1000) * 3),
    "one NaN among maps": Input((_MAP * 1000 + _NAN + _MAP * 1000) * 3),
    "one $ map among maps": Input((_MAP * 1000 + _DOLLAR + _MAP * 1000) * 3),
    "a bin in each second map": Input((_MAP + b"\x81\xa1b" + _BIN) * 4000),
    "one bin among small ints, a frame each": Input(b"\x01" * READ + _BIN),
    "array of small ints and one bin": Input(_array(b"\x01", _BIN) * 4),
    "array of small ints and one NaN": Input(_array(b"\x01", _NAN) * 4),
    "array of small ints and one $ map": Input(_array(b"\x01", _DOLLAR) * 4),
    "array of empty strs, one not UTF-8": Input(_array(b"\xa0", b"\xa1\xff") * 4),
    "array of empty arrays and one bin": Input(_array(b"\x90", _BIN) * 4),
    "array of empty maps and one bin": Input(_array(b"\x80", _BIN) * 4),
    "array of arrays of an int, one bin": Input(_array(b"\x91\x01", _BIN) * 4),
    "array of maps of a pair, one bin": Input(_array(b"\x81\xa0\x01", _BIN) * 4),
    "array of maps 62 deep, one bin": Input(_array(_NESTED, _BIN) * 4),
    "array of maps with int keys": Input(_array(b"\x81\x01\x01") * 4),
    "array of bins": Input(_array(b"\xc4\0") * 4),
    "array of NaN": Input(_array(b"\xca\x7f\xff\0\0") * 4),
    "array of extensions": Input(_array(b"\xc7\0\x05") * 4),
    "array of timestamps": Input(_array(_DATE) * 4),
    "array of strs that are not UTF-8": Input(_array(b"\xa1\xff") * 4),
    "map of equal keys": Input((b"\xde\x55\x50" + b"\xa1k\x01" * 0x5550) * 4),
    "str of C1 controls": Input(_text("\x9b") * 4),
    "str of line separators": Input(_text("\u2028") * 4),
    "array of strs of a C1 control": Input(_array(b"\xa2\xc2\x9b") * 4),
    "strs of a C1 control, a frame each": Input(b"\xa2\xc2\x9b" * 40_000),
    "$ maps 12 deep": Input((b"\x81\xa1$" * 12 + b"\xc0") * 1000),
}


def _no_keys(name: str) -> NoReturn:
    raise AssertionError(f"{name} uses PLAIN")


def _conversation() -> Any:
    from ingest.wire.conversation import Context, Grant, Peer  # noqa: PLC0415 - of the checkout
    from ingest.wire.ingest1.session import make_converse  # noqa: PLC0415
    from ingest.wire.options import Options  # noqa: PLC0415

    peer = Peer("127.0.0.1", 1, encrypted=False, local=True)
    conversation = make_converse(Options())(Context(peer, FRAME, False, _no_keys))
    conversation.receive(msgpack.packb({"auth": "PLAIN", "data": b"\0sensor-1\0token"}))
    conversation.checked(good=True)
    conversation.granted(Grant(1, b"2026-11-22T11:39:00.123456Z"))
    return conversation


def _seconds(reads: list[bytes]) -> tuple[float, float]:
    """Return the seconds that a new conversation takes for all reads, and for the slowest."""
    conversation, slowest = _conversation(), 0.0
    begun = before = time.thread_time()
    for read in reads:
        for event in conversation.receive(read):
            error = getattr(event, "error", None)
            assert error is None, error
        now = time.thread_time()
        slowest, before = max(slowest, now - before), now
    return before - begun, slowest


def _measure(word: str) -> dict[str, tuple[float, float]]:
    """Return nanoseconds for each byte, and seconds of the slowest read, by input."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    figures = {}
    for name, (stream, piece) in INPUTS.items():
        if word in name:
            reads = Input(stream, piece).reads()
            runs = [_seconds(reads) for _ in range(3)]
            figures[name] = (min(runs)[0] / len(stream) * 1e9, min(slow for _, slow in runs))
    return figures


def _measured_by(checkout: Path, word: str) -> dict[str, tuple[float, float]]:
    """Measure the code of a checkout, in a process of its own."""
    command = [sys.executable, __file__, "--measure", "--only", word]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE, check=True
    )
    figures: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return figures


def _table(checkouts: list[Path], rounds: int, word: str) -> Iterator[str]:
    best: list[dict[str, tuple[float, float]]] = [{} for _ in checkouts]
    for _ in range(rounds):
        for figures, checkout in zip(best, checkouts, strict=True):
            for name, new in _measured_by(checkout, word).items():
                old = figures.get(name, new)
                figures[name] = (min(old[0], new[0]), min(old[1], new[1]))
    columns = " ns/byte | longest read, ms |"
    yield "| input |" + columns + " beside: ns/byte | longest read, ms |" * (len(checkouts) - 1)
    yield "|---" + "|---:" * 2 * len(checkouts) + "|"
    for name in best[0]:
        cells = (f"{each[name][0]:.1f} | {each[name][1] * 1000:.2f}" for each in best)
        yield f"| {name} | {' | '.join(cells)} |"


@click.command()
@click.option("--beside", type=click.Path(exists=True, path_type=Path), help="Another checkout.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--only", "word", default="", help="Only the inputs that have this in their name.")
@click.option("--measure", is_flag=True, hidden=True)
def main(beside: Path | None, rounds: int, word: str, measure: bool) -> None:
    """Print what each kind of msgpack costs the wire."""
    if measure:
        click.echo(json.dumps(_measure(word)))
        return
    for line in _table([_HERE] if beside is None else [_HERE, beside], rounds, word):
        click.echo(line)


if __name__ == "__main__":
    main()
