"""The msgpack dialect: one object after another, with no other framing."""

import re
from collections import deque
from contextlib import suppress
from itertools import count, islice
from operator import methodcaller
from types import NoneType
from typing import Any

import msgpack
import orjson
import ormsgpack

from ingest.record import NO_VALUES, Values, printable
from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError, bad_frame
from ingest.wire.framing import NO_FRAMES, Frames
from ingest.wire.ingest1.messages import MAX_HANDSHAKE, Auth, Response, known_mechanism
from ingest.wire.mapping import MAX_DEPTH, Pairs, encode, make_ext
from ingest.wire.msgpack_scanner import Scanner

_NIL = b"\xc0"
_ARRAY_32 = b"\xdd"
_TAIL = 2048  # bytes

# NaN and the infinities. Each begins with a single byte, which `re` finds as fast as memory reads.
_NOT_FINITE = re.compile(rb"\x7f(?<=[\xca\xcb]\x7f)")
_NEGATIVE_NOT_FINITE = re.compile(rb"\xff(?<=[\xca\xcb]\xff)")
_COUNT_MAPS = methodcaller("count", b"{")
_COUNT_ARRAYS = methodcaller("count", b"[")


class NotPlain(Exception):  # noqa: N818 - a turn in the road, not an error
    """These bytes have something that plain JSON can't hold, or are no msgpack."""


class QuickDecoder:
    """Decodes all whole objects of a read at once, for all connections in turn.

    `msgpack.Unpacker` counts them: it skips an object in a fifth of the time that it takes to make
    it. `ormsgpack` makes them in half that time, but of no stream: as the items of an array.

    An unpacker owns 40 kB, so there is one. It keeps nothing from one call to the next: what is
    left of a read stays with its connection.
    """

    def __init__(self) -> None:
        self._unpacker = _skipper()

    def decode(self, data: bytes) -> tuple[list[Any], int]:
        """Return the objects in `data` that are whole, and where the last of them ends.

        Raises:
            NotPlain: something in `data` needs the careful way.
        """
        try:
            number, end = self._survey(data)
            objects = _make_objects(number, data[:end])
        except Exception as error:
            self._unpacker = _skipper()
            raise NotPlain from error
        if end != len(data):
            self._unpacker = _skipper()  # this one is within an object
        return objects, end

    def _survey(self, data: bytes) -> tuple[int, int]:
        """Return how many objects are whole, and where the last of them ends."""
        unpacker = self._unpacker
        begin = unpacker.tell()
        skips = iter(unpacker.skip, unpacker)
        before = 0
        if len(data) > _TAIL:
            counter = count()
            unpacker.feed(memoryview(data)[:-_TAIL])
            with suppress(msgpack.OutOfData):
                deque(zip(skips, counter, strict=False), maxlen=0)
            before = next(counter)
        # Where an object ends is asked near the end of the data only: to ask costs half a skip.
        unpacker.feed(data[-_TAIL:])
        ends: list[tuple[None, int]] = []
        try:
            ends.extend(zip(skips, iter(unpacker.tell, begin + len(data)), strict=False))
        except msgpack.OutOfData:
            number = before + len(ends)
            return number, ends[-1][1] - begin if ends else _end_of(number, data)
        return before + len(ends) + 1, len(data)  # the last one ended where the data ends


def _end_of(number: int, data: bytes) -> int:
    """Return where the first objects of `data` end, as many as `number`."""
    unpacker = _skipper()
    unpacker.feed(data)
    deque(islice(iter(unpacker.skip, unpacker), number), maxlen=0)
    end: int = unpacker.tell()
    return end


def _make_objects(number: int, data: bytes) -> list[Any]:
    if number == 1:
        return [ormsgpack.unpackb(data)]
    objects: list[Any] = ormsgpack.unpackb(b"".join((_ARRAY_32, number.to_bytes(4, "big"), data)))
    return objects


def _skipper() -> Any:
    return msgpack.Unpacker(max_buffer_size=0)


class MsgpackDialect:
    """One connection's objects. Keeps the bytes of the object that is still arriving."""

    __slots__ = ("_max_frame", "_quick", "_rest", "_scanner")

    def __init__(self, max_frame: int, quick: QuickDecoder) -> None:
        self._max_frame = max_frame
        self._quick = quick
        self._rest: bytes | bytearray = b""
        self._scanner: Scanner | None = None

    def auth(self, data: bytes) -> Auth | None:
        message = self._message(data)
        return None if message is None else _parse_auth(*message)

    def response(self, data: bytes) -> Response | None:
        message = self._message(data)
        return None if message is None else Response(_parse_response(*message))

    def unread(self) -> bytes:
        rest, self._rest = bytes(self._rest), b""
        return rest

    def cut(self, data: bytes) -> Frames:
        if len(data) < len(self._rest):
            # To decode the rest again would cost more than to scan what is new.
            try:
                if self._extend(data, self._max_frame) is None:
                    return NO_FRAMES
            except PeerError as error:
                return Frames(NO_VALUES, error.bare())
            data = self.unread()
        elif self._rest:
            data = b"".join((self.unread(), data))
            self._scanner = None
        try:
            objects, end = self._quick.decode(data)
            values = plain_values(objects, data, self._max_frame)
        except NotPlain:
            return self._cut_carefully(data)
        return Frames(values, self._hold(data[end:]))

    def finish(self) -> Frames:
        error = bad_frame("the stream ended within a msgpack object") if self._rest else None
        return Frames(NO_VALUES, error)

    def ok(self, device: str, grant: Grant, max_frame: int, data: bytes | None) -> bytes:
        proof = {} if data is None else {"data": data}
        numbers = {"next": grant.following, "max_frame": max_frame}
        fields = {"device": device, **numbers, **proof, "time": grant.time.decode()}
        return _pack({"ok": fields})

    def challenge(self, data: bytes) -> bytes:
        return _pack({"challenge": data})

    def ack(self, seq: int) -> bytes:
        return _pack({"ack": seq})

    def error(self, error: PeerError) -> bytes:
        return _pack({"err": str(error.code), "text": error.text})

    def _message(self, data: bytes) -> tuple[Any] | None:
        end = self._extend(data, MAX_HANDSHAKE)
        if end is None:
            return None
        buffer = self.unread()
        self._rest = buffer[end:]
        return (_unpack(buffer[:end], dict),)

    def _extend(self, data: bytes, limit: int) -> int | None:
        """Take more bytes of the object that is arriving; return where it ends."""
        if self._scanner is None:
            self._rest = bytearray()
            self._scanner = Scanner(limit)
        self._rest += data
        try:
            end = self._scanner.end(self._rest)
        except PeerError:
            self._rest = b""
            raise
        if end is not None:
            self._scanner = None
        return end

    def _hold(self, rest: bytes) -> PeerError | None:
        try:
            if rest:
                self._extend(rest, self._max_frame)
        except PeerError as error:
            return error.bare()
        return None

    def _cut_carefully(self, data: bytes) -> Frames:
        """Read one object after the other, up to the first that is none."""
        scanner = Scanner(self._max_frame)
        values: list[bytes] = []
        start = 0
        try:
            while (end := scanner.end(data)) is not None:
                if data[start:end] != _NIL:
                    values.append(printable(encode(_unpack(data[start:end], Pairs))))
                start = end
        except PeerError as error:
            return Frames(_values(values), error.bare())
        return Frames(_values(values), self._hold(data[start:]))


def _values(items: list[bytes]) -> Values:
    return Values(b',"data":', items, b"}\n") if items else NO_VALUES


def plain_values(objects: list[Any], data: bytes, max_frame: int) -> Values:
    """Make the values of objects that plain JSON can hold, keep-alives left out.

    Raises:
        NotPlain: one of the objects needs the careful way.
    """
    types = set(map(type, objects))
    if NoneType in types:
        types.remove(NoneType)
        objects = [value for value in objects if value is not None]
    try:
        dumped = orjson.dumps(objects)
    except TypeError as error:
        raise NotPlain from error
    whole = printable(dumped)
    if b"$" in whole and b'{"$' in whole:
        raise NotPlain  # a map that looks like one of our wrappers
    if b"null" in whole and (_NOT_FINITE.search(data) or _NEGATIVE_NOT_FINITE.search(data)):
        raise NotPlain  # orjson writes what is not finite as null
    if len(objects) == 1:
        values, key, end = [whole[1:-1]], b',"data":', b"}\n"
    else:
        values, key, end = whole.split(b"},{"), b',"data":{', b"}}\n"
        values[0], values[-1] = values[0][2:], values[-1][:-2]
        if len(values) != len(objects) or types != {dict}:
            # Those cuts are not just between objects, or not all of them are maps.
            values, key, end = list(map(orjson.dumps, objects)), b',"data":', b"}\n"
            if whole != dumped:
                values = list(map(printable, values))
    if len(data) > min(max_frame, MAX_DEPTH):
        longest = max(map(len, values), default=0)
        # No byte of JSON stands for more than nine of msgpack: a number that fills a whole float.
        if len(data) > max_frame and 9 * longest + 18 > max_frame:
            raise NotPlain
        if longest + 2 > 2 * MAX_DEPTH:
            _check_depth(objects, values)
    return Values(key, values, end) if values else NO_VALUES


def _check_depth(objects: list[Any], values: list[bytes]) -> None:
    if max(map(_COUNT_MAPS, values)) + max(map(_COUNT_ARRAYS, values)) >= MAX_DEPTH and any(
        _too_deep(value, MAX_DEPTH) for value in objects
    ):
        raise NotPlain


def _too_deep(value: Any, allowed: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return allowed == 0 or any(_too_deep(item, allowed - 1) for item in value)


def _unpack(frame: bytes, map_type: type) -> Any:
    try:
        return msgpack.unpackb(
            frame,
            unicode_errors="surrogateescape",
            strict_map_key=False,
            object_pairs_hook=map_type,
            ext_hook=make_ext,
        )
    except Exception as error:  # the decoder's errors share no better base
        raise bad_frame("not a msgpack object") from error


def _pack(message: dict[str, object]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


def _parse_auth(message: Any) -> Auth:
    if not isinstance(message, dict) or "auth" not in message:
        raise PeerError(
            ErrorCode.AUTH_REQUIRED, 'the first object must be {"auth": mechanism, "data": bin}'
        )
    mechanism, ack = message["auth"], message.get("ack", "durable")
    if not isinstance(mechanism, str) or message.keys() - {"auth", "data", "ack"}:
        raise bad_frame("an auth object has auth (str), data (bin or str) and perhaps ack")
    if ack not in ("durable", "none"):
        raise bad_frame("ack must be durable or none")
    return Auth(known_mechanism(mechanism), _bytes(message.get("data", b"")), ack == "durable")


def _parse_response(message: Any) -> bytes:
    if not isinstance(message, dict) or "data" not in message:
        raise bad_frame('the response must be {"data": bin}')
    return _bytes(message["data"])


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value
    raise bad_frame("data must be bin or str")
