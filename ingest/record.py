"""The record: one line of JSON for each frame, made a block at a time.

A block is what one read brought: finished lines, ready for the disk. No Python statement
runs per line; slices, `join` and `split` do the work.
"""

from collections.abc import Sequence

_RUN = 10_000
"""Numbers in a row that differ in their last four digits only."""
_LAST_DIGITS = [b"%04d" % number for number in range(_RUN)]
_SMALL = [b"%d" % number for number in range(_RUN)]


def record_prefix(time: bytes, device: bytes) -> bytes:
    """Write what the records of one read have in common, up to the number."""
    return b'{"time":"%b","device":"%b","seq":' % (time, device)


def record_block(
    prefix: bytes, first: int, key: bytes, values: Sequence[bytes], end: bytes
) -> bytes:
    """Write one record for each of `values`, numbered from `first`.

    Args:
        prefix: from `record_prefix`.
        first: the number of the first record.
        key: what stands between number and value, such as `,"text":`.
        values: JSON values, at least one, or what of them is not in `key` and `end` already.
        end: what closes the line, LF included.
    """
    count = len(values)
    if count == 1:
        return b"%b%d%b%b%b" % (prefix, first, key, values[0], end)
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
    parts[3::4] = values
    parts.append(end)
    return b"".join(parts)
