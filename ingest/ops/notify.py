"""What systemd is told of a service, and how often it wants to hear of it: see sd_notify(3)."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

_TIMEOUT = 0.1
"""Seconds that a message may take. systemd reads at once; if it does not, there are others."""


class Notifier:
    """Sends datagrams to the socket that `NOTIFY_SOCKET` names; nowhere if there is none.

    Attributes:
        is_heard: whether there is one.
        watchdog: seconds within which systemd wants to hear of us, again and again; 0 for never.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read what systemd says, as sd_notify(3) and sd_watchdog_enabled(3) have it.

        Args:
            environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as far as they are
                set.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.is_heard = bool(address)
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        is_number = microseconds.isascii() and microseconds.isdigit()
        self.watchdog = int(microseconds) / 1e6 if is_ours and is_number else 0.0
        self._status = ""  # what was said last

    def ready(self, status: str) -> None:
        """Say that all is there."""
        self._status = status
        self._tell("READY=1", f"STATUS={status}")

    @contextmanager
    def reloading(self, status: Callable[[], str]) -> Iterator[None]:
        """Say that settings are being read, and at the end of the block that this is over.

        Args:
            status: returns how things are then.
        """
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self.ready(status())

    def stopping(self, status: str) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say how things are, in one line for `systemctl status`, unless that was said last."""
        if status != self._status:
            self._status = status
            self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """Say that we are not stuck."""
        self._tell("WATCHDOG=1")

    def _tell(self, *assignments: str) -> None:
        if not self.is_heard:
            return
        # A line is a message's unit: what an error of the system says must not begin another.
        message = "\n".join(" ".join(each.splitlines()) for each in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_TIMEOUT)
                sender.sendto(message.encode(), self._address)
        except OSError:  # nobody is there, or does not read: no reason to serve devices less
            pass
