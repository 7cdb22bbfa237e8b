"""A listener without sockets and disks, and what a device says in either dialect."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack
import pytest
from scramp import ScramClient, ScramMechanism

from ingest.record import record_block
from ingest.wire.conversation import (
    CheckToken,
    Claim,
    Context,
    Ended,
    Event,
    Grant,
    Peer,
    Send,
    Wait,
)
from ingest.wire.errors import PeerError
from ingest.wire.framing import Frames
from ingest.wire.ingest1.session import Session
from tests.wire.streams import TIME

TOKENS = {"sensor-1": "s3cr3t", "user": "pencil"}
"""`user` and `pencil`, with this salt, are the example of RFC 7677, section 3."""

CREDENTIALS = b"\0sensor-1\0s3cr3t"
"""The response of PLAIN."""

_SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
_MECHANISM = ScramMechanism("SCRAM-SHA-256")


@dataclass(frozen=True)
class Keys:
    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int


def find_keys(device: str) -> Keys:
    """Return the keys of a device in `TOKENS`; of any other, keys that no token has."""
    salt, stored_key, server_key, iterations = _MECHANISM.make_auth_info(
        TOKENS.get(device, "none"), 4096, _SALT
    )
    return Keys(salt, stored_key if device in TOKENS else bytes(32), server_key, iterations)


class Listener:
    """Carries out the events of one session; every frame is durable at once.

    Attributes:
        sent: the bytes that the device gets.
        block: the log.
        last: the number of the newest record.
        asked: the questions of the session that `answer` has not answered yet.
        ended: how the session ended; one item at most.
    """

    def __init__(
        self,
        *,
        plaintext: bool = True,
        following: int = 1,
        max_frame: int = 65536,
        slow: bool = False,
        refusal: PeerError | None = None,
    ) -> None:
        peer = Peer("192.0.2.1", 50123, encrypted=False, local=plaintext)
        context = Context(peer, max_frame, False, find_keys, refusal)
        self.session = Session(context)
        self.sent = b""
        self.block = b""
        self.asked: list[CheckToken | Claim] = []
        self.ended: list[Ended] = []
        self._following = following
        self.last = self._durable = following - 1
        self._slow = slow
        self._early = b""
        self._is_closed = False

    def receive(self, *pieces: bytes) -> None:
        """Feed what the device sends, a read at a time; before an answer, it waits for that."""
        for piece in pieces:
            if self.asked:
                self._early += piece
            elif piece and not self.ended:
                self._carry_out(self.session.receive(piece))

    def close_side(self) -> None:
        """Tell that the device has closed its side; before an answer, that waits as well."""
        self._is_closed = True
        if not (self.asked or self.ended):
            self._carry_out(self.session.end_of_stream())

    def fail(self, error: PeerError) -> None:
        """End the session from the listener's side."""
        if not self.ended:
            self._carry_out(self.session.fail(error))

    def answer(self) -> None:
        """Answer the session's question."""
        question = self.asked.pop(0)
        if isinstance(question, Claim):
            self._carry_out(self.session.granted(Grant(self._following, TIME)))
            self.receive(self._early)
            if self._is_closed:
                self.close_side()
        else:
            device, token = question.credentials
            self._carry_out(self.session.checked(good=TOKENS.get(device) == token))

    def _carry_out(self, events: Sequence[Event]) -> None:
        for event in events:
            assert not self.ended, f"{event} after the end"
            if isinstance(event, Send):
                self.sent += event.data
            elif isinstance(event, Frames):
                self._append(event)
            elif isinstance(event, Ended):
                self._end(event)
            else:
                assert not isinstance(event, Wait)  # this protocol has no deadlines of its own
                self.asked.append(event)
        self._acknowledge()
        while self.asked and not self._slow:
            self.answer()

    def _append(self, frames: Frames) -> None:
        if frames.values.items:
            self.block += record_block(TIME, b"sensor-1", self.last + 1, frames.values)
            self.last += len(frames.values.items)

    def _acknowledge(self) -> None:
        if self.last > self._durable:
            self._durable = self.last
            self.sent += self.session.acknowledge(self._durable)

    def _end(self, event: Ended) -> None:
        self._acknowledge()
        self.ended.append(event)
        if event.error is not None:
            self.sent += self.session.farewell(event.error)


class Device(Protocol):
    """How a device writes its messages, and reads those of the server."""

    def auth(self, mechanism: str, data: bytes, *, ack: str = "") -> bytes: ...

    def response(self, data: bytes) -> bytes: ...

    def frame(self, text: str) -> bytes: ...

    def field(self, text: str) -> bytes:
        """Write what the record of a frame has behind its number."""

    def replies(self, sent: bytes) -> list[tuple[str, Any]]:
        """Read what the server sent, as (kind, content); of an `err` only the code."""


class TextDevice:
    def auth(self, mechanism: str, data: bytes, *, ack: str = "") -> bytes:
        option = f" ack={ack}" if ack else ""
        return f"AUTH {mechanism} {b64encode(data).decode()}{option}\n".encode()

    def response(self, data: bytes) -> bytes:
        return b64encode(data) + b"\n"

    def frame(self, text: str) -> bytes:
        return text.encode() + b"\n"

    def field(self, text: str) -> bytes:
        return f'"text":"{text}"'.encode()

    def replies(self, sent: bytes) -> list[tuple[str, Any]]:
        lines = sent.decode().split("\n")
        assert lines.pop() == ""
        return list(map(_text_reply, lines))


def _text_reply(line: str) -> tuple[str, Any]:
    word, content = line.split(" ", 1)
    if word == "OK":
        pairs: dict[str, Any] = dict(pair.split("=", 1) for pair in content.split(" "))
        numbers = {"next": int(pairs["next"]), "max_frame": int(pairs["max_frame"])}
        proof = {"data": b64decode(pairs["data"])} if "data" in pairs else {}
        return "ok", pairs | numbers | proof
    if word == "+":
        return "challenge", b64decode(content)
    return ("ack", int(content)) if word == "ACK" else ("err", content.split(" ")[0])


class PackedDevice:
    def auth(self, mechanism: str, data: bytes, *, ack: str = "") -> bytes:
        message = {"auth": mechanism, "data": data} | ({"ack": ack} if ack else {})
        return _pack(message)

    def response(self, data: bytes) -> bytes:
        return _pack({"data": data})

    def frame(self, text: str) -> bytes:
        return _pack(text)

    def field(self, text: str) -> bytes:
        return f'"data":"{text}"'.encode()

    def replies(self, sent: bytes) -> list[tuple[str, Any]]:
        unpacker = msgpack.Unpacker()
        unpacker.feed(sent)
        replies = [next(iter(message.items())) for message in unpacker]
        assert unpacker.tell() == len(sent)
        return replies


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


DEVICES: list[Device] = [TextDevice(), PackedDevice()]

both = pytest.mark.parametrize("device", DEVICES, ids=["text", "msgpack"])


def logged_in(device: Device, max_frame: int = 65536) -> Listener:
    listener = Listener(max_frame=max_frame)
    listener.receive(device.auth("PLAIN", CREDENTIALS))
    listener.sent = b""
    return listener


def in_scram(device: Device, token: str = "s3cr3t") -> tuple[Listener, ScramClient]:
    """Go up to the server's challenge."""
    listener, client = Listener(), ScramClient(["SCRAM-SHA-256"], "sensor-1", token)
    listener.receive(device.auth("SCRAM-SHA-256", client.get_client_first().encode()))
    ((kind, challenge),) = device.replies(listener.sent)
    assert kind == "challenge"
    client.set_server_first(challenge.decode())
    listener.sent = b""
    return listener, client
