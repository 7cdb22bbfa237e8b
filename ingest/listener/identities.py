"""Who devices are: what the registry says of the names that connections claim.

While the registry can't be read, nobody is let in, and those that are connected stay so.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ingest.devices.registry import Registry, RegistryError
from ingest.listener.admission import Admission
from ingest.listener.authentication import Authenticator
from ingest.listener.incidents import REGISTRY_FAILED, Incidents
from ingest.wire.conversation import Claim, Context, Peer, Standing, host_of
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.sasl import Credentials, StoredKeys, auth_failed


class Proved(Protocol):
    """A connection that has proved a name.

    Attributes:
        claimed: the name.
        revocations: the mark of the last revocation when the connection was made.
    """

    claimed: str
    revocations: int


_Proved = TypeVar("_Proved", bound=Proved)


class Identities:
    """Asks the registry on behalf of connections, and the limits of attempts before that.

    Attributes:
        health: why the registry can't be read; empty while it can.
    """

    _log = Logger(namespace="ingest.listener")

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticator,
        admission: Admission,
        incidents: Incidents,
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._admission = admission
        self._incidents = incidents
        self._now = now
        self._revocation = registry.last_revocation()
        self.health = ""

    def context(self, peer: Peer, refusal: PeerError | None) -> Context:
        """Return what a conversation with `peer` may know.

        Args:
            peer: the other end.
            refusal: why it is not let in, whatever it says; None if it may be.
        """
        limits = self._admission.limits
        return Context(
            peer,
            limits.max_frame,
            limits.allow_plaintext_auth,
            partial(self.find_keys, peer),
            refusal,
            partial(self.check_attempt, peer),
        )

    def check_attempt(self, peer: Peer, device: str) -> None:
        """Called before any costly look at an attempt to prove a name.

        Raises:
            PeerError: there were too many that failed.
        """
        self._admission.check(peer.host, device, self._now(), self._last_host)

    def find_keys(self, peer: Peer, device: str) -> StoredKeys:
        """Return the keys of a device; for a name that may not log in, keys that no token has.

        Raises:
            PeerError: they are not to be looked up now.
        """
        self.check_attempt(peer, device)
        try:
            return self._authenticator.keys(device)
        except RegistryError as error:
            raise self._not_now(peer, device, error) from None

    def check_token(self, peer: Peer, credentials: Credentials) -> Deferred[bool]:
        """Tell whether a token is a device's.

        Raises:
            PeerError: it is not to be checked now.
        """
        self.check_attempt(peer, credentials.device)
        try:
            return self._authenticator.check(credentials)
        except RegistryError as error:
            raise self._not_now(peer, credentials.device, error) from None

    def check_claim(self, claim: Claim, since: int) -> None:
        """See that the registry has nothing against a claim; see `Standing`.

        Args:
            claim: the claim.
            since: what `last_revocation` gave when the connection was made.

        Raises:
            PeerError: it has, or can't be asked now.
        """
        try:
            if claim.standing is Standing.PROVED:
                # The keys that proved the name may have been revoked since they were looked up.
                if claim.device in self._registry.revoked_since(since)[1]:
                    raise PeerError(ErrorCode.REVOKED, "the device was disabled or has a new token")
            elif not self._registry.may_connect(
                claim.device, unregistered=claim.standing is Standing.UNREGISTERED
            ):
                raise auth_failed()
        except RegistryError:
            raise _no_registry() from None

    def format_of(self, device: str) -> str:
        """Return what a device's lines of text are; empty where the registry does not say.

        Raises:
            PeerError: it can't be asked now.
        """
        try:
            return self._registry.format_of(device)
        except RegistryError:
            raise _no_registry() from None

    def last_revocation(self) -> int:
        """Return the mark of the last revocation."""
        try:
            return self._registry.last_revocation()
        except RegistryError:
            return self._revocation  # an older mark; no key can be looked up now either

    def revoked(self, proved: Callable[[Collection[str]], Iterable[_Proved]]) -> list[_Proved]:
        """Return the connections whose keys were revoked since the last call.

        Args:
            proved: returns the connections that have proved one of some names.
        """
        try:
            mark, names = self._registry.revoked_since(self._revocation)
            candidates = proved(frozenset(names)) if names else ()
            outdated = [each for each in candidates if self._is_outdated(each)]
        except RegistryError as error:
            self._set_health(str(error))
            return []
        self._revocation = mark
        self._set_health("")
        return outdated

    def _is_outdated(self, connection: Proved) -> bool:
        """Tell whether a device that was revoked has proved its name by keys from before.

        It may have come since, with its new token: to cut it would tell it to stay away.
        """
        since = connection.revocations
        if since <= self._revocation:
            return True
        return connection.claimed in self._registry.revoked_since(since)[1]

    def _set_health(self, health: str) -> None:
        if health == self.health:
            return
        self.health = health
        if health:
            self._log.error("{health}; nobody is let in meanwhile", health=health)
        else:
            self._log.info("the registry can be read again")

    def _last_host(self, device: str) -> str:
        try:
            found = self._registry.get(device)
        except RegistryError:
            return ""  # whoever looks up its keys is told
        return "" if found is None or found.last_peer is None else host_of(found.last_peer)

    def _not_now(self, peer: Peer, device: str, error: RegistryError) -> PeerError:
        self._incidents.note(REGISTRY_FAILED, device, peer.host, str(error))
        return _no_registry()


def _no_registry() -> PeerError:
    return PeerError(ErrorCode.BUSY, "devices can't be looked up now; try again later")
