"""How to reach the listener of a data folder from this machine, by a program that is there."""

import re
from typing import Any

from ingest.layout import Layout
from ingest.listener.protocols import DEFAULT, split
from ingest.ops.control import ControlError, ask

_ADDRESS_BY_DEFAULT = ("127.0.0.1", 7650)
_TIMEOUT = 2.0  # seconds: it is only for a line of help
_ADDRESS = re.compile(r"\[?([^\]]*)\]?:([0-9]+)")
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def how_to_push(layout: Layout) -> tuple[str, str]:
    """Return which listener is meant, in words, and the command that takes what a device sends.

    It is the listener that runs on this data folder, if it says where it listens; else one with
    the default settings.
    """
    for endpoint, address in _listening(layout):
        host, port = address
        if endpoint.startswith("ssl:"):
            # It ends with its input, and a frame that begins with Q is no command to it.
            options = "-quiet -no_ign_eof -nocommands"
            command = f"(cat; sleep 1) | openssl s_client {options} -connect {host}:{port}"
        else:
            command = f"nc -N {host} {port}"
        return "to the listener that runs on this folder", command
    host, port = _ADDRESS_BY_DEFAULT
    return "once a listener runs on this folder, at the default port", f"nc -N {host} {port}"


def _listening(layout: Layout) -> list[tuple[str, tuple[str, int]]]:
    """List endpoints and addresses where a device may speak as the line does, without TLS first."""
    try:
        status: dict[str, Any] = ask(layout.control, "status", _TIMEOUT)
    except ControlError:
        return []
    addresses = status.get("listening", [])
    endpoints = status.get("settings", {}).get("listen", "").split()
    found = []
    for text, address in zip(endpoints, addresses, strict=False):
        protocol, endpoint = split(text)
        match = _ADDRESS.fullmatch(address)
        # Behind `haproxy:` a connection must begin with the header of a proxy.
        if match is not None and protocol == DEFAULT and not endpoint.startswith("haproxy:"):
            host = _ANYWHERE.get(match[1], match[1])
            found.append((endpoint, (host, int(match[2]))))
    return sorted(found, key=lambda pair: pair[0].startswith("ssl:"))
