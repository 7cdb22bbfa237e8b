"""CSV (RFC 4180), a row each line: `20.5,shut,"a ""b"", c",` is four columns, the last empty."""

import re
from typing import Any

from ingest.wire.formats.words import number

_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')


def parse(line: str) -> list[Any]:
    """Read a row: numbers, strings, and None for what is empty. What is in quotes is a string.

    Raises:
        ValueError: quotes do not stand around a whole cell, or are not closed.
    """
    row: list[Any] = []
    at, comma = 0, ","
    while comma:
        cell = _CELL.match(line, at)
        if cell is None:
            raise ValueError("quotes stand around a whole cell")
        quoted, plain, comma = cell.groups()
        row.append(_value(plain) if quoted is None else quoted.replace('""', '"'))
        at = cell.end()
    return row


def _value(text: str) -> Any:
    word = text.strip(" \t")
    if not word:
        return None
    found = number(word)
    return text if found is None else found
