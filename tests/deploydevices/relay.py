"""A network between a device and its listener, which breaks when a test says so."""

import asyncio
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)


class _End(asyncio.Protocol):
    """One end of a connection; what it gets goes to the other end."""

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # What breaks on one side must break on the other: a clean end would mean something else.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._relay.ends.add(self)
        if self.other is None:
            transport.pause_reading()
            self._relay.join(self)

    def data_received(self, data: bytes) -> None:
        if self.other and self.other.transport:
            self._relay.bytes += len(data)
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.ends.discard(self)
        if self.other:
            self.other.abort()

    def abort(self) -> None:
        if self.transport:
            self.transport.abort()


class Relay:
    """Passes connections on to a port, from a port of its own.

    Attributes:
        address: where devices connect.
        bytes: how many it has passed on, in both directions.
        ends: of the connections that are open.
    """

    def __init__(self, target: int) -> None:
        """Describe it.

        Args:
            target: a port of 127.0.0.1; nobody need listen there yet.
        """
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ends: set[_End] = set()
        self.bytes = 0

    def __enter__(self) -> Self:
        serving = self._loop.create_server(lambda: _End(self), "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(serving)
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        self._cut()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def cut(self) -> None:
        """Break all connections; what was on its way is lost."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for end in list(self.ends):
            end.abort()

    def join(self, device: _End) -> None:
        """Connect a device to the listener, or break its connection if there is none."""
        task = self._loop.create_task(self._join(device))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, device: _End) -> None:
        def make() -> _End:
            end = _End(self)
            end.other, device.other = device, end
            return end

        try:
            await self._loop.create_connection(make, "127.0.0.1", self._target)
        except OSError:
            device.abort()
            return
        if device.transport and not device.transport.is_closing():
            device.transport.resume_reading()
