"""Says in words why a device is not delivering, and what to do."""

from collections.abc import Mapping
from typing import Any, Final

from ingest.names import is_device_name
from ingest.ops.status import TAKES_FRAMES
from ingest.units import format_count, format_duration
from ingest.watch.contact import Answer
from ingest.watch.roster import AGAIN, SILENT_AFTER, STUCK_AFTER, Entry

MEANINGS: Final = {
    "auth-required": "what came first was no handshake: another program, or the wrong port",
    "auth-failed": "a name that is not registered, a wrong token, or a disabled device",
    "auth-timeout": "somebody connected, and did not say in time who it is",
    "mechanism-unsupported": "a way to authenticate that the listener does not offer",
    "plaintext-refused": "a token that came in clear from another host",
    "bad-frame": "bytes that are no frame",
    "frame-too-long": "a frame that is longer than --max-frame",
    "replaced": "a connection that was cut off by a newer one of the same name",
    "revoked": "a device that was disabled, removed or given a new token while it was connected",
    "idle-timeout": "a connection on which nothing came for too long",
    "busy": "too many connections, or too many attempts to authenticate",
    "shutting-down": "a device that was told that the listener stops",
    "no-proxy-header": "a connection past the proxy, or the proxy sends no PROXY header",
    "registry-failed": "a device that could not be looked up in the registry",
    "tls-failed": "a peer that speaks no TLS, or does not trust the certificate",
}
"""What the codes say by which the listener counts what went wrong."""

_ADVICE: Final = {
    "auth-failed": "its token is wrong: give it a new one with `ingest device new-token {name}`",
    "plaintext-refused": "it sends its token in clear from another host: it needs SCRAM or TLS",
    "revoked": "it was disabled or removed, or got a new token",
    "replaced": "two devices use this name: give each its own",
    "busy": "the listener has as many connections as it may, or as many attempts to authenticate",
    "frame-too-long": "a frame is longer than the listener takes: see `--max-frame`",
    "bad-frame": "what it sent is no frame: its program is to be mended",
    "auth-timeout": "it connects, and does not say in time who it is",
    "mechanism-unsupported": "it asks to authenticate in a way that the listener does not offer",
    "registry-failed": "the listener could not look it up: see its own log",
}


def explain(entry: Entry, answer: Answer, now: float) -> str:
    """Say why a device is not delivering.

    Args:
        entry: the device.
        answer: what the listener said last.
        now: seconds since 1970.

    Returns:
        A sentence or two; empty if it is delivering.
    """
    device, connection, name = entry.registered, entry.connection, entry.name
    if device is None:
        return f"It is not registered, so it can't connect: `ingest device add {name}`."
    if not device.enabled:
        return f"It is disabled: `ingest device enable {name}` lets it connect again."
    if answer.failure:
        return f"The listener does not answer, so nobody can deliver: {answer.failure}."
    is_let_in = entry.is_let_in(now)
    if trouble := _trouble(answer, is_let_in=is_let_in):
        return trouble
    if not is_let_in and connection is None:
        return _not_connected(entry, now)
    if not is_let_in and connection is not None:
        return (
            f"{connection['peer']} claims this name and has not proved it yet"
            f" (phase {connection['phase']}).{_last_error(entry, now)}"
        )
    if entry.is_spoilt(now):
        return f"It is connected, and something of it is refused.{_last_error(entry, now)}"
    if entry.waits_since and now - entry.waits_since > STUCK_AFTER:
        waited = _ago(now - entry.waits_since)
        if not entry.waiting:
            return f"The listener has read nothing from it for {waited}: the disk is too slow."
        return (
            f"{format_count(entry.waiting, 'frame')} of it have waited for the disk for {waited}."
        )
    quiet = now - entry.heard
    if quiet >= SILENT_AFTER:
        return (
            f"It is connected from {entry.peer}, and has sent nothing for {_ago(quiet)}: look at"
            " the device itself. If it does send, its connection is broken, and it has to connect"
            " again."
        )
    return ""


def explain_stranger(name: str, incident: Mapping[str, Any] | None, now: float) -> str:
    """Say what is known of a name that no device has.

    Args:
        name: any text.
        incident: what the listener had last with somebody who claimed it; None for nothing.
        now: seconds since 1970.
    """
    text = f"No device {name!r} is known."
    if incident is None:
        return text
    text += (
        f" Somebody at {incident['host']} claimed this name {_ago(now - incident['at'])} ago, and"
        f" got {incident['kind']}."
    )
    if not is_device_name(name):
        return text
    return f"{text} If it is one of yours, `ingest device add {name}` lets it in."


def _trouble(answer: Answer, *, is_let_in: bool) -> str:
    """Say what of the listener's own trouble keeps a device from delivering; empty if nothing."""
    health = answer.status.get("health")
    if health in TAKES_FRAMES or (health == "registry-failing" and is_let_in):
        return ""
    lets = "can look up no device" if health == "registry-failing" else "takes no records"
    return f"The listener {lets} ({answer.status.get('reason')}): devices wait, nothing is lost."


def _not_connected(entry: Entry, now: float) -> str:
    if not entry.last and entry.registered is not None and entry.registered.last_seen is None:
        start = "It has never connected."
    else:
        peer = f", then from {entry.peer}" if entry.peer else ""
        last = f" It was heard {_ago(now - entry.last)} ago{peer}." if entry.last else ""
        start = f"It is not connected.{last}"
    if entry.error_at > entry.last:
        return start + _last_error(entry, now)
    if entry.last and not entry.stays:
        start += " If it connects only to deliver, all is well."
    return f"{start} Nothing is known of an attempt: is it switched on, and is its network there?"


def _last_error(entry: Entry, now: float) -> str:
    if not entry.error:
        return ""
    advice = _ADVICE.get(entry.error, "").format(name=entry.name)
    advice = advice or entry.error_text or "see PROTOCOL.md"
    again = ", again and again" if entry.error_count >= AGAIN else ""
    when = f"{_ago(now - entry.error_at)} ago"
    host = f", from {entry.error_host}" if entry.error_host else ""
    return f" The last error was {entry.error}{again}, {when}{host}: {advice}."


def _ago(seconds: float) -> str:
    return format_duration(max(1.0, round(seconds)))
