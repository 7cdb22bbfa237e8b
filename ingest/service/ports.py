"""The ports of a listener: where connections come in, and what is spoken there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime

from ingest.journal.events import located
from ingest.listener.doors import (
    Door,
    DoorError,
    IReactorPorts,
    describe,
    listen,
    parse_door,
)
from ingest.listener.factory import ConnectionFactory
from ingest.listener.incidents import NO_PROXY_HEADER
from ingest.listener.protocols import find
from ingest.listener.proxies import ProxyDoors
from ingest.ops.accepting import RestingPort, stop_listening
from ingest.service.parts import Connections
from ingest.service.settings import Listen
from ingest.wire.conversation import Converse
from ingest.wire.options import OptionError, Options

_CHUNKED = "forward"
"""The protocol whose clients send chunks."""


class Entrance(NamedTuple):
    """Where connections come in, and what makes their conversations."""

    protocol: str
    converse: Converse
    door: Door
    place: str


def entrance(listen: Listen, reactor: IReactorPorts) -> Entrance:
    """Make sense of one place to listen at.

    Raises:
        DoorError: its endpoint, its protocol or an option of that makes none.
    """
    with _written_at(listen.place):
        converse = _converse(listen)
        door = parse_door(listen.endpoint, reactor)
    return Entrance(listen.protocol, converse, door, listen.place)


@contextmanager
def _written_at(place: str) -> Iterator[None]:
    """Let an error tell where the operator wrote what it is about."""
    try:
        yield
    except DoorError as error:
        raise DoorError(error.text, error.reason, place) from None


def _converse(listen: Listen) -> Converse:
    try:
        protocol = find(listen.protocol)
    except KeyError as error:
        raise DoorError(str(listen), error.args[0]) from None
    try:
        return protocol.make_converse(Options(listen.options))
    except OptionError as error:
        raise DoorError(str(listen), str(error)) from None
    except Exception as error:  # anybody may have written it
        raise DoorError(
            str(listen), f"the protocol {listen.protocol} can't be used: {located(error)}"
        ) from None


class Ports(Service):
    """The ports where connections are accepted."""

    def __init__(
        self, entrances: Sequence[Entrance], connections: Connections, reactor: IReactorTime
    ) -> None:
        self._entrances = entrances
        self._connections = connections
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._proxies: list[ProxyDoors] = []

    def startService(self) -> None:
        """Begin to accept connections.

        Raises:
            DoorError: the system does not let us.
        """
        fleet = self._connections.fleet
        if any(entrance.protocol == _CHUNKED for entrance in self._entrances):
            self._connections.remember_chunks()
        for protocol, converse, door, place in self._entrances:
            is_wrapped = door.is_proxied or door.is_tls
            factory: IProtocolFactory = ConnectionFactory(
                fleet, protocol, converse, is_wrapped=is_wrapped
            )
            if door.is_proxied:
                factory = self._behind_proxies(factory, is_wrapped=door.is_tls)
            with _written_at(place):
                self._ports.append(listen(door, factory))
        fleet.admission.ports = [RestingPort(port, self._reactor) for port in self._ports]
        super().startService()

    def _behind_proxies(self, factory: IProtocolFactory, *, is_wrapped: bool) -> IProtocolFactory:
        fleet = self._connections.fleet

        def room() -> int:
            return fleet.admission.limits.most - len(fleet) - fleet.at_doors

        def changed() -> None:
            fleet.count_at_doors(sum(map(len, self._proxies)))

        proxies = ProxyDoors(
            factory,
            self._reactor,
            fleet.admission.limits.handshake_timeout,
            room,
            changed,
            partial(fleet.incidents.note, NO_PROXY_HEADER, ""),
            is_wrapped=is_wrapped,
        )
        self._proxies.append(proxies)
        return proxies

    def stopService(self) -> Deferred[Any]:
        """Accept no more."""
        super().stopService()
        return DeferredList(list(map(stop_listening, self._ports)))

    @property
    def addresses(self) -> list[str]:
        """Where connections are accepted, for people."""
        return [describe(port) for port in self._ports]

    def set_timeout(self, seconds: float) -> None:
        """Let a PROXY header take so long, for later connections."""
        for proxies in self._proxies:
            proxies.timeout = seconds
