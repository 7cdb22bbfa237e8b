"""The values of records out of one JSON array of them: `orjson` writes all of them in one call."""

from typing import Any

import orjson

from ingest.record import NO_VALUES, Values, printable

_LINE_END = orjson.Fragment(b"\n")


def values_of(objects: list[Any], dumped: bytes, *, are_maps: bool) -> Values:
    """Cut the values of single objects out of the JSON of all of them.

    The worked example, maps that are cut between `}` and `{`, and then objects of any kind:

        [{"a":1},{"b":2}]           is cut into   [{"a":1   "b":2}]
        [{"a":[{"c":1},{"c":2}]}]   is cut into more pieces than there are objects: it is no good
        [1,[2,{"a":3}]]             is written again, with line ends that no JSON of orjson has:
        [1,\\n,[2,{"a":3}]]          is cut into   1   [2,{"a":3}]

    What opens and closes each map then stands once in `Values`, and so costs nothing.

    Args:
        objects: what JSON can hold.
        dumped: what `orjson` made of them.
        are_maps: whether each of them is a map.
    """
    if not objects:
        return NO_VALUES
    whole = printable(dumped)
    if len(objects) == 1:
        return Values(b',"data":', [whole[1:-1]], b"}\n")
    if are_maps:
        values = whole.split(b"},{")
        if len(values) == len(objects):
            values[0], values[-1] = values[0][2:], values[-1][:-2]
            return Values(b',"data":{', values, b"}}\n")
    return Values(b',"data":', documents_of(objects), b"}\n")


def documents_of(objects: list[Any]) -> list[bytes]:
    """Write each of at least one object as JSON that steers no terminal, in one call for all.

    Raises:
        TypeError: JSON can't hold one of them.
    """
    parts: list[Any] = [_LINE_END] * (2 * len(objects) - 1)
    parts[::2] = objects
    return printable(orjson.dumps(parts))[1:-1].split(b",\n,")


def complete(values: Values) -> list[bytes]:
    """Return the values that `values_of` has made as whole JSON documents."""
    if values.opening.endswith(b"{"):
        return [b"{%b}" % item for item in values.items]
    return list(values.items)
