"""RELP: syslog messages that are answered one by one. https://www.rsyslog.com/doc/relp.html

C: 1 open 85 relp_version=0 ...   S: 1 rsp 92 200 OK ...
C: 2 syslog 12 <13>1 - - ...      S: 2 rsp 6 200 OK      once it is on disk
C: 3 close 0                      S: 3 rsp 0, 0 serverclose 0
"""

import re
from collections import deque
from collections.abc import Sequence

from ingest.record import NO_VALUES
from ingest.wire.conversation import Context, Event, Send
from ingest.wire.errors import ErrorCode, PeerError, bad_frame, too_long
from ingest.wire.framed import Framed, configured
from ingest.wire.framing import NO_FRAMES, Frames
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.syslog.messages import values_of, without_end

_HEADER = re.compile(rb"([0-9]{1,9}) ([A-Za-z]{1,32}) ([0-9]{1,9})([ \n])")
_BEGUN = re.compile(rb"[0-9]{1,9}(?: (?:[A-Za-z]{1,32}(?: [0-9]{0,9})?)?)?")
_MAX_HEADER = 53
_OK = b"200 OK"
_OFFERS = b"200 OK\nrelp_version=0\nrelp_software=ingest\ncommands=syslog"
_UNREAD = 100_000
"""Messages that may wait for their answer; clients have 128 under way."""


class RelpFraming:
    """One connection's frames. Keeps the bytes of one that is not whole.

    Attributes:
        is_closed: whether the client has said that it is done.
        replies: what is to be sent at once.
    """

    __slots__ = (
        "_answers",
        "_awaited",
        "_durable",
        "_is_open",
        "_last",
        "_limit",
        "_rest",
        "is_closed",
        "replies",
    )

    def __init__(self, limit: int) -> None:
        """Make it for messages of at most `limit` bytes."""
        self._limit = limit
        self._rest = bytearray()
        self._awaited = 1  # bytes of `_rest` before there is anything to find
        self._is_open = False
        self._last = 0  # the number of the newest frame
        self._durable = 0
        self._answers: deque[tuple[int, bytes]] = deque()  # the frame that each waits for
        self.is_closed = False
        self.replies = b""

    def cut(self, data: bytes) -> Frames:
        """See `Framing.cut`."""
        self._rest += data
        if len(self._rest) < self._awaited:
            return NO_FRAMES
        whole, self._rest = bytes(self._rest), bytearray()
        messages: list[bytes] = []
        begin = 0
        try:
            while begin < len(whole) and (end := self._frame(whole, begin, messages)):
                begin = end
        except PeerError as wrong:
            return Frames(values_of(messages), wrong.without_traceback())
        self._rest += whole[begin:]
        return Frames(values_of(messages))

    def finish(self) -> Frames:
        """See `Framing.finish`."""
        error = bad_frame("the stream ended within a frame of RELP") if self._rest else None
        return Frames(NO_VALUES, error)

    def ack(self, seq: int) -> bytes:
        """See `Framing.ack`: each message has an answer of its own."""
        self._durable = seq
        ready: list[bytes] = []
        while self._answers and self._answers[0][0] <= seq:
            ready.append(self._answers.popleft()[1])
        return b"".join(ready)

    def error(self, error: PeerError) -> bytes:  # noqa: ARG002 - RELP has no word for it
        """See `Framing.error`."""
        return b"0 serverclose 0\n"

    def _frame(self, whole: bytes, begin: int, messages: list[bytes]) -> int:
        """Take the frame that begins somewhere; return where it ends, 0 while it is not whole."""
        header = _HEADER.match(whole, begin)
        if header is None:
            if len(whole) - begin >= _MAX_HEADER or not _BEGUN.fullmatch(whole, begin):
                raise bad_frame("a frame of RELP is: number, command, length, data")
            self._awaited = 1
            return 0
        number, command, size, behind = header.groups()
        if int(size) > self._limit:
            raise too_long(self._limit)
        end = header.end() + (int(size) + 1 if behind == b" " else 0)
        if end > len(whole):
            self._awaited = end - begin
            return 0
        if whole[end - 1 : end] != b"\n" or (behind == b"\n" and int(size)):
            raise bad_frame("a frame of RELP ends in LF, behind as many bytes as it says")
        self._awaited = 1
        self._take(number, command, whole[header.end() : end - 1], messages)
        return end

    def _take(self, number: bytes, command: bytes, data: bytes, messages: list[bytes]) -> None:
        if self.is_closed or self._is_open == (command == b"open"):
            raise bad_frame("a session of RELP is: open, any number of syslog, close")
        if command == b"open":
            self._is_open = True
            self._answer(number, _OFFERS)
        elif command == b"syslog":
            messages.append(message := without_end(data))
            self._last += bool(message)
            self._answer(number, _OK)
        elif command == b"close":
            self.is_closed = True
            self._answer(number, b"")
            self._say(b"0 serverclose 0\n")
        else:
            self._answer(number, b"500 unknown command")

    def _answer(self, number: bytes, data: bytes) -> None:
        space = b" " if data else b""
        self._say(b"%b rsp %d%b%b\n" % (number, len(data), space, data))

    def _say(self, answer: bytes) -> None:
        """Say something once all frames so far are on disk."""
        if self._last <= self._durable:
            self.replies += answer
            return
        if len(self._answers) >= _UNREAD:
            raise PeerError(ErrorCode.BUSY, "the answers of this connection are not read")
        self._answers.append((self._last, answer))


class Relp(Framed):
    """A `Conversation` in RELP."""

    __slots__ = ("_relp",)

    def __init__(self, context: Context, identity: ConfiguredIdentity) -> None:
        self._relp = RelpFraming(context.max_frame)
        super().__init__(context, identity, self._relp)

    def _take(self, data: bytes) -> Sequence[Event]:
        frames, *ended = super()._take(data)
        events: list[Event] = [frames]
        if self._relp.replies:
            events.append(Send(self._relp.replies))
            self._relp.replies = b""
        events += ended
        if self._relp.is_closed and not ended:
            events.append(self._end(None))
        return events


make_converse = configured(Relp)
"""Makes what makes conversations in RELP, of the options of a port."""
