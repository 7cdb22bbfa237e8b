"""A naive listener, to compare with: a LineReceiver, json.dumps and one write for each line."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.protocols.basic import LineReceiver


class NaiveProtocol(LineReceiver):
    delimiter = b"\n"

    def __init__(self, log: BinaryIO) -> None:
        self._log = log

    def lineReceived(self, line: bytes) -> None:
        device = cast(Any, self.transport).getPeer().host
        time = datetime.now(UTC).isoformat()
        record = {"time": time, "device": device, "text": line.decode(errors="replace")}
        self._log.write(json.dumps(record).encode() + b"\n")


class NaiveFactory(ServerFactory):
    noisy = False

    def __init__(self, log: BinaryIO) -> None:
        self._log = log

    def buildProtocol(self, addr: IAddress | None) -> NaiveProtocol:
        return NaiveProtocol(self._log)


def serve(port: int, log: str) -> None:
    """Append what devices say on a port of 127.0.0.1 to a file, until SIGTERM."""
    from twisted.internet import reactor as installed  # noqa: PLC0415 - the one place that runs it

    reactor = cast(Any, installed)
    with Path(log).open("ab", buffering=0) as file:
        reactor.listenTCP(port, NaiveFactory(file), backlog=4096, interface="127.0.0.1")
        reactor.run()
