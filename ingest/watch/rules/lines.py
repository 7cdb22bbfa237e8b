"""Where the tables of a file of TOML and their keys stand, which its parser does not tell."""

import re

_HEADER = re.compile(r"\s*\[\[?\s*(\w+)\s*\]\]?")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*=""")


class Lines:
    """The lines of one file, counted from 1."""

    def __init__(self, text: str) -> None:
        self._tables: dict[str, list[dict[str, int]]] = {}
        keys: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if header := _HEADER.match(line):
                keys = {"": number}
                self._tables.setdefault(header[1], []).append(keys)
            elif key := _KEY.match(line):
                keys.setdefault(key[1], number)

    def of(self, table: str, place: int, key: str) -> int:
        """Return the line of a key, or else that of its table; 0 if there is neither."""
        tables = self._tables.get(table, [])
        keys = tables[place] if place < len(tables) else {}
        return keys.get(key, keys.get("", 0))
