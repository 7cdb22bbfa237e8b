"""Services that stand on one another: each starts on those before it, and stops before they do."""

from collections.abc import Generator
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred


class InOrder(MultiService):
    """Starts its services in the order in which they were added, and stops them in the reverse.

    `MultiService` stops all at the same moment. Here one is stopped when the next one is.
    """

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop one service after the other; fires when the first one has stopped."""
        self.running = 0
        services: list[IService] = list(self)
        for service in reversed(services):
            if service.running:  # where a start has failed, those behind it never ran
                yield maybeDeferred(service.stopService)
