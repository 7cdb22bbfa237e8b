"""The record: one line of JSON for each frame, made a block at a time.

A block is what one read brought: finished lines, ready for the disk. No Python statement
runs per line; slices, `join` and `split` do the work.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_RUN = 10_000
"""Numbers in a row that differ in their last four digits only."""
_LAST_DIGITS = [b"%04d" % number for number in range(_RUN)]
_SMALL = [b"%d" % number for number in range(_RUN)]


_STEERING = re.compile(rb"\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""Characters beyond ASCII that steer a terminal: C1 controls (U+0080 to U+009F), line separators,
and what turns the direction of text (U+061C, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069).
"""


class Values(NamedTuple):
    """What the records of one read hold behind their numbers, as JSON.

    The worked example: `Values(b',"text":"', [b"a", b"b"], b'"}\\n')` are the frames `a` and `b`.

    Attributes:
        opening: what stands between the number and each item.
        items: one for each record: a JSON value, or what of it is not in `opening` and `closing`.
        closing: what ends each line, LF included.
    """

    opening: bytes
    items: Sequence[bytes]
    closing: bytes


NO_VALUES = Values(b"", (), b"")


def printable(document: bytes) -> bytes:
    """Escape in JSON what would steer a terminal that shows it: DEL, and `escape_steering`."""
    return escape_steering(document).replace(b"\x7f", b"\\u007f")


def escape_steering(document: bytes) -> bytes:
    """Escape in JSON the characters beyond ASCII that would steer a terminal, such as CSI (U+009B).

    `orjson` escapes those below U+0020. What a JSON reader makes of the document stays the same.
    """
    return document if document.isascii() else _STEERING.sub(_escape, document)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


def record_block(time: bytes, device: bytes, first: int, values: Values) -> bytes:
    """Write one record for each of `values`.

    Args:
        time: when they were read, RFC 3339.
        device: whose they are.
        first: the number of the first record.
        values: at least one.
    """
    key, items, end = values
    prefix = b'{"time":"%b","device":"%b","seq":' % (time, device)
    count = len(items)
    if count == 1:
        return b"%b%d%b%b%b" % (prefix, first, key, items[0], end)
    begins: list[bytes] = []
    digits: list[bytes] = []
    while (left := count - len(digits)) > 0:
        run, low = divmod(first + len(digits), _RUN)
        digits += (_LAST_DIGITS if run else _SMALL)[low : low + left]
        begin = end + prefix + (b"%d" % run if run else b"")
        begins += [begin] * (len(digits) - len(begins))
    begins[0] = begins[0][len(end) :]
    # Of all ways to weave, to lay the parts out in one list is the fastest: no tuple, no bytes for
    # each line. Nor does a number take any: to slice a table beats to write them.
    parts = [key] * (4 * count)
    parts[::4] = begins
    parts[1::4] = digits
    parts[3::4] = items
    parts.append(end)
    return b"".join(parts)
