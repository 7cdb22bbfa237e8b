"""The events of Fluent Forward v1: from the bytes of a message to items of records.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1#event-modes

    Message        [tag, time, record, option?]
    Forward        [tag, [[time, record], ...], option?]
    PackedForward  [tag, bin or str that holds [time, record] after [time, record], option?]

A message is taken apart as a whole: its records are decoded at once and written as JSON at once,
and no Python statement runs for each. What plain JSON can't hold goes the careful way, one event
after another.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import msgpack
import orjson
import ormsgpack

from ingest.record import NO_VALUES, Values, printable
from ingest.wire.errors import ErrorCode, PeerError, bad_frame
from ingest.wire.forward.compression import decompress
from ingest.wire.forward.times import time_of, times_of
from ingest.wire.json_values import complete
from ingest.wire.mapping import MAX_DEPTH, encode, make_ext
from ingest.wire.msgpack_decoder import plain_values
from ingest.wire.msgpack_scanner import Scanner, ends_of_objects, whole_objects

END = b"}\n"
"""What ends each record, behind its item."""

MAX_CHUNK_ID = 256
"""Characters of a chunk's id: those of Fluentd have 24, those of Fluent Bit up to 128."""

MAX_TAG = 1024
"""Bytes of a tag, which stands in each record."""

EVENT_SIZE = 32
"""Bytes of the largest message that stand for one event: a message may have as many events. A
record takes far more than the three bytes that an event may have, in memory and in the log."""

_ARRAY_32 = b"\xdd"
_PAIR = b"\x92"
_NIL = b"\xc0"
_EMPTY_MAP = b"\x80"
_RECORD_KEY = b"\x82\xa7$record"
_METADATA_KEY = b"\xa9$metadata"
"""Metadata of Fluent Bit are rare: then the data of a record are `{"$record":…,"$metadata":…}`."""
_PLACES = [b"%d" % place for place in range(10_000)]
_PART = 32
"""Events that are tried at once where not all of a message are plain."""
_SIGNALS = (1, 2)
"""Metrics and traces of Fluent Bit: objects of its own, which are no [time, record]."""


class Message(NamedTuple):
    """One message of the client, taken apart.

    Attributes:
        tag: its tag, as JSON.
        chunk: the id of its chunk, as the client is to get it back; None where it wants no answer.
        times: what stands in each record before the tag: its event time, or nothing.
        documents: what stands in each record behind the tag and the chunk.
    """

    tag: bytes
    chunk: str | bytes | None
    times: Sequence[bytes]
    documents: Values

    @property
    def size(self) -> int:
        """How many events it has."""
        return len(self.documents.items)

    @property
    def name(self) -> str | None:
        """The id of the chunk, as records have it."""
        if isinstance(self.chunk, str):
            with suppress(UnicodeEncodeError):
                return self.chunk.encode().decode()
        return None if self.chunk is None else _bytes(self.chunk).hex()

    def items(self, start: int) -> Iterable[bytes]:
        """Write the items of records, from the event `start` on; `END` ends each."""
        opening, documents, closing = self.documents
        tag = b'"tag":' + self.tag
        columns: list[Iterable[bytes]] = [self.times[start:], repeat(tag + opening)]
        if self.name is not None:
            name = printable(orjson.dumps(self.name))[:-1]
            places = _PLACES[start : len(documents)]
            if len(documents) > len(_PLACES):
                places = list(map(b"%d".__mod__, range(start, len(documents))))
            columns[1:] = repeat(tag + b',"chunk":' + name + b"/"), places, repeat(b'"' + opening)
        columns += documents[start:], repeat(closing.removesuffix(END))
        return map(b"".join, zip(*columns, strict=False))


def read_message(message: bytes, limit: int) -> Message:
    """Take one message apart.

    Args:
        message: one msgpack object.
        limit: the most bytes that compressed events may become; for each `EVENT_SIZE` of them
            the message may have one event.

    Raises:
        PeerError: it is none of the protocol.
    """
    try:
        size, position = _array(message)
        tag, position = _string(message, position)
        packed, end = _string(message, position)
    except IndexError:
        raise _no_message() from None
    if not 2 <= size <= 4 or tag is None:
        raise _no_message()
    if len(tag) > MAX_TAG:
        raise bad_frame(f"the tag of a message has at most {MAX_TAG} bytes")
    most = max(1, limit // EVENT_SIZE)
    if packed is not None:
        option = _option(message[end:], size - 2)
        events = decompress(packed, option.get("compressed"), limit)
        return _make(tag, option, option.get("size"), events, most)
    ends = ends_of_objects(message[position:])
    if not _is_array(message[position]):  # mode Message
        body = message[position : position + ends[min(1, len(ends) - 1)]]
        option = _option(message[position + len(body) :], size - 3)
        return _make(tag, option, 1, _PAIR + body, most)
    option = _option(message[position + ends[0] :], size - 2)
    number, begin = _array(message[position : position + ends[0]])
    return _make(tag, option, number, message[position + begin : position + ends[0]], most)


def _make(tag: bytes, option: dict[str, Any], size: object, events: bytes, most: int) -> Message:
    """Make the message of events, one behind the other.

    Args:
        tag: its tag.
        option: its option.
        size: how many events are announced; anything where that is not said.
        events: they.
        most: how many they may be.
    """
    chunk = option.get("chunk")
    if not isinstance(chunk, str | bytes | None) or len(chunk or "") > MAX_CHUNK_ID:
        raise bad_frame(f"the chunk of a message is a string of at most {MAX_CHUNK_ID} bytes")
    if option.get("fluent_signal") in _SIGNALS:
        _count(events, most)
        documents = [_encode(item) for item in _cut(events)]
        return Message(printable(_json(tag)), chunk, [b""] * len(documents), _documents(documents))
    made = None
    if type(size) is int and 0 < size <= min(most, len(events)):
        made = _read_plain(size, events)
    if made is None:
        number = _count(events, most)
        made = _read_plain(number, events) or _read_carefully(events)
    return Message(printable(_json(tag)), chunk, *made)


# The quick way.

_NOT_PLAIN = object()
_extension = {code: _NOT_PLAIN for code in range(-128, 128) if code}.get
"""Makes of an extension of type 0, an EventTime, its bytes; of any other, what is no JSON."""


def _read_plain(number: int, events: bytes) -> tuple[Sequence[bytes], Values] | None:
    """Make times and documents of events.

    Args:
        number: how many they are; if it is another, a `nil` behind them shows that.
        events: they, one behind the other.

    Returns:
        None if they are another number, or plain JSON can't hold one of them.
    """
    if not number:
        return (), NO_VALUES
    try:
        packed = b"".join((_ARRAY_32, (number + 1).to_bytes(4, "big"), events, _NIL))
        objects = ormsgpack.unpackb(packed, ext_hook=_extension)
        if objects.pop() is not None:
            return None
        stamps, records = zip(*objects, strict=True)
        metadata: Sequence[Any] = ()
        if type(stamps[0]) is list:  # Fluent Bit: [[time, metadata], record]
            stamps, metadata = zip(*stamps, strict=True)
        if set(map(type, records)) | set(map(type, metadata)) != {dict}:
            return None
        times = times_of(stamps)
    except (ValueError, TypeError, OverflowError):
        return None
    values = plain_values(list(records), events)
    if values is not None and any(metadata):
        values = _with_metadata(values, plain_values(list(metadata), events))
    if values is None or (_may_nest_too_deep(values.items) and _count(events, number) != number):
        return None
    return times, values


def _with_metadata(records: Values, metadata: Values | None) -> Values | None:
    if metadata is None:
        return None
    pairs = zip(complete(records), complete(metadata), strict=True)
    documents = [
        record if data == b"{}" else b'{"$record":%b,"$metadata":%b}' % (record, data)
        for record, data in pairs
    ]
    return Values(b',"data":', documents, END)


def _may_nest_too_deep(documents: Sequence[bytes]) -> bool:
    whole = b"".join(documents)
    return whole.count(b"{") + whole.count(b"[") > MAX_DEPTH - 4


# The careful way.


def _read_carefully(events: bytes) -> tuple[Sequence[bytes], Values]:
    """Read events of which at least one is not plain: in parts, so that its neighbours may be."""
    times: list[bytes] = []
    documents: list[bytes] = []
    ends = [0, *ends_of_objects(events)]
    for first in range(0, len(ends) - 1, _PART):
        part = ends[first : first + _PART + 1]
        made = _read_plain(len(part) - 1, events[part[0] : part[-1]])
        if made is not None:
            times += made[0]
            documents += complete(made[1])
            continue
        for begin, end in pairwise(part):
            time, document = _read_event(events[begin:end])
            times.append(time)
            documents.append(document)
    return times, Values(b',"data":', documents, END)


def _read_event(event: bytes) -> tuple[bytes, bytes]:
    stamp, record = _pair(event, "an event of Forward is [time, record]")
    if _is_array(stamp[0]):
        stamp, metadata = _pair(stamp, "the time of an event is [time, metadata]")
        if metadata != _EMPTY_MAP:
            record = b"".join((_RECORD_KEY, record, _METADATA_KEY, metadata))
    return time_of(_unpack(stamp)), printable(_encode(record))


def _cut(objects: bytes) -> Iterator[bytes]:
    for begin, end in pairwise([0, *ends_of_objects(objects)]):
        yield objects[begin:end]


def _pair(packed: bytes, otherwise: str) -> tuple[bytes, bytes]:
    """Return the two items of an array, packed as they are."""
    try:
        _, position = _array(packed)
        first, second = _cut(packed[position:])
    except ValueError:
        raise bad_frame(otherwise) from None
    return first, second


def _encode(packed: bytes) -> bytes:
    try:
        return encode(packed)
    except ValueError:
        raise bad_frame("a record holds what is no msgpack object") from None


def _documents(items: Iterable[bytes]) -> Values:
    return Values(b',"data":', list(map(printable, items)), END)


# The parts of a message.


def _no_message() -> PeerError:
    return bad_frame("a message of Forward is [tag, time, record], or [tag, events]")


def _is_array(first: int) -> bool:
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def _array(message: bytes) -> tuple[int, int]:
    """Return how many items an array has, and where the first of them begins."""
    first = message[0]
    if 0x90 <= first <= 0x9F:
        return first & 0x0F, 1
    if first not in (0xDC, 0xDD):
        raise _no_message()
    end = 3 if first == 0xDC else 5
    return int.from_bytes(message[1:end], "big"), end


_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Of bin 8, 16 and 32, and str 8, 16 and 32: how many bytes of length follow."""


def _string(message: bytes, start: int) -> tuple[bytes | None, int]:
    """Return the str or bin that begins somewhere, and where it ends; None if there is another."""
    first = message[start]
    width = _WIDTHS.get(first, 0)
    if not width and not 0xA0 <= first <= 0xBF:
        return None, start
    body = start + 1 + width
    size = int.from_bytes(message[start + 1 : body], "big") if width else first & 0x1F
    return message[body : body + size], body + size


def _option(data: bytes, items: int) -> dict[str, Any]:
    if items not in (0, 1) or (not items and data):
        raise _no_message()
    option = _unpack(data) if items else None
    if option is None:
        return {}
    if not isinstance(option, dict):
        raise bad_frame("the option of a message is a map")
    return option


def _count(events: bytes, most: int) -> int:
    """Count events one behind the other.

    Raises:
        PeerError: they are no msgpack, nest too deep, end within one, or are more than `most`.
    """
    number, end = whole_objects(events, len(events))
    if end != len(events):
        Scanner(sys.maxsize).end(events[end:])
        raise bad_frame("the events of a message end within one")
    if number > most:
        raise PeerError(ErrorCode.FRAME_TOO_LONG, f"more than {most} events in a message")
    return number


def _unpack(packed: bytes) -> Any:
    try:
        return msgpack.unpackb(
            packed, unicode_errors="surrogateescape", strict_map_key=False, ext_hook=make_ext
        )
    except Exception:  # the decoder's errors share no better base
        raise _no_message() from None


def _json(text: bytes) -> bytes:
    try:
        return orjson.dumps(text.decode())
    except UnicodeDecodeError:
        return orjson.dumps(text.hex())


def _bytes(chunk: str | bytes) -> bytes:
    return chunk if isinstance(chunk, bytes) else chunk.encode("utf-8", "surrogateescape")
