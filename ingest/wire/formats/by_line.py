"""Formats that are read line by line, in Python."""

from collections.abc import Callable
from typing import Any

from ingest.record import NO_VALUES, Values
from ingest.wire.formats import opaque
from ingest.wire.framing import NO_FRAMES, Frames, LineFormat
from ingest.wire.json_values import documents_of

Parse = Callable[[str], Any]
"""Makes of a line what `orjson` can write; raises ValueError if it is not in the format."""


def by_line(parse: Parse) -> LineFormat:
    """Make a format out of what reads one line."""

    def make_frames(whole: bytes) -> Frames:
        lines = opaque.lines_of(whole)
        if not lines:
            return NO_FRAMES
        try:
            objects = [parse(line.decode()) for line in lines]
        except ValueError:
            return kept([_field(line, parse) for line in lines])
        return Frames(Values(b',"data":', documents_of(objects), b"}\n"))

    return make_frames


def kept(fields: list[bytes]) -> Frames:
    """Make frames of fields, of which those that are not `data` count as unparsed."""
    parsed = b"\n".join([b"", *fields]).count(b'\n"data":')  # no field has a LF
    values = Values(b",", fields, b"}\n") if fields else NO_VALUES
    return Frames(values, unparsed=len(fields) - parsed)


def _field(line: bytes, parse: Parse) -> bytes:
    try:
        return b'"data":' + documents_of([parse(line.decode())])[0]
    except ValueError:
        return opaque.field(line)
