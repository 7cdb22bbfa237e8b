"""A bound on how many connections an HTTP server has at a time."""

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory


class Limited(WrappingFactory):
    """Passes connections on to a factory, up to so many at a time.

    Beyond that a new one takes the place of the oldest: whoever holds connections, or sends a
    request a byte a minute, keeps nobody out.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory, most: int) -> None:
        """Pass on to `factory`, at most `most` at a time."""
        super().__init__(cast(Any, factory))
        self._most = most

    def buildProtocol(self, addr: IAddress | None) -> ProtocolWrapper:
        """Make the protocol of a connection, and cut the oldest one where there are too many."""
        if len(self.protocols) >= self._most:
            oldest = next(iter(self.protocols))
            self.unregisterProtocol(oldest)
            cast(Any, oldest.transport).abortConnection()
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """Called when a connection is over; one that was cut has been forgotten already."""
        self.protocols.pop(p, None)
