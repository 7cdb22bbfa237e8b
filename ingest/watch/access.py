"""From where the page may be reached, and by which names."""

import ipaddress
from collections.abc import Iterable
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "::1")
_ENCRYPTED: Final = ("ssl",)


class AccessError(Exception):
    """The page must not be served there; the text says why, and what to do."""


def names_at(
    endpoint: str, address: IAddress, hosts: Iterable[str], *, has_passwords: bool
) -> frozenset[str] | None:
    """Check whether the page may be served at an address.

    Args:
        endpoint: as it was asked for.
        address: where it is.
        hosts: names besides those of this machine by which a browser may call it.
        has_passwords: whether a file of passwords says who may look.

    Returns:
        The names that a request may give as its host; None for any. A name of somebody else may
        resolve to this machine, and a page from there would then read ours; where there are
        passwords it has none, and no browser calls a Unix socket.

    Raises:
        AccessError: it may not.
    """
    if isinstance(address, UNIXAddress):
        return None
    if _is_loopback(address):
        return None if has_passwords else frozenset({*LOCAL_NAMES, *hosts})
    if not has_passwords:
        raise AccessError(
            f"{endpoint} may be reached from other hosts: give --password-file and TLS"
            " (ssl:7681:privateKey=...:certKey=...), or listen on 127.0.0.1 or on a Unix socket"
            " (unix:PATH) behind a proxy"
        )
    if endpoint.partition(":")[0] not in _ENCRYPTED:
        raise AccessError(
            f"{endpoint} may be reached from other hosts, and would carry passwords in clear:"
            " use ssl:7681:privateKey=...:certKey=..."
        )
    return None


def _is_loopback(address: IAddress) -> bool:
    if not isinstance(address, IPv4Address | IPv6Address):
        return False
    return ipaddress.ip_address(address.host).is_loopback
