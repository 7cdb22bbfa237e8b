"""What the end of a log says of the chunks of Fluent Forward."""

import gzip
from pathlib import Path

from ingest.log.chunks import recent_chunks
from ingest.record import Values, record_block

TIME = b"2026-11-22T11:39:00.123456Z"


def block(device: str, first: int, *items: bytes) -> bytes:
    return record_block(TIME, device.encode(), first, Values(b",", list(items), b"}\n"))


def event(chunk: str, text: str = "x") -> bytes:
    return b'"event_time":"2026-11-22T11:39:00Z","tag":"a\\"b","chunk":"%b","data":{"t":"%b"}' % (
        chunk.encode(),
        text.encode(),
    )


def test_the_chunks_of_a_log(tmp_path: Path) -> None:
    older = tmp_path / "ingest-20261122T113900.000Z.log.gz"
    older.write_bytes(gzip.compress(block("a", 1, event("m/0"), event("m/1"), event("n/0"))))
    closed = tmp_path / "ingest-20261122T114000.000Z.log"
    closed.write_bytes(block("a", 4, event("n/1")) + block("b", 1, b'"text":"plain"'))
    active = tmp_path / "ingest.log"
    active.write_bytes(
        block("b", 2, event("m/0"), b'"chunk":"only/0","text":"\\"chunk\\":\\"no/0\\","')
        + block("a", 5, event('e\\"f/7'))[:-20]
    )
    assert recent_chunks(tmp_path) == [
        ("a", "m/1"), ("a", "n/0"), ("a", "n/1"), ("b", "m/0"), ("b", "only/0"),
    ]  # fmt: skip
    assert recent_chunks(tmp_path, window=1) == [("b", "m/0"), ("b", "only/0")]


def test_an_empty_log(tmp_path: Path) -> None:
    assert recent_chunks(tmp_path) == []
