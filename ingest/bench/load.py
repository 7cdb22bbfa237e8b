"""The load of one process: many connections, one thread, one epoll."""

import os
import random
import select
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice

from ingest.bench.connection import Connection, Waiting
from ingest.bench.frames import make_block
from ingest.bench.plan import Connected, Plan, Sent
from ingest.client import ClientError, ServerError

Tell = Callable[[int], object]
"""Takes how many devices are connected, then how many frames were sent, now and then."""

_TICK = 0.1  # seconds to wait at most, so as to look at the clock
_TURN = 256  # frames of `single`, or new connections, between two looks at what was said
_TIMED = 250  # devices of `single` that are heard at once
_HEARD_ONCE_IN = 16  # frames of the others
_CONNECT_TIMEOUT = 60.0  # seconds for all connections together
_DRAIN_TIMEOUT = 60.0  # seconds for the last ACKs
_REPORT = 0.25  # seconds between two words on how it goes
_FAILURES = (OSError, ClientError, ValueError)


class Load:
    """Connects the devices of a plan, then sends their frames."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        """Make the frames; `tell` hears how it goes."""
        self._plan = plan
        self._tell = tell
        self._block = make_block(plan.dialect, plan.size)
        self._view = memoryview(self._block.data)
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._failures: Counter[str] = Counter()
        self._sent = Sent(0.0)
        self._told = 0.0

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._poll.close()

    # Connecting.

    def connect(self) -> Connected:
        """Connect all devices, and say what came of it."""
        done = Connected(time.monotonic())
        shaking: dict[int, Waiting] = {}
        coming = self._open()
        deadline = done.begun + _CONNECT_TIMEOUT
        while time.monotonic() < deadline:
            room = min(_TURN, self._plan.at_once - len(shaking))
            begun = list(islice(coming, room))
            for connection in begun:
                self._connections[connection.fd] = connection
                shaking[connection.fd] = connection.shake_hands()
                self._poll.register(connection.fd, next(shaking[connection.fd]))
            if not shaking:
                break
            for fd, _ in self._poll.poll(0 if begun else _TICK):
                self._step(fd, shaking, done)
            self._tell(done.devices)
        for fd in shaking:
            self._drop(fd, "not connected in time")
        done.failures, self._failures = self._failures, Counter()
        return done

    def _open(self) -> Iterator[Connection]:
        tls = ssl.create_default_context(cafile=self._plan.trusted) if self._plan.tls else None
        for device in self._plan.devices:
            yield Connection(self._plan, device, self._block.stride, tls)

    def _step(self, fd: int, shaking: dict[int, Waiting], done: Connected) -> None:
        connection = self._connections[fd]
        was_open = connection.opened
        try:
            self._poll.modify(fd, next(shaking[fd]))
        except StopIteration:
            del shaking[fd]
            done.devices += 1
            done.ready = time.monotonic()
            self._poll.modify(fd, select.EPOLLIN)
        except _FAILURES as error:
            del shaking[fd]
            self._drop(fd, _name(error))
        if connection.opened and not was_open:
            done.opened = time.monotonic()

    # Sending.

    def run(self) -> Sent:
        """Send as the plan says, wait for the last ACK, and say what came of it."""
        cpu = time.process_time()
        self._sent = sent = Sent(time.monotonic())
        self._share_out()
        everyone = list(self._connections.values())
        patterns = {"stream": self._stream, "single": self._single, "paced": self._pace}
        patterns.get(self._plan.pattern, self._idle)(self._deadline())
        sent.ended = time.monotonic()
        sent.frames = sum(connection.frames for connection in everyone)
        sent.acknowledged = sum(connection.acked for connection in everyone)
        sent.failures = self._failures
        sent.cpu = time.process_time() - cpu
        return sent

    def _deadline(self) -> float:
        seconds = self._plan.seconds
        return float("inf") if seconds is None else self._sent.begun + seconds

    def _share_out(self) -> None:
        frames, devices = self._plan.frames, len(self._connections)
        each, more = (sys.maxsize, 0) if frames is None else divmod(frames, devices or 1)
        for index, connection in enumerate(self._connections.values()):
            connection.quota = (each + (index < more)) * self._block.stride

    def _stream(self, deadline: float) -> None:
        self._watch(self._connections, select.EPOLLIN | select.EPOLLOUT)
        writing = set(self._connections)
        while writing and time.monotonic() < deadline:
            for fd, event in self._poll.poll(_TICK):
                connection = self._connections[fd]
                self._exchange(connection, event)
                if connection.written >= connection.quota and fd in writing:
                    writing.discard(fd)
                    self._watch((fd,), select.EPOLLIN)
            writing &= self._connections.keys()
            self._report_frames()
        self._drain()

    def _single(self, deadline: float) -> None:
        """Send one frame of each device in turn.

        To read an ACK for every frame would cost as much as to send it: a few devices are heard
        at once and timed, the others once in a while.
        """
        everyone = list(self._connections.values())
        for index, connection in enumerate(everyone):
            if index % max(1, len(everyone) // _TIMED):
                connection.timed = False
                self._watch((connection.fd,), 0)
        for turn in count():
            ready = [c for c in self._connections.values() if c.written < c.quota]
            if not ready or time.monotonic() > deadline:
                break
            for start in range(0, len(ready), _TURN):
                part = ready[start : start + _TURN]
                self._send_each(part)
                for connection in part[turn % _HEARD_ONCE_IN :: _HEARD_ONCE_IN]:
                    self._exchange(connection, select.EPOLLIN)
                self._hear(0)
            self._report_frames()
        self._drain()

    def _pace(self, deadline: float) -> None:
        """Spread the devices evenly over the time between two frames of one device."""
        order = list(self._connections.values())
        random.shuffle(order)
        per_second, done = self._plan.rate * len(order), 0
        wanted = sys.maxsize if self._plan.frames is None else self._plan.frames
        while done < wanted and self._connections and (now := time.monotonic()) < deadline:
            due = min(wanted, int((now - self._sent.begun) * per_second))
            self._send_each(order[index % len(order)] for index in range(done, due))
            done = due
            self._hear(max(0.0, self._sent.begun + (due + 1) / per_second - time.monotonic()))
            self._report_frames()
        self._drain()

    def _idle(self, deadline: float) -> None:
        while self._connections and (left := deadline - time.monotonic()) > 0:
            self._hear(min(left, _TICK))

    def _send_each(self, connections: Iterable[Connection]) -> None:
        now, view = time.monotonic(), self._view
        for connection in connections:
            try:
                connection.send_frame(view, now)
            except OSError as error:
                self._drop(connection.fd, _name(error))

    def _hear(self, timeout: float) -> None:
        for fd, event in self._poll.poll(timeout):
            self._exchange(self._connections[fd], event)

    def _drain(self) -> None:
        """Finish the frames at hand and wait until the listener has said its last word."""
        for connection in self._connections.values():
            connection.finish_frame()
        waiting = {fd for fd, one in self._connections.items() if not one.is_settled}
        self._watch(waiting, select.EPOLLIN | select.EPOLLOUT)
        give_up = time.monotonic() + _DRAIN_TIMEOUT
        while waiting and time.monotonic() < give_up:
            for fd, event in self._poll.poll(_TICK):
                connection = self._connections[fd]
                self._exchange(connection, event)
                if event & select.EPOLLOUT and connection.written >= connection.quota:
                    self._finish(connection)
                if connection.is_settled:
                    waiting.discard(fd)
            waiting &= self._connections.keys()
            self._report_frames()
        for fd in waiting:
            self._drop(fd, "no last ACK" if self._plan.acks else "not closed by the listener")

    def _finish(self, connection: Connection) -> None:
        if connection.closed or connection.fd not in self._connections:
            return
        self._watch((connection.fd,), select.EPOLLIN)
        if self._plan.acks:
            return
        try:
            connection.finish()
        except OSError as error:
            self._drop(connection.fd, _name(error))

    # What all patterns need.

    def _exchange(self, connection: Connection, event: int) -> None:
        """Do what the socket is ready for."""
        now = time.monotonic()
        try:
            if event & ~select.EPOLLOUT:
                connection.hear(now, self._sent.latencies)
            if event & select.EPOLLOUT and connection.written < connection.quota:
                connection.send(self._view, connection.quota - connection.written, now)
        except _FAILURES as error:
            self._drop(connection.fd, _name(error))
            return
        if connection.closed:
            self._closed(connection)

    def _closed(self, connection: Connection) -> None:
        if connection.is_settled:
            self._poll.unregister(connection.fd)
        else:
            self._drop(connection.fd, "closed by the listener")

    def _watch(self, fds: Iterable[int], events: int) -> None:
        for fd in fds:
            self._poll.modify(fd, events)

    def _drop(self, fd: int, reason: str) -> None:
        connection = self._connections.pop(fd, None)
        if connection is not None:
            self._failures[reason] += 1
            connection.close()  # which takes it from the epoll, too

    def _report_frames(self) -> None:
        now = time.monotonic()
        if now - self._told > _REPORT:
            self._told = now
            self._tell(sum(connection.frames for connection in self._connections.values()))


def _name(error: Exception) -> str:
    """Name a failure so that equal ones count as one."""
    if isinstance(error, ServerError):
        return error.code
    if isinstance(error, ssl.SSLError):  # whose errno is of OpenSSL, not of the system
        return error.reason or str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)
