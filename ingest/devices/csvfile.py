"""Devices as CSV (RFC 4180): the file of an import, and those of an export and of made tokens."""

import codecs
import csv
import io
import re
from collections.abc import Iterable
from typing import NamedTuple, TextIO

from ingest.devices.device import Device, check_format, check_new_name, check_note
from ingest.devices.verifier import clean_token

_COLUMNS = ("name", "token", "note", "format")
# A spreadsheet takes a cell for a formula that begins so, full-width forms included, and one that
# begins with an apostrophe for text, without the apostrophe.
_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")


class Entry(NamedTuple):
    """One row of an import.

    Attributes:
        name: the device's.
        token: empty where one must be made.
        note: the operator's.
        line_format: one of `ingest.names.FORMATS`; empty where it is left to the listener.
    """

    name: str
    token: str
    note: str
    line_format: str = ""


class Problem(NamedTuple):
    """Why a row can't be imported; the first line of the file is 1."""

    line: int
    reason: str


def parse_devices(data: bytes) -> tuple[list[Entry], list[Problem]]:
    """Read the file of an import: UTF-8, with the header name,token,note,format in any order.

    All columns but the name may be missing; no name stands in the file twice. Blanks around a
    field are not part of it, and neither is the apostrophe that `write_devices` puts before what
    looks like a formula.

    Returns:
        The good rows, and every reason not to import the file.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "UTF-16; save it as UTF-8" if is_utf16 else "not UTF-8"
        return [], [Problem(data.count(b"\n", 0, error.start) + 1, reason)]
    parsed = _Parsed()
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    line = 1
    try:
        header = next((row for row in reader if _has_text(row)), [])
        line = max(1, reader.line_num)
        columns = _columns(header)
        line = reader.line_num + 1
        for fields in reader:
            parsed.take(line, columns, fields)
            line = reader.line_num + 1
    except (csv.Error, ValueError) as error:  # what follows can't be told apart
        parsed.problems.append(Problem(line, str(error)))
    return parsed.entries, parsed.problems


def _has_text(row: list[str]) -> bool:
    """Tell whether a line has more than blanks, and commas, which spreadsheets leave there."""
    return any(map(str.strip, row))


class _Parsed:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.problems: list[Problem] = []
        self._lines: dict[str, int] = {}

    def take(self, line: int, columns: list[str], fields: list[str]) -> None:
        if not _has_text(fields):
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
            "the first line must be the header name,token,note,format (in any order; all but name"
            f" may be missing), not {','.join(header)!r}"
        )
    return columns


def _entry(columns: list[str], fields: list[str]) -> Entry:
    if len(fields) != len(columns):
        raise ValueError(f"{len(columns)} fields expected, {len(fields)} found")
    row = dict(zip(columns, map(str.strip, fields), strict=True))
    token = row.get("token", "")
    note, line_format = _from_cell(row.get("note", "")), row.get("format", "")
    entry = Entry(row["name"], token and clean_token(token), note, line_format)
    if line_format:
        check_format(line_format)
    check_new_name(entry.name)
    check_note(entry.note)
    return entry


def _to_cell(text: str) -> str:
    return "'" + text if _FORMULA.match(text) else text


def _from_cell(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_devices(file: TextIO, devices: Iterable[Device]) -> None:
    """Write devices under the header name,enabled,created,note,last_seen,last_peer,format.

    `enabled` is true or false; what is not known is empty. What a spreadsheet would take for a
    formula, such as a note that begins with =, gets an apostrophe in front of it.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "enabled", "created", "note", "last_seen", "last_peer", "format"))
    writer.writerows(
        (
            device.name,
            "true" if device.enabled else "false",
            device.created,
            _to_cell(device.note),
            device.last_seen,
            _to_cell(device.last_peer or ""),
            device.line_format,
        )
        for device in devices
    )


def write_tokens(file: TextIO, tokens: Iterable[tuple[str, str]]) -> None:
    """Write names and tokens under the header name,token; `parse_devices` reads it again."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "token"))
    writer.writerows(tokens)
