"""A mail server that keeps each message as a file, in the order of their coming.

Run it: `python -m tests.watch.rules.mailserver FOLDER`; it prints its port. Addresses that begin
with `nobody` are refused.
"""

import sys
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, succeed
from twisted.mail import smtp
from zope.interface import implementer

NUMBERS = count(1)


@implementer(smtp.IMessage)
class Message:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        path = self._folder / f"{next(NUMBERS):04}"
        path.with_suffix(".new").write_bytes(b"\n".join(self._lines))
        path.with_suffix(".new").rename(path.with_suffix(".eml"))
        return succeed(None)

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(smtp.IMessageDelivery)
class Delivery:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by the tests"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        if str(user).startswith("nobody"):
            raise smtp.SMTPBadRcpt(user)
        return lambda: Message(self._folder)


class Factory(smtp.SMTPFactory):
    protocol = smtp.ESMTP

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.delivery = Delivery(self._folder)
        return protocol


def main(folder: Path) -> None:
    reactor: Any = installed
    port = reactor.listenTCP(0, Factory(folder), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
