"""Devices as CSV (RFC 4180): the file of an import, and those of an export and of made tokens."""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple, TextIO

from ingest.devices.registry import Device, check_name, check_note
from ingest.devices.verifier import normalize

_COLUMNS = ("name", "token", "note")


class Entry(NamedTuple):
    """One row of an import; `token` is empty where one must be made."""

    name: str
    token: str
    note: str


class Problem(NamedTuple):
    """Why a row can't be imported; the first line of the file is 1."""

    line: int
    reason: str


def parse_devices(data: bytes) -> tuple[list[Entry], list[Problem]]:
    """Read the file of an import: UTF-8, with the header name,token,note in any order.

    The columns token and note may be missing; no name stands in the file twice.

    Returns:
        The good rows, and every reason not to import the file.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return [], [Problem(data.count(b"\n", 0, error.start) + 1, "not UTF-8")]
    parsed = _Parsed()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        columns = _columns(next(reader, []))
        line = reader.line_num + 1
        for fields in reader:
            parsed.take(line, columns, fields)
            line = reader.line_num + 1
    except (csv.Error, ValueError) as error:  # what follows can't be told apart
        parsed.problems.append(Problem(line, str(error)))
    return parsed.entries, parsed.problems


class _Parsed:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self._lines: dict[str, int] = {}

    def take(self, line: int, columns: list[str], fields: list[str]) -> None:
        if not fields:  # an empty line
            return
        try:
            entry = _entry(columns, fields)
            first = self._lines.setdefault(entry.name, line)
            if first != line:
                raise ValueError(f"device {entry.name} stands in line {first} already")
        except ValueError as error:
            self.problems.append(Problem(line, str(error)))
        else:
            self.entries.append(entry)


def _columns(header: list[str]) -> list[str]:
    columns = [cell.strip() for cell in header]
    if "name" not in columns or len(set(columns)) < len(columns) or set(columns) - set(_COLUMNS):
        raise ValueError(
            "the first line must be the header name,token,note (in any order; token and note may"
            f" be missing), not {','.join(header)!r}"
        )
    return columns


def _entry(columns: list[str], fields: list[str]) -> Entry:
    if len(fields) != len(columns):
        raise ValueError(f"{len(columns)} fields expected, {len(fields)} found")
    row = dict(zip(columns, fields, strict=True))
    entry = Entry(row["name"], row.get("token", ""), row.get("note", ""))
    check_name(entry.name)
    check_note(entry.note)
    if entry.token:
        normalize(entry.token)
    return entry


def write_devices(file: TextIO, devices: Iterable[Device]) -> None:
    """Write devices under the header name,enabled,created,note,last_seen,last_peer.

    `enabled` is true or false; what is not known is empty.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "enabled", "created", "note", "last_seen", "last_peer"))
    writer.writerows(
        (
            device.name,
            "true" if device.enabled else "false",
            device.created,
            device.note,
            device.last_seen,
            device.last_peer,
        )
        for device in devices
    )


def write_tokens(file: TextIO, tokens: Iterable[tuple[str, str]]) -> None:
    """Write names and tokens under the header name,token; `parse_devices` reads it again."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "token"))
    writer.writerows(tokens)
