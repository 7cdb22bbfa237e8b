"""The plaintext protocol of Graphite: `plant.boiler.temp;site=north 20.5 1461178000`.

https://graphite.readthedocs.io/en/latest/feeding-carbon.html and tags.html
"""

from typing import Any

from ingest.wire.formats.words import as_object, number

_NO_TIME = "-1"  # Graphite then takes its own


def parse(line: str) -> dict[str, Any]:
    """Read a line; the time may be missing.

    Raises:
        ValueError: it is not in the plaintext protocol.
    """
    series, value, *rest = line.split()
    path, *tags = series.split(";")
    parsed: dict[str, Any] = {"path": path}
    if not path or len(rest) > 1:
        raise ValueError("a path, a value and a time are wanted")
    if tags:
        parsed["tags"] = as_object(dict(map(_tag, tags)))
    parsed["value"] = _number(value)
    if rest and rest[0] != _NO_TIME:
        parsed["timestamp"] = _number(rest[0])
    return parsed


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError("a tag is name=value")
    return name, value


def _number(word: str) -> Any:
    found = number(word)
    if found is None:
        raise ValueError("a number is wanted")
    return found
