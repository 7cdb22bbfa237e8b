"""Device names: the one rule for what they may look like."""

import re

DEVICE_NAME = r"[A-Za-z0-9._:-]{1,128}"
"""The rule as a regular expression."""

_DEVICE_NAME = re.compile(DEVICE_NAME)

RULE = "1 to 128 characters of A-Z a-z 0-9 . _ : -"


def is_device_name(text: str) -> bool:
    """Tell whether `text` may name a device: safe in JSON, in a path and in a metric label."""
    return _DEVICE_NAME.fullmatch(text) is not None
