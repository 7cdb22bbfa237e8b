"""logfmt: `level=warn temp=20.5 msg="door open" urgent`.

A word without `=` is `true`, but the first must have one, or every sentence would be logfmt.
"""

import re
from typing import Any

import orjson

from ingest.wire.formats.words import as_object, number

_PAIR = re.compile(
    r'([^\s="\\]+)'  # a key
    r'(?:(=)(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s"]*)))?'  # its value, perhaps in quotes
    r"(?:[ \t]+|\Z)"
)
_WORDS = {"true": True, "false": False, "null": None}


def parse(line: str) -> dict[str, Any]:
    """Read a line; of equal keys the last counts.

    Raises:
        ValueError: it is not logfmt.
    """
    pairs: dict[str, Any] = {}
    at, line = 0, line.strip(" \t")
    while at < len(line):
        pair = _PAIR.match(line, at)
        if pair is None or not (pairs or pair[2]):
            raise ValueError("a pair key=value is wanted")
        at = pair.end()
        key, equals, quoted, word = pair.groups()
        pairs[key] = _value(quoted, word) if equals else True
    if not pairs:
        raise ValueError("an empty line")
    return as_object(pairs)


def _value(quoted: str | None, word: str) -> Any:
    if quoted is not None:
        return orjson.loads(f'"{quoted}"') if "\\" in quoted else quoted
    if word in _WORDS:
        return _WORDS[word]
    found = number(word)
    return word if found is None else found
