"""What is wrong with an endpoint, and what would be right, for whoever wrote it."""

import os
import re
from ipaddress import ip_address
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.endpoints import quoteStringArgument

from ingest.names import nearest

EXAMPLES = {
    "tcp": "tcp:7650 or tcp:7650:interface=192.0.2.1",
    "tcp6": r"tcp6:7650 or tcp6:7650:interface=2001\:db8\:\:1",
    "ssl": "ssl:7651:privateKey=key.pem:certKey=cert.pem",
    "unix": "unix:/run/ingest/socket or unix:/run/ingest/socket:mode=660",
    "systemd": "systemd:domain=INET6:name=ingest, where the domain is INET, INET6 or UNIX",
    "haproxy": "haproxy:tcp:7650",
}
"""The kinds of endpoint, and how each is written."""

_COMPLAINTS = {
    r"unexpected keyword argument '(.*)'": "it takes no {}",
    r"missing \d+ required positional arguments?: '(.*)'": "the {} is missing",
    r"invalid literal for int\(\) with base \d+: (.*)": "{} is not a number",
    r"has no attribute 'AF_(.*)'": "there is no domain {}",
    r"generator raised (StopIteration)": "a backslash ends it",
    r"bind\(\): (port must be 0-65535)": "the {}",
    r"Unknown endpoint type: (.*)": "there is no kind {}, but " + ", ".join(EXAMPLES),
}
"""What Twisted says of an endpoint, as a pattern, and the words for whoever wrote it."""


def explain(text: str, error: Exception, prefix: str) -> str:
    """Say in one line why `text` is no endpoint, and what it should be.

    Args:
        text: the endpoint, without `prefix`.
        error: what Twisted said of it.
        prefix: what stands in front of it, such as `haproxy:`, and of what it should be.
    """
    meant = _suggest(text)
    if meant is not None:
        return f"no such endpoint; did you mean {prefix}{meant}?"
    kind = text.partition(":")[0]
    example = EXAMPLES.get(kind)
    form = f"; the form is {prefix}{example}" if example else ""
    if isinstance(error, OSError) and error.filename is not None:
        reason = f"{os.fsdecode(error.filename)}: {error.strerror}"
        # A file that nobody named is Twisted's default, server.pem.
        return reason if "privateKey=" in text else reason + form
    if isinstance(error, SSL.Error | crypto.Error):
        files = re.findall(r"(?:privateKey|certKey|extraCertChain)=([^:]*)", text)
        return f"no certificate with its key, in PEM, in {' and '.join(files) or 'server.pem'}"
    if kind == "systemd" and isinstance(error, LookupError):
        return (
            "systemd gave no such socket: it sets LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, all"
            " three, for a .socket unit with FileDescriptorName=NAME"
        )
    return _in_words(error) + form


def explain_tls(text: str) -> str:
    """Say why a `tls:` endpoint can't be meant; empty if it can.

    Its first argument is a folder of certificates, and its port is 443 unless it is given. With
    `tls:7651` it would listen there, and let nobody in.
    """
    folder = text.partition(":")[2].partition(":")[0].removeprefix("path=")
    if folder and Path(folder).is_dir():
        return ""
    return (
        f"tls: takes a folder of certificates, and there is none at {folder!r}; the form is"
        f" {EXAMPLES['ssl']}, or tls:/etc/ingest/certificates:port=7651"
    )


def explain_refusal(error: BaseException | None) -> str:
    """Say why nothing can listen there."""
    if isinstance(error, SSL.Error):
        return f"OpenSSL refuses the certificate: {error.args[0][-1][-1]}"
    reason = getattr(error, "socketError", None) or error
    return getattr(reason, "strerror", None) or _in_words(reason)


def _in_words(error: object) -> str:
    for pattern, words in _COMPLAINTS.items():
        match = re.search(pattern, str(error))
        if match is not None:
            return words.format(match[1])
    return str(error).rstrip(".")


def _suggest(text: str) -> str | None:
    """Guess which endpoint is meant by a port, an address, a path or a misspelt kind."""
    kind, colon, arguments = text.partition(":")
    if (match := re.fullmatch(r"(?:tcp6?:)?(?://)?(.*?):?(\d{1,5})/?", text)) is not None:
        found = _suggest_port(match[1].strip("[]"), match[2])
        if found is not None:
            return found
    if (match := re.fullmatch(r"tcp6?:(\d+):interface=([\d:a-fA-F]+)", text)) is not None:
        return _suggest_port(match[2], match[1])
    if text.startswith("/"):
        return f"unix:{text}"
    if not colon or kind in EXAMPLES:
        return None
    close = nearest(kind.lower(), EXAMPLES)
    return f"{close}:{arguments}" if close else None


def _suggest_port(host: str, port: str) -> str | None:
    """Write the endpoint for an address, which may be missing, and a port."""
    if int(port) > 65535:
        return None
    if host in ("", "*"):
        return f"tcp:{port}"
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return None
    kind = "tcp" if address.version == 4 else "tcp6"
    return f"{kind}:{port}:interface={quoteStringArgument(str(address))}"
