"""What the registry asks SQLite, and what the rows are; the tables are in `schema`."""

from typing import Any

from ingest.devices.device import Device, check_name, check_note
from ingest.devices.verifier import Verifier

INSERT = (
    "INSERT INTO devices (name, enabled, created, note, salt, iterations, stored_key, server_key)"
    " VALUES (?, 1, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING"
)
SELECT = (
    "SELECT name, enabled, created, note, time, peer, format"
    " FROM devices LEFT JOIN seen ON seen.device = devices.name"
    " LEFT JOIN formats ON formats.device = devices.name"
)
SELECT_ONE = f"{SELECT} WHERE name = ?"
SELECT_PAGE = f"{SELECT} WHERE name > ? ORDER BY name LIMIT 1000"
SELECT_VERIFIER = (
    "SELECT salt, iterations, stored_key, server_key FROM devices WHERE name = ? AND enabled"
)
# One row comes whether there is such a device or not, and SQLite takes the same way to it.
SELECT_KEYS = """
    SELECT enabled IS 1, ifnull(salt, ?2), ifnull(iterations, ?3),
           iif(enabled, stored_key, ?4), iif(enabled, server_key, ?5)
    FROM (SELECT 1) LEFT JOIN devices ON name = ?1
"""
SELECT_STORED_KEYS = """
    SELECT name, stored_key FROM json_each(?) CROSS JOIN devices ON name = value WHERE enabled
"""
SELECT_REGISTERED = "SELECT name FROM json_each(?) CROSS JOIN devices ON name = value"
SET_ENABLED = "UPDATE devices SET enabled = :enabled WHERE name = :name"
SET_TOKEN = (
    "UPDATE devices SET salt = :salt, iterations = :iterations, stored_key = :stored_key,"
    " server_key = :server_key WHERE name = :name"
)
SET_FORMAT = "INSERT OR REPLACE INTO formats SELECT name, :format FROM devices WHERE name = :name"
INSERT_FORMAT = (
    "INSERT OR REPLACE INTO formats SELECT :name, :format"
    " WHERE NOT EXISTS (SELECT 1 FROM devices WHERE name = :name)"
)
UPSERT_SEEN = """
    INSERT INTO seen (device, time, peer)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
    FROM json_each(:rows)
    WHERE json_extract(value, '$[0]') IN (SELECT name FROM devices)
    ON CONFLICT (device) DO UPDATE SET time = excluded.time, peer = excluded.peer
"""


def row_of(name: str, verifier: Verifier, note: str, created: str) -> tuple[str | int | bytes, ...]:
    """Make the values of `INSERT`.

    Raises:
        InvalidName, InvalidNote: see there.
    """
    check_name(name)
    check_note(note)
    return (
        name, created, note,
        verifier.salt, verifier.iterations, verifier.stored_key, verifier.server_key,
    )  # fmt: skip


def format_row_of(item: tuple[str, str]) -> dict[str, str]:
    """Make the values of `INSERT_FORMAT`."""
    return {"name": item[0], "format": item[1]}


def device_of(row: tuple[Any, ...]) -> Device:
    """Make a device of a row of `SELECT`."""
    name, enabled, created, note, seen, peer, line_format = row
    return Device(name, bool(enabled), created, note, seen, peer, line_format or None)
