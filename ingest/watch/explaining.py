"""Says in words why a device is not delivering, and what to do."""

from typing import Final

from ingest.units import format_count, format_duration
from ingest.watch.contact import Answer
from ingest.watch.roster import SILENT_AFTER, STUCK_AFTER, Entry

_ADVICE: Final = {
    "auth-failed": "its token is wrong: give it a new one with `ingest device new-token {name}`",
    "plaintext-refused": "it sends its token in clear from another host: it needs SCRAM or TLS",
    "revoked": "it was disabled or removed, or got a new token",
    "replaced": "two devices use this name: give each its own",
    "busy": "the listener has as many connections as it may, or as many attempts to authenticate",
    "frame-too-long": "a frame is longer than the listener takes: see `--max-frame`",
    "bad-frame": "a frame is not what it says: its program is to be mended",
    "auth-timeout": "it connects, and does not say in time who it is",
    "idle-timeout": "it was cut off since it sent nothing for too long",
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
    if answer.status.get("health") != "ok":
        return (
            f"The listener takes no records ({answer.status.get('reason')}): devices wait,"
            " nothing is lost."
        )
    if connection is None:
        return _not_connected(entry, now)
    if not connection["is_proved"]:
        return (
            f"{connection['peer']} claims this name and has not proved it yet"
            f" (phase {connection['phase']}).{_last_error(entry, now)}"
        )
    if entry.state(now) == "failing" and entry.error_at > now - SILENT_AFTER:
        return f"It is connected, and something of it is refused.{_last_error(entry, now)}"
    if entry.waits_since and now - entry.waits_since > STUCK_AFTER:
        waiting = format_count(entry.waiting, "frame")
        return f"{waiting} of it wait for the disk since {_ago(now - entry.waits_since)}."
    quiet = now - entry.heard(now)
    if quiet >= SILENT_AFTER:
        return (
            f"It is connected from {connection['peer']}, and has sent nothing for {_ago(quiet)}:"
            " look at the device itself."
        )
    return ""


def _not_connected(entry: Entry, now: float) -> str:
    if not entry.last and entry.registered is not None and entry.registered.last_seen is None:
        start = "It has never connected."
    else:
        peer = f", then from {entry.peer}" if entry.peer else ""
        last = f" It was heard {_ago(now - entry.last)} ago{peer}." if entry.last else ""
        start = f"It is not connected.{last}"
    if entry.error_at > entry.last:
        return start + _last_error(entry, now)
    return f"{start} Nothing is known of an attempt: is it switched on, and is its network there?"


def _last_error(entry: Entry, now: float) -> str:
    if not entry.error:
        return ""
    advice = _ADVICE.get(entry.error, "").format(name=entry.name)
    advice = advice or entry.error_text or "see PROTOCOL.md"
    return f" The last error was {entry.error}, {_ago(now - entry.error_at)} ago: {advice}."


def _ago(seconds: float) -> str:
    return format_duration(max(1.0, round(seconds)))
