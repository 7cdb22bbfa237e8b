"""The text dialect: lines that end in LF."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from ingest.record import NO_VALUES
from ingest.wire.conversation import Grant
from ingest.wire.errors import ErrorCode, PeerError, bad_frame, too_long
from ingest.wire.formats.opaque import keep
from ingest.wire.framing import NO_FRAMES, Frames, LineFormat
from ingest.wire.ingest1.messages import MAX_HANDSHAKE, Auth, Response, known_mechanism

_OPTION = re.compile(rb"[a-z_]+=[^=].*")  # base64 has its `=` at the end only
_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d")


class TextDialect:
    """One connection's lines. Keeps the bytes after the last LF, which are nearly always none."""

    __slots__ = ("_max_frame", "_parse", "_rest")

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._rest: bytes | bytearray = b""
        self._parse: LineFormat = keep

    def auth(self, data: bytes) -> Auth | None:
        line = self._line(data)
        return None if line is None else _parse_auth(line)

    def response(self, data: bytes) -> Response | None:
        line = self._line(data)
        return None if line is None else Response(_decode_base64(line))

    def unread(self) -> bytes:
        rest, self._rest = bytes(self._rest), b""
        return rest

    def parse_by(self, line_format: LineFormat) -> None:
        self._parse = line_format

    def cut(self, data: bytes) -> Frames:
        end = data.rfind(b"\n") + 1
        if not end:
            return self._hold(data)
        whole = bytes(self._rest + data[:end]) if self._rest else data[:end]
        self._rest = b""
        if len(whole) > self._max_frame:
            short = _end_of_short_lines(whole, self._max_frame)
            if short < len(whole):
                return self._parse(whole[:short])._replace(error=too_long(self._max_frame))
        frames = self._parse(whole)
        if end == len(data):
            return frames
        return frames._replace(error=self._hold(data[end:]).error)

    def finish(self) -> Frames:
        last = self.unread()
        return self._parse(last + b"\n") if last else NO_FRAMES

    def ok(self, device: str, grant: Grant, max_frame: int, data: bytes | None) -> bytes:
        proof = b"" if data is None else b"data=%b " % b64encode(data)
        return b"OK %bdevice=%b next=%d max_frame=%d time=%b\n" % (
            proof,
            device.encode(),
            grant.following,
            max_frame,
            grant.time,
        )

    def challenge(self, data: bytes) -> bytes:
        return b"+ %b\n" % b64encode(data)

    def ack(self, seq: int) -> bytes:
        return b"ACK %d\n" % seq

    def error(self, error: PeerError) -> bytes:
        return f"ERR {error.code} {error.text}\n".encode()

    def _line(self, data: bytes) -> bytes | None:
        buffered = bytes(self._rest + data)
        line, newline, rest = buffered.partition(b"\n")
        line = line.removesuffix(b"\r")
        if len(line) > MAX_HANDSHAKE:
            raise too_long(MAX_HANDSHAKE)
        self._rest = rest if newline else buffered
        return line if newline else None

    def _hold(self, data: bytes) -> Frames:
        # A bytearray grows in place: a line that trickles in costs its length, not its square.
        if self._rest:
            self._rest += data
        else:
            self._rest = bytearray(data)
        if len(self._rest) - self._rest.endswith(b"\r") <= self._max_frame:
            return NO_FRAMES
        self._rest = b""
        return Frames(NO_VALUES, too_long(self._max_frame))


def _end_of_short_lines(whole: bytes, limit: int) -> int:
    """Return where the first line of more than `limit` bytes begins, or the end.

    It looks at one line in `limit` bytes, since lines between two others that are near enough
    can't be too long.
    """
    start = 0
    while len(whole) - start > limit:
        end = whole.rfind(b"\n", start, start + limit + 1)
        if end < 0 and whole.startswith(b"\r\n", start + limit):
            end = start + limit + 1
        if end < 0:
            return start
        start = end + 1
    return len(whole)


def _parse_auth(line: bytes) -> Auth:
    if _HTTP.match(line):
        raise PeerError(
            ErrorCode.AUTH_REQUIRED, "this port takes frames from devices and speaks no HTTP"
        )
    if line.startswith(b"PROXY "):
        raise PeerError(
            ErrorCode.AUTH_REQUIRED, "this port takes no PROXY header; a haproxy: port does"
        )
    if b"\0" in line:
        raise PeerError(ErrorCode.AUTH_REQUIRED, "a NUL byte in the first line: send UTF-8")
    words = line.split()
    if words[:1] != [b"AUTH"]:
        raise PeerError(ErrorCode.AUTH_REQUIRED, "the first line must be AUTH <mechanism> <base64>")
    if len(words) < 2:
        raise bad_frame("AUTH names no mechanism")
    _, word, *rest = words
    mechanism = known_mechanism(word.decode("ascii", "replace"))
    initial = rest.pop(0) if rest and not _OPTION.fullmatch(rest[0]) else None
    wants_acks = _parse_options(rest)
    return Auth(
        mechanism,
        b"" if initial is None else _decode_base64(initial),
        wants_acks,
    )


def _parse_options(options: list[bytes]) -> bool:
    wants_acks = True
    for option in options:
        if option not in {b"ack=durable", b"ack=none"}:
            raise bad_frame("the only option of AUTH is ack=durable or ack=none")
        wants_acks = option == b"ack=durable"
    return wants_acks


def _decode_base64(data: bytes) -> bytes:
    try:
        return b64decode(data, validate=True)
    except Base64Error:
        raise bad_frame("the response is not base64") from None
