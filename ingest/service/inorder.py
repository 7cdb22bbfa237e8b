"""Services that stand on one another: each starts on those before it, and stops before they do."""

from collections.abc import Generator
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure


class InOrder(MultiService):
    """Starts its services in the order in which they were added, and stops them in the reverse.

    `MultiService` stops all at the same moment. Here one is stopped when the next one is.
    """

    _log = Logger(namespace="ingest")

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop one service after the other; fires when the first one has stopped.

        One that fails to stop is said, and keeps none of the others from it.
        """
        self.running = 0
        services: list[IService] = list(self)
        for service in reversed(services):
            if service.running:  # where a start has failed, those behind it never ran
                stopped = maybeDeferred(service.stopService)
                yield stopped.addErrback(self._failed, service)

    def _failed(self, failure: Failure, service: IService) -> None:
        self._log.failure("{service} did not stop well", failure, service=type(service).__name__)
