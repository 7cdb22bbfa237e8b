"""Sentences of NMEA 0183, as receivers of satellite navigation and ships' instruments send them.

    $GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A

Each has its fields as they came. Of those that tell a position, what it says is added in degrees,
knots and metres.
"""

import re
from functools import reduce
from operator import xor
from typing import Any, Final

from ingest.wire.formats.words import number

_SENTENCE = re.compile(r"[$!](P|[A-Z0-9]{2})([A-Z0-9]+)((?:,[^*]*)?)(?:\*([0-9A-Fa-f]{2}))?")
_ANGLE = re.compile(r"([0-9]{1,3})([0-5][0-9](?:\.[0-9]*)?)")  # degrees, minutes
_HALVES: Final = {"lat": {"N": 1, "S": -1}, "lon": {"E": 1, "W": -1}}
_LARGEST: Final = {"lat": 90, "lon": 180}  # degrees

_POSITIONS: Final = {"GGA": (1, 3), "GLL": (0, 2), "RMC": (2, 4)}
"""Where the latitude and the longitude stand; behind each, its half of the globe."""
_NUMBERS: Final = {
    "GGA": {"satellites": 6, "hdop": 7, "altitude_m": 8},
    "RMC": {"speed_kn": 6, "course": 7},
    "VTG": {"course": 0, "speed_kn": 4},
}


def parse(line: str) -> dict[str, Any]:
    """Read a sentence; its checksum may be missing.

    Raises:
        ValueError: it is no sentence, or its checksum is wrong.
    """
    line = line.rstrip(" ")
    found = _SENTENCE.fullmatch(line)
    if found is None:
        raise ValueError("a sentence is wanted")
    talker, kind, rest, checksum = found.groups()
    if checksum is not None and int(checksum, 16) != reduce(xor, line[1:-3].encode()):
        raise ValueError("the checksum is wrong")
    fields = rest[1:].split(",") if rest else []
    return {"talker": talker, "sentence": kind, "fields": fields, **_meaning(kind, fields)}


def _meaning(kind: str, fields: list[str]) -> dict[str, Any]:
    meaning = {}
    if kind in _POSITIONS:
        for name, at in zip(("lat", "lon"), _POSITIONS[kind], strict=True):
            meaning[name] = _degrees(name, *fields[at : at + 2])
    for name, at in _NUMBERS.get(kind, {}).items():
        meaning[name] = _decimal(*fields[at : at + 1])
    return {name: value for name, value in meaning.items() if value is not None}


def _degrees(name: str, angle: str = "", half: str = "") -> float | None:
    """Read the latitude `4807.038`, `S` as -48.1173; to seven digits, which is a centimetre."""
    found = _ANGLE.fullmatch(angle)
    sign = _HALVES[name].get(half)
    if found is None or sign is None:
        return None
    degrees = round(int(found[1]) + float(found[2]) / 60, 7)
    return sign * degrees if degrees <= _LARGEST[name] else None


def _decimal(word: str = "") -> Any:
    """Read a number, which may have zeros in front; None where the receiver knows none."""
    sign, digits = ("-", word[1:]) if word.startswith("-") else ("", word)
    stripped = digits.lstrip("0")
    return (
        number(sign + (stripped if stripped[:1].isdigit() else f"0{stripped}")) if digits else None
    )
