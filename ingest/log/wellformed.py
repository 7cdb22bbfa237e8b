"""Whether lines are records to the byte, many at a time, with no Python statement for each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

_SHORT = 2048  # bytes; a run below it takes longer than its lines do apart

_SECOND = rb"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
_DEVICE = rb"[A-Za-z0-9._:-]{1,128}"

# A record but for two of its parts, which cost less to check apart: the second, since few differ,
# and the value, which has to be JSON. It takes the LF before the record, not the one after it:
# each LF begins one match at most, so as many matches as lines means that every line is a match.
_RECORD = re.compile(
    rb'\n\{"time":"([^"]{19})\.[0-9]{6}Z","device":"(%b)","seq":([1-9][0-9]{0,18}),'
    rb'"(?:text":(?=")|data":|raw":(?="[A-Za-z0-9+/]*={0,2}"\}\n))(.*)\}(?=\n)' % _DEVICE
)
_HEAD = re.compile(
    rb'(\{"time":"%b\.[0-9]{6}Z","device":"(%b)","seq":)([1-9][0-9]{0,17})(,"text":"|,"data":)'
    % (_SECOND, _DEVICE)
)
_IS_SECOND = re.compile(_SECOND).fullmatch


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
    found = _RECORD.findall(b"\n" + block)
    if len(found) != block.count(b"\n"):
        return None
    seconds, devices, numbers, values = zip(*found, strict=True)
    if not (all(map(_IS_SECOND, set(seconds))) and are_json(values)):
        return None
    return devices, _load_list(numbers)


def check_run(block: bytes, start: int) -> Run | None:
    """The run of records at `start`, where a line begins; None if it is short or one is bad.

    Its records have to be all text, or all data.
    """
    head = _HEAD.match(block, start)
    if head is None:
        return None
    prefix, device, number, key = head.groups()
    end = _end_of_run(block, start, prefix)
    if end - start < _SHORT:
        return None
    is_data = key == b',"data":'
    ending = b"}\n" if is_data else b'"}\n'
    values = _values(block[start:end], prefix, int(number), key, ending)
    if not (are_json(values) if is_data else are_strings(values)):
        return None
    return Run(device, int(number), len(values), end)


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

    It is given with a comma too many, which only a whole document can't be followed by. Where the
    parser stops tells the rest; it makes no objects, which takes most of its time, when it fails.
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
