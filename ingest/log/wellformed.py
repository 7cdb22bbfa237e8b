"""Whether lines are records to the byte, many at a time, with no Python statement for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ingest.record import head_at, is_second, plain_records_in, records_in

_SHORT = 2048  # bytes; a run below it takes longer than its lines do apart


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one device and one time, with numbers that follow each other.

    `end` is the offset in its block where the next line begins.
    """

    device: bytes
    first: int
    count: int
    end: int


def check_lines(block: bytes) -> tuple[Sequence[bytes], list[int]] | None:
    """The devices and the numbers of a block in which every line is a record; None for others."""
    count = block.count(b"\n")
    plain = plain_records_in(block)
    if len(plain) == count:
        seconds, devices, numbers, values = zip(*plain, strict=True)
    else:
        found = records_in(block)
        if len(found) != count:
            return None
        seconds, devices, numbers, optional, values = zip(*found, strict=True)
        if not _are_members(optional):
            return None
    if not (all(map(is_second, set(seconds))) and are_json(values)):
        return None
    return devices, _load_list(numbers)


def check_run(block: bytes, start: int) -> Run | None:
    """The run of records at `start`, where a line begins; None if it is short or one is bad.

    Its records have to be all text, or all data.
    """
    head = head_at(block, start)
    if head is None:
        return None
    prefix, device, number, key = head
    end = _end_of_run(block, start, prefix)
    if end - start < _SHORT:
        return None
    is_data = key == b',"data":'
    ending = b"}\n" if is_data else b'"}\n'
    values = _values(block[start:end], prefix, int(number), key, ending)
    if not (are_json(values) if is_data else are_strings(values)):
        return None
    return Run(device, int(number), len(values), end)


def _are_members(texts: Sequence[bytes]) -> bool:
    """Tell whether each of `texts` is empty, or members of a JSON object, each with a comma."""
    some = set(texts) - {b""}
    return not some or are_json([b'{%b"":0}' % text for text in some])


def are_json(values: Sequence[bytes]) -> bool:
    """Tell whether there are `values`, and each is JSON; none may hold an LF."""
    return bool(values) and (_are_quoted(values) or _are_any(values))


def _are_quoted(values: Sequence[bytes]) -> bool:
    """Tell whether each of `values` is a JSON string, with its quotes."""
    if not values[0].startswith(b'"'):
        return False
    try:
        loaded = _load_list(values)
    except orjson.JSONDecodeError:
        return False
    # Without an array or an object among them, each comma between two values is one between items.
    return len(loaded) == len(values) and set(map(type, loaded)) == {str}


def _are_any(values: Sequence[bytes]) -> bool:
    """Tell whether each of `values` is JSON.

    Two calls check them all: as items of an array and as members of an object. One is not enough,
    since `[1` and `2]` are an array when a comma joins them; nothing but a whole value can stand
    in both. No string goes from one value into the next, since it can't hold the LF.
    """
    return _is_json(b"[" + b",\n".join(values) + b"]") and _is_json(
        b'{"":' + b',\n"":'.join(values) + b"}"
    )


def _is_json(document: bytes) -> bool:
    """Tell whether `document`, an array or an object, is JSON, without making objects of it.

    It is parsed with a comma too many: the parser then fails without making objects, which takes
    most of its time, and where it stops tells whether the document came to its end.

        [1,2] ,      stops at the comma behind the array: the array is whole
        [1,2 ,       stops behind the comma, where an item is missing: not whole
        [1,2]] ,     stops at the second bracket: more than an array
    """
    try:
        orjson.loads(document + b" , ")
    except orjson.JSONDecodeError as error:
        return error.pos == len(error.doc) - 2
    return False


def are_strings(values: Sequence[bytes]) -> bool:
    """Tell whether there are `values`, each what stands between the quotes of a JSON string.

    Together they are one string then: a space ends what can't be a part of an escape.
    """
    try:
        orjson.loads(b'"' + b" ".join(values) + b'"')
    except orjson.JSONDecodeError:
        return False
    return bool(values)


def _values(run: bytes, prefix: bytes, first: int, key: bytes, end: bytes) -> list[bytes]:
    """The values of records that begin with `prefix`, numbered from `first`; none if one differs.

    Args:
        key: what stands between the number and the value.
        end: what stands after the value, LF included.
    """
    lines = run.removesuffix(end).split(end)
    numbers = orjson.dumps(list(range(first, first + len(lines))))[1:-1]
    heads = (prefix + numbers.replace(b",", key + b"\n" + prefix) + key).split(b"\n")
    values = list(map(bytes.removeprefix, lines, heads))
    joined = b"".join(values)
    rebuilt = len(b"".join(heads)) + len(joined) + len(end) * len(lines)
    return values if rebuilt == len(run) and b"\n" not in joined else []


def _end_of_run(block: bytes, start: int, prefix: bytes) -> int:
    """Where the lines end that begin with `prefix`, the first of them at `start`.

    They lie together, so it looks at one line, then at one in the half where the last may be.
    """
    low, high = start, len(block)  # a line of them begins at low, none at high or later
    while high - low > 1:
        middle = (low + high) // 2
        line = block.find(b"\n", middle - 1, high - 1) + 1
        if line and block.startswith(prefix, line):
            low = line
        else:
            high = middle
    return block.find(b"\n", low) + 1


def _load_list(values: Sequence[bytes]) -> list[Any]:
    loaded = orjson.loads(b"[" + b",\n".join(values) + b"]")
    assert isinstance(loaded, list)
    return loaded
