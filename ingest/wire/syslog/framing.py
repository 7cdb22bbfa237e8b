"""The two framings of syslog over TCP (RFC 6587), decided anew for each frame.

<34>Oct 11 22:14:15 web su: hello LF      a line: section 3.4.2; NUL may end it as well
33 <34>Oct 11 22:14:15 web su: hello      a count of bytes, and as many: section 3.4.1
"""

import re

from ingest.record import NO_VALUES
from ingest.wire.conversation import Context, Conversation
from ingest.wire.errors import PeerError, bad_frame, too_long
from ingest.wire.framed import Framed, configured
from ingest.wire.framing import NO_FRAMES, Frames
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.syslog.messages import values_of, without_end

_DIGITS = re.compile(rb"[0-9]+")
_MAX_DIGITS = 10
_COUNT_BEHIND_LINE = re.compile(rb"[\n\0][0-9]")
_LINE_END = re.compile(rb"[\n\0]")


class SyslogFraming:
    """One connection's frames. Keeps the bytes of one that is not whole."""

    __slots__ = ("_awaited", "_limit", "_rest")

    def __init__(self, limit: int) -> None:
        """Make it for messages of at most `limit` bytes."""
        self._limit = limit
        self._rest = bytearray()
        self._awaited = 0  # bytes of `_rest` that its frame needs, where a count says so

    def cut(self, data: bytes) -> Frames:
        """See `Framing.cut`."""
        if self._rest:
            self._rest += data
            if self._is_waiting(data):
                return NO_FRAMES
            data, self._rest = bytes(self._rest), bytearray()
        messages: list[bytes] = []
        try:
            begin = self._lines(data, messages)
            while begin < len(data) and (end := self._frame(data, begin, messages)):
                begin = end
        except PeerError as wrong:
            return Frames(values_of(messages), wrong.without_traceback())
        self._rest += data[begin:]
        return Frames(values_of(messages))

    def finish(self) -> Frames:
        """See `Framing.finish`: a last line without LF counts."""
        last, self._rest = bytes(self._rest), bytearray()
        digits = _DIGITS.match(last)
        if digits is not None and last[digits.end() :][:1] in (b"", b" "):
            return Frames(NO_VALUES, bad_frame("the stream ended within a counted message"))
        return Frames(values_of([last.removesuffix(b"\r")]))

    def ack(self, seq: int) -> bytes:  # noqa: ARG002 - syslog has no answers
        """See `Framing.ack`."""
        return b""

    def error(self, error: PeerError) -> bytes:  # noqa: ARG002
        """See `Framing.error`."""
        return b""

    def _is_waiting(self, data: bytes) -> bool:
        """Tell whether `data` surely does not complete the frame that is arriving.

        A frame that trickles in costs its length then, and not its square.
        """
        if self._awaited:
            return len(self._rest) < self._awaited
        is_line = not 0x30 <= self._rest[0] <= 0x39
        return is_line and len(self._rest) <= self._limit and not _LINE_END.search(data)

    def _lines(self, data: bytes, messages: list[bytes]) -> int:
        """Add whole lines where no frame has a count: the usual read. Return where they end."""
        self._awaited = 0
        if 0x30 <= data[0] <= 0x39 or _COUNT_BEHIND_LINE.search(data):
            return 0
        end = max(data.rfind(b"\n"), data.rfind(b"\0")) + 1
        whole = data[:end].replace(b"\0", b"\n")
        lines = [line.removesuffix(b"\r") for line in whole.split(b"\n")]
        if max(map(len, lines)) > self._limit:
            return 0  # one by one, up to that
        messages += lines
        return end

    def _frame(self, data: bytes, begin: int, messages: list[bytes]) -> int:
        """Add the frame that begins somewhere; return where it ends, 0 while it is not whole."""
        digits = _DIGITS.match(data, begin)
        if digits is not None and data[digits.end() : digits.end() + 1] in (b"", b" "):
            return self._counted(data, digits, messages)
        found = _LINE_END.search(data, begin)
        line = data[begin : found.start() if found else len(data)].removesuffix(b"\r")
        if len(line) > self._limit:
            raise too_long(self._limit)
        if found is None:
            return 0
        messages.append(line)
        return found.end()

    def _counted(self, data: bytes, digits: re.Match[bytes], messages: list[bytes]) -> int:
        if len(digits[0]) > _MAX_DIGITS or int(digits[0]) > self._limit:
            raise too_long(self._limit)
        begin = digits.end() + 1
        end = begin + int(digits[0])
        if end > len(data) or begin > len(data):
            self._awaited = 0 if begin > len(data) else end - digits.start()
            return 0
        messages.append(without_end(data[begin:end]))
        return end


def _converse(context: Context, identity: ConfiguredIdentity) -> Conversation:
    return Framed(context, identity, SyslogFraming(context.max_frame))


make_converse = configured(_converse)
"""Makes what makes conversations in syslog, of the options of a port."""
