"""The chunks that a device has sent lately: one that comes again is stored once.

A client of Fluent Forward that misses the acknowledgement of a chunk sends the chunk again, over a
new connection, perhaps to a listener that was started anew. So each record carries the id of its
chunk and its place in it, as `chunk`: `<id>/<place>`, and the log itself tells what is there. Of a
chunk of five records whose third was the last that a crash left, `m3/2`, the records 3 and 4 are
still to be stored.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

_CHUNKS = 256
"""Chunks of one device that are remembered; in flight are as many as the client has threads."""
_DEVICES = 1024
"""Devices whose chunks are remembered: with the above, some 60 MB at the very most."""


class Stored(NamedTuple):
    """What is there of a chunk.

    Attributes:
        records: how many of its records.
        is_durable: tells whether they are on disk.
    """

    records: int
    is_durable: Callable[[], bool]


class Chunks:
    """The newest chunks of one device, by id."""

    __slots__ = ("_stored",)

    def __init__(self) -> None:
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def find(self, chunk: str) -> Stored | None:
        """Return what is there of a chunk; None if it was not sent lately."""
        return self._stored.get(chunk)

    def note(self, chunk: str, stored: Stored) -> None:
        """Note what is there of a chunk now."""
        self._stored[chunk] = stored
        self._stored.move_to_end(chunk)
        if len(self._stored) > _CHUNKS:
            self._stored.popitem(last=False)


class RecentChunks:
    """The newest chunks of all devices."""

    def __init__(self) -> None:
        self._devices: OrderedDict[str, Chunks] = OrderedDict()

    def of(self, device: str) -> Chunks:
        """Return the chunks of a device."""
        chunks = self._devices.get(device)
        if chunks is None:
            chunks = self._devices[device] = Chunks()
            if len(self._devices) > _DEVICES:
                self._devices.popitem(last=False)
        self._devices.move_to_end(device)
        return chunks

    def load(self, found: Iterable[tuple[str, str]]) -> None:
        """Take over what the log says: the device and the `chunk` of records, in their order."""
        for device, place in found:
            chunk, slash, number = place.rpartition("/")
            if slash and number.isascii() and number.isdigit():
                self.of(device).note(chunk, Stored(int(number) + 1, _is_durable))


def _is_durable() -> bool:
    return True  # it was read from the disk
