"""What rules ask of that is not in the log: refusals, the disk, who left, what was left out."""

import shutil
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ingest.devices.registry import Registry, RegistryError
from ingest.log.jumps import read_jumps
from ingest.ops.control import ControlError, ask
from ingest.watch.rules.memory import Device

_TIMEOUT: Final = 5.0
_WINDOW: Final = 3600.0
"""Seconds over which the disk's filling is measured."""
_SHORTEST: Final = 300.0
"""Seconds that must have been seen before a rate is believed."""


@dataclass(frozen=True)
class Listener:
    """What a running listener says.

    Attributes:
        refusals: how often it has refused each device since it started: whoever claimed its name
            and was not let in, and frames.
        uptime: seconds since it started.
        disk_full_in: in how many seconds the disk will be full at the present rate; None if it
            does not fill, or the listener does not say.
    """

    refusals: Mapping[str, int]
    uptime: float
    disk_full_in: float | None = None


def ask_listener(control: Path) -> Listener | None:
    """Ask a running listener; None if none answers.

    Args:
        control: its control socket (see `ingest.ops.control`).
    """
    try:
        status = ask(control, "status", _TIMEOUT)
        refused = {name: _refused(account) for name, account in status["devices"].items()}
        return Listener(refused, float(status["uptime_s"]), status.get("disk_full_in_s"))
    except (ControlError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _refused(account: Mapping[str, Any]) -> int:
    """Add up what the listener counts of one device: frames, and connections by reason."""
    refused: int = sum(account["refused_frames"].values()) + sum(account["refusals"].values())
    return refused


class DiskTrend:
    """How fast a disk fills, from what was free during the last hour."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: deque[tuple[float, int]] = deque()

    def full_in(self, now: float) -> float | None:
        """Look at the disk, and return in how many seconds it will be full.

        None if it does not fill, or has not been looked at for five minutes.

        Args:
            now: seconds of any clock that does not go back.

        Raises:
            OSError: the folder is missing.
        """
        return self.note(now, shutil.disk_usage(self._folder).free)

    def note(self, now: float, free: int) -> float | None:
        """As `full_in`, of a disk with `free` bytes left."""
        self._free.append((now, free))
        while self._free[0][0] < now - _WINDOW:
            self._free.popleft()
        since, before = self._free[0]
        if now - since < _SHORTEST or free >= before:
            return 0.0 if free == 0 else None
        return free * (now - since) / (before - free)


class Removals:
    """Devices that an operator removes from the registry: what fires on them is no news."""

    def __init__(self, registry: Path) -> None:
        self._path = registry
        self._revision = b""

    def look(self, devices: Collection[Device]) -> list[Device]:
        """Note with each device whether it is registered, and return those where that is news.

        What was noted is saved with them: a removal in a night off is noticed in the morning.
        """
        try:
            with Registry(self._path, make=False) as registry:
                revision = registry.revision()
                is_other, self._revision = revision != self._revision, revision
                # As long as the registry is what it was, only newcomers are looked up.
                asked = [each for each in devices if is_other or not each.registered]
                found = registry.registered(each.name for each in asked)
        except RegistryError:
            return []  # the listener says what is wrong with it
        news = [each for each in asked if each.registered is not (each.name in found)]
        for device in news:
            device.registered = not device.registered
        return news


def jumps(log_folder: Path) -> Callable[[str, int], bool]:
    """Return what tells whether the listener has noted that it left out numbers of a device."""

    def is_jump(device: str, number: int) -> bool:
        return number in read_jumps(log_folder).get(device, ())

    return is_jump
