"""How the names of hosts that are dialled are looked up."""

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorFromThreads, IResolutionReceiver
from zope.interface import implementer

from ingest.listener.names import HostNames
from tests.listener.parts import Turns


@implementer(IResolutionReceiver)
class Receiver:
    """Takes what is found; `found` is there when that is all."""

    def __init__(self) -> None:
        self.found: list[IAddress] | None = None
        self._addresses: list[IAddress] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self.name = resolutionInProgress.name

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        self.found = self._addresses


class Names:
    """Host names, and the turns in which they are told."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._names = HostNames(cast(IReactorFromThreads, self._turns))
        self.tell = self._turns.run_one

    def look_up(self, name: str, types: list[type[IAddress]] | None = None) -> Receiver:
        receiver = Receiver()
        self._names.resolveHostName(receiver, name, 7000, types)
        assert receiver.name == name
        return receiver


@pytest.mark.parametrize(
    ("name", "types", "found"),
    [
        ("127.0.0.1", None, [IPv4Address("TCP", "127.0.0.1", 7000)]),
        ("127.0.0.1", [IPv4Address], [IPv4Address("TCP", "127.0.0.1", 7000)]),
        ("127.0.0.1", [IPv6Address], []),
        ("::1", [IPv4Address, IPv6Address], [IPv6Address("TCP", "::1", 7000)]),
        ("device.invalid", None, []),
        ("a..b", None, []),
        ("x" * 64, None, []),
    ],
)
def test_what_is_found(
    name: str, types: list[type[IAddress]] | None, found: list[IAddress]
) -> None:
    names = Names()
    receiver = names.look_up(name, types)
    names.tell()
    assert receiver.found == found


def test_a_name_is_looked_up_once_at_a_time() -> None:
    names = Names()
    receivers = [names.look_up("127.0.0.1") for _ in range(3)]
    names.tell()
    assert [receiver.found for receiver in receivers] == [
        [IPv4Address("TCP", "127.0.0.1", 7000)]
    ] * 3
    again = names.look_up("127.0.0.1")
    assert again.found is None
    names.tell()
    assert again.found
