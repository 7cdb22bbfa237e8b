"""What goes wrong with connections, said so that an operator can act, and no more often.

The first incident of a kind is one line, with device, peer and reason. What follows within a minute
is one more line for all of them.
"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.logger import Logger

from ingest.wire.errors import ErrorCode

NO_PROXY_HEADER: Final = "no-proxy-header"
REGISTRY_FAILED: Final = "registry-failed"
TLS_FAILED: Final = "tls-failed"
KINDS: Final = (*ErrorCode, NO_PROXY_HEADER, REGISTRY_FAILED, TLS_FAILED)
"""What goes wrong: a conversation ends with an error, or one of those that no device is told."""

_NAMED = 3
"""How many devices a summary names, those with the most incidents."""
_NAME = 128
"""Characters of a claimed name that are kept."""
_KEYS = 1000
"""How many devices and addresses are told apart within a minute, for each kind."""


class Incident(NamedTuple):
    """The newest incident of a device.

    Attributes:
        at: when it was, in seconds since 1970.
        kind: one of `KINDS`.
        device: the name that was claimed, proved or not.
        host: where it came from.
        text: the reason, for people.
    """

    at: float
    kind: str
    device: str
    host: str
    text: str


class Incidents:
    """Counts incidents by kind, and says them.

    Attributes:
        counts: how many of each kind there were since the start.
        handshakes: how many handshakes ended how, by `mechanism/result`; the result is `ok` or an
            error code.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.counts: Counter[str] = Counter()
        self.handshakes: Counter[str] = Counter()
        self._unsaid: dict[str, Counter[tuple[str, str]]] = {}
        self._newest: dict[str, Incident] = {}
        self._clock = clock
        self._log = Logger(namespace="ingest.listener")

    def note(self, kind: str, device: str, host: str, text: str) -> None:
        """Note an incident.

        Args:
            kind: one of `KINDS`.
            device: the name that was claimed, proved or not; empty if none was.
            host: where it came from.
            text: the reason, for people.
        """
        device = device[:_NAME]
        self.counts[kind] += 1
        self._remember(Incident(self._clock(), kind, device, host, text))
        if kind not in self._unsaid:
            self._unsaid[kind] = Counter()
            self._log.warn(
                "{kind}: {device} at {host}: {text}",
                kind=kind, device=_quoted(device), host=host, text=text,
            )  # fmt: skip
            return
        unsaid = self._unsaid[kind]
        key = (device, host)
        unsaid[key if key in unsaid or len(unsaid) < _KEYS else ("", "other addresses")] += 1

    def newest(self) -> list[Incident]:
        """Return the newest incident of each device, of the `_KEYS` devices that had any last."""
        return list(self._newest.values())

    def _remember(self, incident: Incident) -> None:
        if not incident.device:
            return
        self._newest.pop(incident.device, None)
        self._newest[incident.device] = incident
        if len(self._newest) > _KEYS:
            del self._newest[next(iter(self._newest))]

    def summarise(self) -> None:
        """Say what was not said yet; called once a minute."""
        for kind, unsaid in list(self._unsaid.items()):
            if not unsaid:
                del self._unsaid[kind]
                continue
            self._unsaid[kind] = Counter()
            most = ", ".join(
                f"{_quoted(device)} at {host} ({count})"
                for (device, host), count in unsaid.most_common(_NAMED)
            )
            self._log.warn(
                "{kind}: {count} more in the last minute, of {keys} devices and addresses,"
                " most of them: {most}",
                kind=kind, count=unsaid.total(), keys=len(unsaid), most=most,
            )  # fmt: skip


def _quoted(device: str) -> str:
    """Write a claimed name so that it steers no terminal and garbles no line."""
    return ascii(device) if device else "no name yet"
