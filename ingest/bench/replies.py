"""What the listener answers, read with as little work as possible."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ingest.bench.plan import Dialect
from ingest.client import Acked, Packed, Reply, ServerError, Text

_ACK = b"\x81\xa3ack"
_INTEGERS = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}  # bytes of a msgpack uint, by its first one


class Heard(NamedTuple):
    """What some bytes said.

    Attributes:
        acked: the highest number in them, 0 if there was none.
        rest: the bytes of a reply that is still arriving.
        error: what the listener closes with.
    """

    acked: int
    rest: bytes
    error: ServerError | None = None


Hear = Callable[[bytes], Heard]


def hear_for(dialect: Dialect) -> Hear:
    """Return what reads a dialect's replies after the handshake.

    It raises `ingest.client.ProtocolError` where they are none.
    """
    return _hear_text if dialect == "text" else _hear_packed


def _hear_text(data: bytes) -> Heard:
    end = data.rfind(b"\n") + 1
    start = data.rfind(b"\n", 0, max(0, end - 1)) + 1
    if data.startswith(b"ACK ", start, end):
        return Heard(int(data[start + 4 : end]), data[end:])
    return _hear_all(Text().feed(data[:end]), data[end:])


def _hear_packed(data: bytes) -> Heard:
    start = data.rfind(_ACK)
    number = data[start + len(_ACK) :]
    if start >= 0 and number and len(number) == _INTEGERS.get(number[0], 1):
        return Heard(int.from_bytes(number[1:] or number), b"")
    # An error is there, or a reply that is still arriving. To read ACKs again does no harm.
    return _hear_all(Packed().feed(data), data)


def _hear_all(replies: Iterable[Reply], rest: bytes) -> Heard:
    acked, error = 0, None
    for reply in replies:
        if isinstance(reply, Acked):
            acked = reply.seq
        elif isinstance(reply, ServerError):
            error = reply
    return Heard(acked, rest, error)
