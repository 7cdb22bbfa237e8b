"""The published specification says what the listener does: its transcripts are replayed."""

import ast
import re
from base64 import b64decode
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest
import scramp.core

import ingest.wire
from ingest.record import record_block
from ingest.wire.errors import ErrorCode
from ingest.wire.ingest1.messages import MAX_HANDSHAKE
from ingest.wire.mapping import MAX_DEPTH, from_json
from tests.wire.ingest1.peer import Listener
from tests.wire.streams import msgpack_dialect, text
from tests.wire.values import pack

SPECIFICATION = (Path(ingest.wire.__file__).parents[1] / "PROTOCOL.md").read_text()
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
"""The server's part of the nonce in RFC 7677, section 3."""

Step = tuple[str, bytes | None]
"""Who speaks, and the bytes; None where a side is closed."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SPECIFICATION, re.DOTALL | re.MULTILINE)


def text_steps(transcript: str) -> Iterator[Step]:
    for line in transcript.splitlines():
        who, said = line.split(": ", 1)
        closes = said in ("<closes its side>", "<closes>")
        yield who, None if closes else said.encode() + b"\n"


def packed_steps(transcript: str) -> Iterator[Step]:
    for who, said, bytes_ in re.findall(r"^(.): (.*)\n((?:   .*\n)*)", transcript, re.MULTILINE):
        if not bytes_:
            assert said in ("<closes its side>", "<closes>")
        yield who, bytes.fromhex(bytes_) if bytes_ else None


def following(transcript: str) -> int:
    """Return the `next` that the transcript's listener tells."""
    match = re.search(r'\bnext(?:=|": )(\d+)', transcript)
    return int(match[1]) if match else 1


def replay(transcript: str, steps: Iterator[Step]) -> None:
    """Play the device, and compare every byte that the listener sends."""
    listener = Listener(following=following(transcript))
    for who, group in groupby(steps, lambda step: step[0]):
        said = [data for _, data in group]
        spoken = b"".join(data for data in said if data is not None)
        if who == "C":
            if spoken:
                listener.receive(spoken)
            if said[-1] is None:
                listener.close_side()
        else:
            assert listener.sent == spoken
            assert bool(listener.ended) == (said[-1] is None)
            listener.sent = b""
    assert listener.sent in (b"", listener.session.acknowledge(listener.last))


@pytest.fixture(autouse=True)
def nonce_of_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scramp.core, "token_hex", lambda: SERVER_NONCE)


@pytest.mark.parametrize("transcript", blocks("text"))
def test_text_transcripts(transcript: str) -> None:
    replay(transcript, text_steps(transcript))


@pytest.mark.parametrize("transcript", blocks("msgpack"))
def test_msgpack_transcripts(transcript: str) -> None:
    replay(transcript, packed_steps(transcript))


@pytest.mark.parametrize("transcript", blocks("msgpack"))
def test_what_is_readable_is_what_the_bytes_say(transcript: str) -> None:
    messages = re.findall(r"^.: (\{.*)\n", transcript, re.MULTILINE)
    literals = [
        re.sub(r"h'([0-9a-f]*)'", lambda match: repr(bytes.fromhex(match[1])), message)
        for message in messages
    ]
    steps = [data for _, data in packed_steps(transcript) if data is not None]
    assert [msgpack.packb(ast.literal_eval(literal)) for literal in literals] == steps


def test_the_program_proves_what_the_transcript_does() -> None:
    (program,) = blocks("python")
    names: dict[str, Any] = {}
    exec(program, names)
    messages = re.findall("^(?:n,,|[rcv]=).*", SPECIFICATION, re.MULTILINE)
    first, challenge, last, answer = (message.encode() for message in messages)
    assert names["prove"](b"pencil", first, challenge) == (last, answer)


def test_there_are_transcripts() -> None:
    assert len(blocks("text")) >= 6
    assert len(blocks("msgpack")) >= 3


def test_the_worked_example_is_two_halves_of_one_story() -> None:
    """What the second connection is told follows from what the first one stored."""
    first, second = (block for block in blocks("text") if "temp=20.8" in block)
    listener = Listener(following=following(first))
    listener.receive(*(data for who, data in text_steps(first) if who == "C" and data))
    assert listener.last == following(second)  # all but the frame that is sent again


@pytest.mark.parametrize("line", "".join(blocks("json")).splitlines())
def test_records(line: str) -> None:
    record = orjson.loads(line)
    if "data" in record:
        made = msgpack_dialect().cut(pack(from_json(record["data"])))
    else:
        frame = record["text"].encode() if "text" in record else b64decode(record["raw"])
        made = text().cut(frame + b"\n")
    time, device = record["time"].encode(), record["device"].encode()
    assert record_block(time, device, record["seq"], made.values) == line.encode() + b"\n"


MAPPINGS = re.findall(
    r"^\| `([0-9a-f]{2}(?: [0-9a-f]{2})*)` \| `(.*)` \|$", SPECIFICATION, re.MULTILINE
)


@pytest.mark.parametrize(("frame", "data"), MAPPINGS)
def test_mapping_examples(frame: str, data: str) -> None:
    values = msgpack_dialect().cut(bytes.fromhex(frame)).values
    block = record_block(b"now", b"a", 1, values)
    assert block == f'{{"time":"now","device":"a","seq":1,"data":{data}}}\n'.encode()


def test_there_are_mapping_examples() -> None:
    assert len(MAPPINGS) >= 10


def test_every_error_code_is_explained() -> None:
    table = SPECIFICATION.split("\n## Errors")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == list(ErrorCode)


def test_the_limits_are_the_codes() -> None:
    limits = SPECIFICATION.split("\n## Limits")[1]
    assert f"{MAX_HANDSHAKE:,} bytes" in limits
    assert f"{MAX_DEPTH} arrays and maps" in limits
