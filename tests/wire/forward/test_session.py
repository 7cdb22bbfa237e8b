"""A conversation in Fluent Forward."""

from collections.abc import Callable
from hashlib import sha512
from itertools import product
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.wire.conversation import Claim, Converse, Ended, Standing
from ingest.wire.errors import ErrorCode, IllegalStep, PeerError
from ingest.wire.forward.session import make_converse
from ingest.wire.options import OptionError, Options
from ingest.wire.states import State
from tests.wire.forward.peer import ELSEWHERE, LOCAL, Client, Log
from tests.wire.streams import bytewise, cut, cuts

KEY = "s3cr3t"
SALT = b"\xff\x00salt"
USERS = {"ann": "pa", "bob": "pb"}

Change = Callable[[list[Any]], list[Any]]


def converse(**options: Any) -> Converse:
    return make_converse(Options({name.replace("_", "-"): v for name, v in options.items()}))


OPEN = converse(device="app")
KEYED = converse(shared_key=KEY)
NAMED = converse(shared_key=KEY, users=USERS)


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def digest(*parts: str | bytes) -> str:
    joined = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return sha512(joined).hexdigest()


def ping(client: Client, key: str = KEY, user: str = "", password: str = "") -> list[Any]:
    """Answer the HELO that a client got."""
    word, helo = msgpack.unpackb(client.take())
    assert word == "HELO" and helo["keepalive"] is True and len(helo["nonce"]) == 16
    salt = helo["auth"]
    proof = digest(SALT, "web-1", helo["nonce"], key)
    known = digest(salt, user, password) if salt else ""
    return ["PING", "web-1", SALT, proof, user, known]


def events(*numbers: int) -> list[Any]:
    return [[5, {"n": number}] for number in numbers]


def numbers(client: Client) -> list[int]:
    return [orjson.loads(line)["data"]["n"] for line in client.log.lines]


def test_the_handshake_with_a_shared_key() -> None:
    client = Client(KEYED)
    helo = msgpack.unpackb(client.take())[1]
    client.receive(pack(["PING", "web-1", SALT, digest(SALT, "web-1", helo["nonce"], KEY), "", ""]))
    proof = digest(SALT, "ingest", helo["nonce"], KEY)
    assert client.take() == pack(["PONG", True, "", "ingest", proof])
    assert helo["auth"] == ""
    assert client.claims == [Claim("web-1", Standing.REGISTERED, shared=True)]
    assert client.conversation.mechanism == "shared-key"


def test_two_handshakes_differ() -> None:
    first, second = (msgpack.unpackb(Client(NAMED).take())[1] for _ in range(2))
    assert first["nonce"] != second["nonce"] and first["auth"] != second["auth"]


def test_a_client_that_has_our_name() -> None:
    client = Client(KEYED)
    nonce = msgpack.unpackb(client.take())[1]["nonce"]
    client.receive(pack(["PING", "ingest", SALT, digest(SALT, "ingest", nonce, KEY), "", ""]))
    assert msgpack.unpackb(client.take())[3] == "ingest-listener"


def test_a_user_is_the_device() -> None:
    client = Client(NAMED)
    client.receive(pack(ping(client, user="ann", password="pa")))
    assert [claim.device for claim in client.claims] == ["ann"]


@pytest.mark.parametrize(
    ("options", "device"),
    [({"device_from": "hostname"}, "web-1"), ({"device": "all"}, "all"), ({}, "ann")],
)
def test_what_names_the_device(options: dict[str, str], device: str) -> None:
    client = Client(converse(shared_key=KEY, users=USERS, **options))
    client.receive(pack(ping(client, user="ann", password="pa")))
    assert [claim.device for claim in client.claims] == [device]


def test_names_that_need_no_registration() -> None:
    client = Client(converse(device="app", unregistered="accept"))
    assert client.claims == [Claim("app", Standing.UNREGISTERED, shared=True)]


WRONG: dict[str, tuple[Converse, Change, ErrorCode]] = {
    "a wrong key": (KEYED, lambda p: [*p[:3], digest("x"), *p[4:]], ErrorCode.AUTH_FAILED),
    "no key": (KEYED, lambda p: [*p[:3], "", *p[4:]], ErrorCode.AUTH_FAILED),
    "another host": (KEYED, lambda p: ["PING", "web-2", *p[2:]], ErrorCode.AUTH_FAILED),
    "a key that is no ASCII": (KEYED, lambda p: [*p[:3], "é", *p[4:]], ErrorCode.AUTH_FAILED),
    "an unknown user": (NAMED, lambda p: [*p[:4], "eve", p[5]], ErrorCode.AUTH_FAILED),
    "another user": (NAMED, lambda p: [*p[:4], "bob", p[5]], ErrorCode.AUTH_FAILED),
    "no user": (NAMED, lambda p: [*p[:4], "", ""], ErrorCode.AUTH_FAILED),
    "no PING": (KEYED, lambda p: ["PONG", *p[1:]], ErrorCode.AUTH_REQUIRED),
    "five items": (KEYED, lambda p: p[:5], ErrorCode.AUTH_REQUIRED),
    "seven items": (KEYED, lambda p: [*p, ""], ErrorCode.AUTH_REQUIRED),
    "a number": (KEYED, lambda p: [*p[:5], 5], ErrorCode.AUTH_REQUIRED),
    "events at once": (KEYED, lambda _: ["t", events(1)], ErrorCode.AUTH_REQUIRED),
    "too long": (KEYED, lambda p: [*p[:5], "x" * 5000], ErrorCode.FRAME_TOO_LONG),
}


@pytest.mark.parametrize(("known", "change", "code"), WRONG.values(), ids=WRONG)
def test_a_wrong_handshake(known: Converse, change: Change, code: ErrorCode) -> None:
    client = Client(known)
    client.receive(pack(change(ping(client, user="ann", password="pa"))))
    (ended,) = client.ended
    assert ended.error is not None and ended.error.code is code
    assert msgpack.unpackb(client.take()) == ["PONG", False, ended.error.text, "", ""]
    assert client.claims == []


def test_a_host_that_can_be_no_device() -> None:
    client = Client(KEYED)
    nonce = msgpack.unpackb(client.take())[1]["nonce"]
    client.receive(pack(["PING", "a b", SALT, digest(SALT, "a b", nonce, KEY), "", ""]))
    assert client.claims == [] and msgpack.unpackb(client.take())[1] is False


def test_a_user_of_the_empty_password_is_none() -> None:
    with pytest.raises(OptionError):
        converse(shared_key=KEY, users={"ann": ""})


GIVEN = {
    "shared-key": KEY,
    "users": USERS,
    "device": "app",
    "networks": ["192.0.2.0/24"],
    "device-from": "user",
    "unregistered": "accept",
}


@pytest.mark.parametrize("chosen", list(product([False, True], repeat=len(GIVEN))))
@pytest.mark.parametrize("peer", [LOCAL, ELSEWHERE], ids=["local", "elsewhere"])
def test_every_combination_demands_what_it_says_or_is_refused(
    chosen: tuple[bool, ...], peer: Any
) -> None:
    options = {name: GIVEN[name] for name, is_in in zip(GIVEN, chosen, strict=True) if is_in}
    try:
        made = make_converse(Options(options))
    except OptionError:
        return
    client = Client(made, peer=peer)
    if "shared-key" not in options:
        assert "device" in options and not options.keys() & {"users", "device-from"}
        assert bool(client.claims) == (peer is LOCAL or "networks" in options)
        return
    assert "networks" not in options and not client.claims
    answer = ping(client)
    client.receive(pack([*answer[:4], "", ""]))  # who knows the key, but no password
    assert bool(client.claims) == ("users" not in options)
    client = Client(made, peer=peer)
    client.receive(pack(ping(client, key="wrong", user="ann", password="pa")))
    assert not client.claims
    client = Client(made, peer=peer)
    client.receive(pack(ping(client, user="ann", password="pa")))
    named_by_user = "users" in options and "device" not in options
    (claim,) = client.claims
    assert claim.device == options.get("device", "ann" if named_by_user else "web-1")


REFUSED = {
    "nothing": ({}, "shared-key"),
    "networks alone": ({"networks": ["::/0"]}, "shared-key"),
    "users without a key": ({"users": USERS, "device": "a"}, "users"),
    "networks with a key": ({"shared-key": KEY, "networks": ["::/0"]}, "networks"),
    "a user that can be no device": ({"shared-key": KEY, "users": {"a@b": "p"}}, "'a@b'"),
    "no user to name a device": ({"shared-key": KEY, "device-from": "user"}, "device-from"),
    "two names": ({"shared-key": KEY, "device": "a", "device-from": "hostname"}, "device-from"),
    "an unknown option": ({"shared-key": KEY, "shared_key": KEY}, "shared_key"),
    "an empty key": ({"shared-key": ""}, "shared-key"),
    "a size of 0": ({"shared-key": KEY, "max-chunk": "0"}, "max-chunk"),
    "no size": ({"shared-key": KEY, "max-chunk": "x"}, "max-chunk"),
}


@pytest.mark.parametrize(("options", "name"), REFUSED.values(), ids=REFUSED)
def test_options_that_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(OptionError, match=name):
        make_converse(Options(options))


@pytest.mark.parametrize("more", [{"device": "app"}, {"device-from": "hostname"}])
def test_users_that_name_no_device_may_be_called_anything(more: dict[str, str]) -> None:
    options = {"shared-key": KEY, "users": {"ann@example.com": "pa"}, **more}
    client = Client(make_converse(Options(options)))
    client.receive(pack(ping(client, user="ann@example.com", password="pa")))
    assert [claim.device for claim in client.claims] == [more.get("device", "web-1")]


def test_who_comes_from_elsewhere() -> None:
    client = Client(OPEN, peer=ELSEWHERE)
    assert client.claims == [] and client.sent == b""
    assert client.ended[0].error is not None
    assert client.ended[0].error.code is ErrorCode.AUTH_FAILED


def test_a_refusal_of_the_shell() -> None:
    busy = PeerError(ErrorCode.BUSY, "too many connections")
    assert Client(OPEN, refusal=busy).ended == [Ended(busy)]
    assert Client(KEYED, refusal=busy).claims == []


# Events.


def test_an_answer_waits_for_the_disk() -> None:
    client = Client(OPEN, slow=True)
    client.receive(pack(["t", events(1, 2), {"chunk": "a"}]))
    client.receive(pack(["t", events(3)]), pack(["t", events(4), {"chunk": "b"}]))
    assert client.take() == b""
    client.sync()
    assert client.take() == pack({"ack": "a"}) + pack({"ack": "b"})
    assert numbers(client) == [1, 2, 3, 4]


@pytest.mark.parametrize("chunk", ["é", b"\xff\x00", ""])
def test_the_answer_is_the_chunk(chunk: object) -> None:
    client = Client(OPEN)
    client.receive(pack(["t", events(1), {"chunk": chunk}]))
    assert client.take() == pack({"ack": chunk})


def test_a_chunk_that_is_a_str_of_bytes() -> None:
    client = Client(OPEN)
    client.receive(pack(["t", 5, {"n": 1}])[:-4] + b"\x81\xa1n\x01")
    client.receive(b"\x93\xa1t\x90\x81\xa5chunk\xa2\xff\x00")
    assert client.take() == b"\x81\xa3ack\xa2\xff\x00"


def test_heartbeats_are_let_alone() -> None:
    client = Client(OPEN)
    client.receive(b"\xc0", pack(["t", events(1)]) + b"\xc0\xc0", b"\xc0")
    assert numbers(client) == [1] and not client.ended
    quiet = Client(KEYED)
    quiet.close_side()
    assert quiet.ended == [Ended(None)]
    client.close_side()
    assert client.ended == [Ended(None)]


STREAM = b"\xc0".join(
    [
        pack(["t", events(1, 2), {"chunk": "a"}]),
        pack(["t", 5, {"n": 3}]),
        pack(["t", b"".join(map(pack, events(4, 5))), {"chunk": "b"}]),
        pack(["t", 5, {"n": 6, "x": b"\xff"}, {"chunk": "c"}]),
    ]
)
ANSWERS = b"".join(pack({"ack": chunk}) for chunk in "abc")


def check_stream(client: Client) -> None:
    assert numbers(client) == [1, 2, 3, 4, 5, 6]
    assert client.take() == ANSWERS
    assert not client.ended


def test_a_stream_whole_and_byte_by_byte() -> None:
    for pieces in ([STREAM], bytewise(STREAM)):
        client = Client(OPEN)
        client.receive(*pieces)
        check_stream(client)


@given(cuts)
def test_a_stream_in_any_pieces(where: list[int]) -> None:
    client = Client(OPEN)
    client.receive(*cut(STREAM, where))
    check_stream(client)


@given(st.data())
def test_a_handshake_and_a_stream_in_any_pieces(data: st.DataObject) -> None:
    client = Client(NAMED)
    sent = pack(ping(client, user="bob", password="pb")) + STREAM
    client.receive(*cut(sent, data.draw(cuts)))
    assert client.sent.endswith(ANSWERS)
    client.sent = client.sent[-len(ANSWERS) :]
    check_stream(client)


def test_events_behind_the_ping_are_no_part_of_it() -> None:
    client = Client(KEYED)
    long = pack(["t", 5, {"n": 1, "x": "x" * 10_000}, {"chunk": "a"}])
    client.receive(pack(ping(client)) + long)
    assert numbers(client) == [1] and client.sent.endswith(pack({"ack": "a"}))


def test_what_is_no_message() -> None:
    client = Client(OPEN)
    client.receive(pack(["t", events(1), {"chunk": "a"}]) + b"\xc1" + pack(["t", events(2)]))
    assert numbers(client) == [1]
    assert client.take() == pack({"ack": "a"})  # and no word of the error: Forward has none
    assert client.ended[0].error is not None
    assert client.ended[0].error.code is ErrorCode.BAD_FRAME


@pytest.mark.parametrize("extra", [0, 1])
def test_a_message_of_the_largest_size(extra: int) -> None:
    client = Client(converse(device="app", max_chunk="1KiB"))
    message = pack(["t", 5, {"n": 1, "x": "x" * 1000}])
    message = pack(["t", 5, {"n": 1, "x": "x" * (1000 + 1024 - len(message) + extra)}])
    for pieces in ([message], bytewise(message)):
        client = Client(converse(device="app", max_chunk="1KiB"))
        client.receive(*pieces)
        assert bool(client.ended) == bool(extra)
        assert numbers(client) == [1][extra:]


def test_a_message_that_promises_too_much() -> None:
    client = Client(OPEN)
    client.receive(b"\x92\xa1t\xdd\xff\xff\xff\xff")
    assert client.ended[0].error is not None
    assert client.ended[0].error.code is ErrorCode.FRAME_TOO_LONG


def test_a_stream_that_ends_within_a_message() -> None:
    client = Client(OPEN)
    client.receive(pack(["t", events(1)]) + b"\x93")
    client.close_side()
    assert client.ended[0].error is not None
    assert client.ended[0].error.code is ErrorCode.BAD_FRAME
    assert numbers(client) == [1]


# Chunks that come again.

CHUNK = pack(["t", events(1, 2, 3), {"chunk": "c"}])
ACK = pack({"ack": "c"})


def test_a_chunk_whose_answer_was_lost_is_stored_once() -> None:
    log = Log()
    first = Client(OPEN, log)
    first.receive(CHUNK)
    second = Client(OPEN, log)
    second.receive(CHUNK)
    assert numbers(second) == [1, 2, 3]
    assert second.take() == ACK


def test_a_chunk_that_is_repeated_before_its_answer_is_stored_once() -> None:
    client = Client(OPEN, slow=True)
    client.receive(CHUNK + CHUNK, CHUNK)
    assert client.take() == b""
    client.sync()
    assert client.take() == ACK * 3
    assert numbers(client) == [1, 2, 3]


def test_an_equal_chunk_after_the_answer_is_another_one() -> None:
    client = Client(OPEN)
    client.receive(CHUNK, CHUNK)
    assert client.take() == ACK * 2
    assert numbers(client) == [1, 2, 3] * 2
    again = Client(OPEN, client.log)
    again.receive(CHUNK)
    assert numbers(again) == [1, 2, 3] * 2


def test_an_empty_id_tells_no_chunk_from_another() -> None:
    log = Log()
    for number in (1, 2):
        client = Client(OPEN, log)
        client.receive(pack(["t", events(number), {"chunk": ""}]))
        assert client.take() == pack({"ack": ""})
    assert numbers(client) == [1, 2]


def test_half_a_chunk_is_completed() -> None:
    log = Log()
    log.chunks.load([("app", "c/0"), ("other", "c/2"), ("app", "c/1")])
    client = Client(OPEN, log)
    client.receive(CHUNK)
    assert [orjson.loads(line)["chunk"] for line in log.lines] == ["c/2"]
    assert numbers(client) == [3]
    assert client.take() == ACK


def test_a_chunk_that_another_connection_is_storing() -> None:
    log = Log()
    first = Client(OPEN, log, slow=True)
    first.receive(CHUNK)
    second = Client(OPEN, log, slow=True)
    second.receive(CHUNK)
    assert second.ended[0].error is not None
    assert second.ended[0].error.code is ErrorCode.BUSY
    assert second.sent == b""
    third = Client(OPEN, log)
    third.receive(CHUNK)
    assert third.take() == ACK and numbers(third) == [1, 2, 3]


def test_answers_that_nobody_reads_are_bounded() -> None:
    client = Client(OPEN, slow=True)
    for number in range(4097):
        client.receive(pack(["t", events(number), {"chunk": str(number)}]))
    assert client.ended[0].error is not None
    assert client.ended[0].error.code is ErrorCode.BUSY


# What the shell must not do.


def test_illegal_steps() -> None:
    client = Client(KEYED)
    with pytest.raises(IllegalStep):
        client.conversation.checked(good=True)
    client.close_side()
    for step in (
        lambda: client.conversation.receive(b"x"),
        client.conversation.end_of_stream,
        lambda: client.conversation.fail(PeerError(ErrorCode.BUSY, "")),
    ):
        with pytest.raises(IllegalStep):
            step()
    assert client.conversation.state is State.ENDED  # type: ignore[attr-defined]
