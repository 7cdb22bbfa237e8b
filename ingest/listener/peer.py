"""Who is at the other end of a connection, as its transport tells."""

from functools import lru_cache
from ipaddress import ip_address

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


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
