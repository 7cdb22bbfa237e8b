"""What is read from a device: whether, how much at once, and when something came last."""

import select
from collections.abc import Callable

from twisted.internet import tcp

from ingest.listener.outlet import DeviceTransport

READ = 120 << 10
"""Bytes of one read at most, where Twisted would take 64 KiB: at full speed a read has a price,
whatever its size. From 128 KiB on the C library would map new memory for each."""

FIRST_READ = 8 << 10
"""The same at first. Before a device is let in, what it sends ahead is kept at our cost, whoever it
is. After that its reads grow while they are full and quick to deal with."""


class Intake:
    """One connection's way in.

    Attributes:
        heard: when the device last sent something, by the clock that it is given.
        is_reading: whether we read from the device, and so hear when it closes.
        is_resting: whether its last read took too long, so that it has to wait.
        size: bytes of one read at most.
        socket: what is read, below TLS and other wrappers; None where the transport has none.
    """

    __slots__ = ("_now", "_transport", "heard", "is_reading", "is_resting", "size", "socket")

    def __init__(self, transport: DeviceTransport, now: Callable[[], float]) -> None:
        self._transport = transport
        self._now = now
        self.socket = socket_of(transport)
        self.heard = now()
        self.is_reading = True
        self.is_resting = False
        self.limit(FIRST_READ)

    def limit(self, size: int) -> None:
        """Read at most `size` bytes at once."""
        self.size = size
        if self.socket is not None:
            self.socket.bufferSize = size

    def grow(self) -> None:
        """Called when a read was as long as it may be, and was dealt with quickly."""
        if self.size < READ:
            self.limit(min(2 * self.size, READ))

    def has_unread(self) -> bool:
        """Tell whether bytes have arrived, or their end, that were not read yet."""
        if self.socket is None:
            return False
        arrived = select.poll()
        arrived.register(self.socket.fileno(), select.POLLIN)
        return bool(arrived.poll(0))

    def read(self, wanted: bool) -> None:
        """Begin to read, or stop; nothing, if that is so already."""
        if wanted == self.is_reading:
            return
        self.is_reading = wanted
        if wanted:
            self.heard = self._now()  # while we did not listen, no time passed
            self._transport.resumeProducing()
        else:
            self._transport.pauseProducing()


def socket_of(transport: object) -> tcp.Connection | None:
    """Return the socket at the bottom of a transport, below TLS and other wrappers.

    None for a transport that has none, such as one in memory.
    """
    while transport is not None:
        if isinstance(transport, tcp.Connection):
            return transport
        transport = getattr(transport, "transport", None)
    return None
