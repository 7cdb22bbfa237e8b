"""Sizes, durations and counts as people write and read them: `64MiB`, `10s`, `1 device`."""

import re

_SIZES = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "kib": 1 << 10,
    "m": 1000**2, "mb": 1000**2, "mib": 1 << 20,
    "g": 1000**3, "gb": 1000**3, "gib": 1 << 30,
    "t": 1000**4, "tb": 1000**4, "tib": 1 << 40,
}  # fmt: skip
_DURATIONS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
              "w": 604800.0}  # fmt: skip
_QUANTITY = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)\s*")


def parse_size(text: str) -> int:
    """Read a size in bytes: `65536`, `64KiB`, `1.5GB`.

    Raises:
        ValueError: `text` is not a number with a known unit.
    """
    return round(_parse(text, _SIZES, "a size, such as 65536, 64KiB or 10GB"))


def parse_duration(text: str) -> float:
    """Read a duration in seconds: `10`, `250ms`, `10s`, `5m`, `1h`, `1d`.

    Raises:
        ValueError: `text` is not a number with a known unit.
    """
    return _parse(text, _DURATIONS, "a duration, such as 10s, 5m, 1h or 1d")


def _parse(text: str, units: dict[str, int] | dict[str, float], wanted: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not {wanted}")
    return float(match[1]) * units[match[2].lower()]


def format_size(size: float) -> str:
    """Write a size in bytes as a person reads it: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def format_duration(seconds: float) -> str:
    """Write a duration as a person reads it, by its largest two units: `3 d 4 h`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in _STEPS:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number} {unit}" if number else "")
    return " ".join(filter(None, parts[:2]))


def format_count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 device`, `1,234 devices`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
