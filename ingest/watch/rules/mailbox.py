"""Mail that a rule fires or has cleared."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConnector
from twisted.mail.smtp import ESMTPSenderFactory, SMTPClientError
from twisted.python.failure import Failure

from ingest.watch.rules.model import MailServer
from ingest.watch.rules.phases import Event
from ingest.watch.rules.receiver import (
    PATIENCE,
    DeliveryError,
    IActionReactor,
    in_one_line,
    is_silent,
)

_SEVEN_BIT: Final = SMTP.clone(cte_type="7bit", linesep="\n")
"""For mail servers without 8BITMIME (RFC 6152). Twisted makes CR LF of each LF."""


class Mailbox:
    """Sends mail. A clearing is a reply to its firing, so that both stand in one thread."""

    def __init__(
        self, reactor: IActionReactor, address: str, server: Callable[[], MailServer]
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._server = server

    def tell(self, event: Event) -> Deferred[Any]:
        """Send it."""
        server = self._server()
        sender = server.sender or f"ingest@{gethostname()}"
        password = Path(server.password_file).read_text().strip() if server.password_file else ""
        sent: Deferred[Any] = Deferred(lambda _: _hang_up(factory, connector))
        factory = ESMTPSenderFactory(
            server.username.encode() or None,
            password.encode() or None,
            sender,
            [self._address],
            BytesIO(self._written(event, sender)),
            sent,
            retries=0,  # the courier does that
            requireAuthentication=bool(server.username),
            requireTransportSecurity=server.tls,
            hostname=server.host,
        )
        connector = self._reactor.connectTCP(server.host, server.port, factory)
        return sent.addErrback(_refused).addTimeout(PATIENCE, self._reactor, is_silent)

    def remind(self, firing: Sequence[Event]) -> None:
        """It does not forget."""

    def _written(self, event: Event, sender: str) -> bytes:
        mail = EmailMessage(policy=_SEVEN_BIT)
        mail["From"] = sender
        mail["To"] = self._address
        mail["Subject"] = f"[{event.state}] {in_one_line(event.message)}"
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = f"<{event.id}.{event.state}@ingest>"
        if not event.firing:
            mail["In-Reply-To"] = mail["References"] = f"<{event.id}.firing@ingest>"
        mail["Auto-Submitted"] = "auto-generated"
        lines = [f"{name}: {value}" for name, value in event.described().items()]
        text = [*event.message.splitlines(), "", *lines]
        mail.set_content("".join(f"{in_one_line(line)}\n" for line in text))
        return mail.as_bytes()


def _hang_up(factory: ESMTPSenderFactory, connector: IConnector) -> None:
    factory.sendFinished = True
    if factory.currentProtocol is None:
        connector.disconnect()
    else:
        factory.currentProtocol.transport.abortConnection()


def _refused(failure: Failure) -> Failure:
    """550 to 559: the mailbox is not there, or this mail is not wanted (RFC 5321, 4.2.3)."""
    failure.trap(SMTPClientError)
    error = failure.value
    assert isinstance(error, SMTPClientError)
    code = int(error.code)
    if code < 0:
        return Failure(DeliveryError(str(error), answered=False))
    return Failure(DeliveryError(f"it answers {code}", final=550 <= code < 560))
