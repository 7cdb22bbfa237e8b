"""Names that go through all rooms: those of devices, and those of line formats."""

import re

DEVICE_NAME = r"[A-Za-z0-9._:-]{1,128}"
"""The rule as a regular expression."""

_DEVICE_NAME = re.compile(DEVICE_NAME)

FORMATS = ("opaque", "json", "logfmt", "influx", "graphite", "nmea", "csv")
"""What a device's lines of text may be: see `ingest.wire.formats`."""

RULE = "1 to 128 characters of A-Z a-z 0-9 . _ : -"


def is_device_name(text: str) -> bool:
    """Tell whether `text` may name a device: safe in JSON, in a path and in a metric label."""
    return _DEVICE_NAME.fullmatch(text) is not None
