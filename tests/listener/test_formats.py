"""Line formats in a listener: from the registry, counted in the books."""

from collections.abc import Iterator

import pytest

from ingest.listener.factory import ConnectionFactory
from ingest.wire.ingest1.session import make_converse
from ingest.wire.options import OptionError, Options
from tests.listener.parts import Listener, lose, plain


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def values(listener: Listener, device: str) -> list[bytes]:
    """Return what a device's records have behind their numbers."""
    listener.journal.commit()
    key = b'"device":"%b"' % device.encode()
    return [line.split(b",", 3)[3][:-2] for line in listener.journal.lines if key in line]


def test_a_format_counts_from_the_next_login(listener: Listener) -> None:
    listener.add("a")
    protocol, _ = listener.log_in("a")
    listener.registry.set_format("a", "json")
    listener.hear(protocol, b'{"t":1}\n')
    lose(protocol)
    listener.journal.commit()
    protocol, _ = listener.log_in("a")
    listener.hear(protocol, b'{"t":2}\nnone\n\xff\n')
    assert values(listener, "a") == [
        b'"text":"{\\"t\\":1}"', b'"data":{"t":2}', b'"text":"none"', b'"raw":"/w=="',
    ]  # fmt: skip
    account = listener.fleet.accounts()["a"]
    assert (account.received_frames, account.unparsed_frames) == (4, 2)
    lose(protocol)
    listener.pass_time(1.0)
    assert listener.fleet.accounts()["a"].unparsed_frames == 2


def test_frames_that_came_with_the_handshake_are_parsed(listener: Listener) -> None:
    listener.add("a")
    listener.registry.set_format("a", "logfmt")
    protocol, _ = listener.connect()
    listener.hear(protocol, plain("a") + b"t=1\n")
    listener.turns.run_one()
    assert values(listener, "a") == [b'"data":{"t":1}']


def test_the_format_of_a_listener_is_for_devices_without_one(listener: Listener) -> None:
    converse = make_converse(Options({"format": "csv"}))
    listener.factory = ConnectionFactory(listener.fleet, "ingest/1", converse)
    listener.add("a", "b")
    listener.registry.set_format("b", "opaque")
    for name in ("a", "b"):
        protocol, _ = listener.log_in(name)
        listener.hear(protocol, b"1,2\n")
    assert values(listener, "a") == [b'"data":[1,2]']
    assert values(listener, "b") == [b'"text":"1,2"']


def test_a_listener_with_a_format_that_there_is_not() -> None:
    with pytest.raises(OptionError, match="format: 'yaml' is none of opaque, json"):
        make_converse(Options({"format": "yaml"}))


def test_a_registry_that_fails_at_the_last_moment_costs_no_lease(listener: Listener) -> None:
    listener.add("a")
    listener.registry._connection.execute("DROP TABLE formats")
    protocol, transport = listener.connect()
    listener.hear(protocol, plain("a"))
    listener.turns.run_one()
    assert transport.read().startswith(b"ERR busy ")
    lose(protocol)
    for statement in ("CREATE TABLE formats (device TEXT PRIMARY KEY, format TEXT NOT NULL)",):
        listener.registry._connection.execute(statement)
    protocol, transport = listener.connect()
    listener.hear(protocol, plain("a"))
    assert transport.read().startswith(b"OK device=a next=1 ")
