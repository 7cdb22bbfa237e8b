"""Who was seen, when and from where: notes for the registry."""

from collections.abc import Collection

from ingest.listener.surroundings import Member

Sighting = tuple[str, str, str]
"""A device, when it last sent something (RFC 3339), and from where (`host:port`)."""


class Sightings:
    """Collects what the registry is to note; of each device, the newest."""

    def __init__(self) -> None:
        self._seen: dict[str, Sighting] = {}

    def note(self, connection: Member, time: str) -> None:
        """Note a device that holds its lease."""
        self._seen[connection.device] = (connection.device, time, str(connection.peer))

    def take(self) -> Collection[Sighting]:
        """Return what was noted since the last call."""
        seen, self._seen = self._seen, {}
        return seen.values()
