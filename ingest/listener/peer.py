"""Who is at the other end of a connection, as its transport tells."""

from functools import lru_cache
from ipaddress import ip_address

from twisted.internet import tcp
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ISSLTransport, ITransport

from ingest.wire.conversation import Peer


def peer_of(transport: ITransport) -> Peer:
    """Tell who is at the other end; behind a proxy, whom its header named."""
    address = transport.getPeer()
    encrypted = ISSLTransport.providedBy(transport)
    if isinstance(address, UNIXAddress):
        return Peer("local", None, encrypted, local=True)
    host = str(getattr(address, "host", "unknown"))
    return Peer(host, getattr(address, "port", None), encrypted, _is_loopback(host))


def socket_of(transport: object) -> tcp.Connection | None:
    """Return the socket at the bottom of a transport, below TLS and other wrappers.

    None for a transport that has none, such as one in memory.
    """
    while transport is not None:
        if isinstance(transport, tcp.Connection):
            return transport
        transport = getattr(transport, "transport", None)
    return None


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
