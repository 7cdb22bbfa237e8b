"""The msgpack dialect: one object after another, with no other framing."""

from typing import Any

import msgpack

from ingest.record import NO_VALUES
from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError, bad_frame
from ingest.wire.framing import NO_FRAMES, Frames, LineFormat
from ingest.wire.ingest1.messages import MAX_HANDSHAKE, Auth, Response, known_mechanism
from ingest.wire.msgpack_decoder import decode, decode_single
from ingest.wire.msgpack_scanner import Scanner, whole_objects

_SHORT = 1024  # bytes of a read that may well be a single object


class MsgpackDialect:
    """One connection's objects. Keeps the bytes of the object that is still arriving."""

    __slots__ = ("_max_frame", "_rest", "_scanner")

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._rest: bytes | bytearray = b""
        self._scanner: Scanner | None = None

    def auth(self, data: bytes) -> Auth | None:
        message = self._message(data)
        return None if message is None else _parse_auth(*message)

    def response(self, data: bytes) -> Response | None:
        message = self._message(data)
        return None if message is None else Response(_parse_response(*message))

    def parse_by(self, line_format: LineFormat) -> None:
        pass  # an object says itself what it is

    def unread(self) -> bytes:
        rest, self._rest = bytes(self._rest), b""
        return rest

    def cut(self, data: bytes) -> Frames:
        if len(data) < len(self._rest):
            # To go over the rest again would cost more than to go on behind it.
            try:
                if self._extend(data, self._max_frame) is None:
                    return NO_FRAMES
            except PeerError as error:
                return Frames(NO_VALUES, error.without_traceback())
            data = self.unread()
        elif self._rest:
            data = b"".join((self.unread(), data))
            self._scanner = None
        if len(data) <= min(_SHORT, self._max_frame):
            values = decode_single(data)
            if values is not None:
                return Frames(values)
        number, end = whole_objects(data, self._max_frame)
        frames = decode(number, data[:end]) if number else NO_FRAMES
        return Frames(frames.values, frames.error or self._hold(data[end:]))

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
        return (_unpack(buffer[:end]),)

    def _extend(self, data: bytes, limit: int) -> int | None:
        """Go on with the object that is arriving; return where it ends."""
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
            return error.without_traceback()
        return None


def _unpack(message: bytes) -> Any:
    try:
        return msgpack.unpackb(message, unicode_errors="surrogateescape", strict_map_key=False)
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
