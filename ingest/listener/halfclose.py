"""Hearing of a half-closed connection through Twisted's wrappers."""

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import alsoProvides


def pass_half_close(transport: object, protocol: IHalfCloseableProtocol) -> None:
    """Let a wrapper, such as that of `haproxy:`, tell `protocol` that the device closed its side.

    A wrapper does not pass on what its protocol provides, so the socket below would take the
    connection for lost. A wrapper that is TLS has its own way to close.
    """
    if isinstance(transport, ProtocolWrapper) and not ISSLTransport.providedBy(transport):
        transport.readConnectionLost = protocol.readConnectionLost  # type: ignore[attr-defined]
        transport.writeConnectionLost = protocol.writeConnectionLost  # type: ignore[attr-defined]
        alsoProvides(transport, IHalfCloseableProtocol)
