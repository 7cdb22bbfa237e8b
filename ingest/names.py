"""Names that go through all rooms: of devices, of line formats, and those that are misspelt."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

DEVICE_NAME = r"[A-Za-z0-9._:-]{1,128}"
"""The rule as a regular expression."""

_DEVICE_NAME = re.compile(DEVICE_NAME)

FORMATS = ("opaque", "json", "logfmt", "influx", "graphite", "nmea", "csv")
"""What a device's lines of text may be: see `ingest.wire.formats`."""

RULE = "1 to 128 characters of A-Z a-z 0-9 . _ : -"


def is_device_name(text: str) -> bool:
    """Tell whether `text` may name a device: safe in JSON, in a path and in a metric label."""
    return _DEVICE_NAME.fullmatch(text) is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was perhaps meant; empty if none is close."""
    return next(iter(get_close_matches(name, list(known), 1)), "")
