"""How often devices are refused before they are let in, by the names that they claim."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from ingest.devices.registry import RegistryError
from ingest.names import is_device_name

_WAITING = 1000
"""How many names and reasons may wait for the registry."""

Registered = Callable[[Collection[str]], set[str]]
"""Returns which of some names are registered; may raise RegistryError."""


class Refusals:
    """Counts the refusals of each registered device, by reason.

    Anybody may claim any name, so counts are kept only under names that are registered. Which those
    are is asked later, for many names at once: within a handshake the look-up's time would tell.
    """

    def __init__(self, registered: Registered) -> None:
        self._registered = registered
        self._counts: dict[str, Counter[str]] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()

    def note(self, device: str, reason: str) -> None:
        """Note that whoever claims a name was not let in.

        Args:
            device: the name; it need not be one.
            reason: an error code of the protocol.
        """
        if not is_device_name(device):
            return  # nobody has it, and it may have any length
        self._waiting[device, reason] += 1
        if len(self._waiting) >= _WAITING:
            try:
                self._sort_out()
            finally:
                self._waiting.clear()  # what the registry could not tell now

    def counts(self) -> Mapping[str, Counter[str]]:
        """Return how often each registered device was refused since the start, by reason."""
        self._sort_out()
        return self._counts

    def _sort_out(self) -> None:
        try:
            registered = self._registered({device for device, _ in self._waiting})
        except RegistryError:
            return
        for (device, reason), count in self._waiting.items():
            if device in registered:
                self._counts.setdefault(device, Counter())[reason] += count
        self._waiting.clear()
