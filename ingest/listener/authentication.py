"""Checking tokens without stopping the reactor, and keeping guessers out."""

import hmac
import secrets

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ingest.devices.registry import Registry
from ingest.devices.verifier import Verifier, matches
from ingest.wire.sasl import Credentials

_THREADS = 2  # a PBKDF2 keeps a core busy; more would only take turns
_REMEMBERED = 100_000


class Authenticator:
    """Finds out whether a token is a device's.

    The registry keeps SCRAM verifiers only, and to check a PLAIN token against one costs a PBKDF2,
    about a millisecond. That is done in two threads of our own, never in the reactor's. So that a
    storm of reconnecting devices does not cost one each, tokens that were good are remembered as
    HMAC-SHA-256, with the stored key that they agreed with, under a key that is drawn at each start
    and never leaves the memory: nothing that could be guessed at faster than a verifier is ever
    stored. What is not remembered, be the token wrong or the device unknown or disabled, goes the
    long way, so all failures take alike.
    """

    def __init__(self, registry: Registry, reactor: IReactorFromThreads) -> None:
        self._registry = registry
        self._reactor = reactor
        self._key = secrets.token_bytes(32)
        self._remembered: dict[str, bytes] = {}
        self._pool = ThreadPool(0, _THREADS, name="ingest-tokens")

    def start(self) -> None:
        """Begin."""
        self._pool.start()

    def stop(self) -> None:
        """Stop, when the checks at hand are done."""
        self._pool.stop()

    def keys(self, device: str) -> Verifier:
        """Return the keys of a device; for one that may not log in, keys that no token has.

        Raises:
            RegistryError: the registry can't be read now.
        """
        return self._registry.keys(device)

    def check(self, credentials: Credentials) -> Deferred[bool]:
        """Tell whether the token is the device's and the device is enabled."""
        keys = self.keys(credentials.device)
        # The stored key is of one length, so that no two pairs of key and token look alike.
        digest = hmac.digest(self._key, keys.stored_key + credentials.token.encode(), "sha256")
        if hmac.compare_digest(digest, self._remembered.get(credentials.device, b"")):
            return succeed(True)

        def remember(good: bool) -> bool:
            if good:
                self._remembered[credentials.device] = digest
                if len(self._remembered) > _REMEMBERED:
                    del self._remembered[next(iter(self._remembered))]  # the oldest
            return good

        checked: Deferred[bool] = deferToThreadPool(
            self._reactor, self._pool, matches, keys, credentials.token
        )
        return checked.addCallback(remember)
