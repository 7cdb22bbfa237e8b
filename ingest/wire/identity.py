"""Who a client is that can't prove its name: what the operator has set for a listener.

    networks      from where such clients may come, besides this host itself
    device        the name of all that come
    unregistered  whether a name must be in the registry: `refuse` or `accept`

Clients that prove their name do so by SASL (`ingest.wire.sasl`) or, in Fluent Forward, by a shared
key and perhaps a password. TLS client certificates will be a further way.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from ingest.names import RULE, is_device_name
from ingest.wire.conversation import Claim, Peer, Standing
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.options import Network, OptionError, Options

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:-]")


def read_standing(options: Options) -> Standing:
    """Read the option `unregistered`: whether names must be in the registry.

    Raises:
        OptionError: it makes no sense.
    """
    accepts = options.choice("unregistered", "refuse", "accept") == "accept"
    return Standing.UNREGISTERED if accepts else Standing.REGISTERED


def check_name(name: str) -> None:
    """See that a name can be a device's: records bear it as it is.

    Raises:
        PeerError: it can't.
    """
    if not is_device_name(name):
        raise PeerError(ErrorCode.AUTH_FAILED, f"the name of a device has {RULE}")


def claim_of(name: str, standing: Standing) -> Claim:
    """Claim a name that a client gave itself.

    Raises:
        PeerError: it can't name a device.
    """
    check_name(name)
    return Claim(name, standing)


def name_of_host(peer: Peer) -> str:
    """Return the device of a sending host: `host-192.0.2.1`, `host-2001:db8::1`, `host-local`."""
    return "host-" + _NOT_IN_NAMES.sub("-", peer.host)


@dataclass(frozen=True)
class ConfiguredIdentity:
    """The identity of clients that prove nothing.

    Attributes:
        device: the name of all of them; None where each has one of its own.
        networks: from where they may come, besides this host.
        standing: what the registry must say of their names.
    """

    device: str | None
    networks: tuple[Network, ...]
    standing: Standing

    @classmethod
    def read(cls, options: Options) -> "ConfiguredIdentity":
        """Read it from the options of a listener.

        Raises:
            OptionError: one makes no sense.
        """
        device = options.text("device")
        if device is not None and not is_device_name(device):
            raise OptionError(f"device: {device!r}: a name has {RULE}")
        return cls(device, options.networks("networks"), read_standing(options))

    def claim(self, peer: Peer, said: str | None = None) -> Claim:
        """Claim the name of a client.

        Args:
            peer: where it is.
            said: what it calls itself, in a protocol where it does; else its host is the device.

        Raises:
            PeerError: it may not connect from there, or its name can't be one.
        """
        if not self.admits(peer):
            raise PeerError(ErrorCode.AUTH_FAILED, "this address is in none of the networks")
        own = name_of_host(peer) if said is None else said
        return claim_of(self.device or own, self.standing)

    def admits(self, peer: Peer) -> bool:
        """Tell whether such a client may come from there."""
        if peer.local:
            return True
        try:
            address = ip_address(peer.host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)
