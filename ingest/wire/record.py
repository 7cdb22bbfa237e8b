"""The record: one line of JSON for each frame, made a block at a time.

A block is what one read brought: finished lines, ready for the disk. No Python statement
runs per line; slices, `join` and `split` do the work.
"""

from collections.abc import Sequence

import orjson


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
    # Of all ways to write many integers, one orjson call and a split is the fastest by half; and
    # of all ways to weave, to lay the parts out in one list: no tuple, no bytes for each line.
    parts = [key] * (4 * count)
    parts[::4] = [end + prefix] * count
    parts[1::4] = orjson.dumps(list(range(first, first + count)))[1:-1].split(b",")
    parts[3::4] = values
    parts[0] = prefix
    parts.append(end)
    return b"".join(parts)
