"""Line formats: what becomes of a device's lines of text. PROTOCOL.md has a table of them."""

from typing import Final

from ingest.names import FORMATS
from ingest.wire.formats import comma, graphite, influx, json_lines, logfmt, nmea, opaque
from ingest.wire.formats.by_line import by_line
from ingest.wire.framing import LineFormat

_FORMATS: Final[dict[str, LineFormat]] = {
    "opaque": opaque.keep,
    "json": json_lines.parse,
    "logfmt": by_line(logfmt.parse),
    "influx": by_line(influx.parse),
    "graphite": by_line(graphite.parse),
    "nmea": by_line(nmea.parse),
    "csv": by_line(comma.parse),
}
assert tuple(_FORMATS) == FORMATS


def line_format(name: str) -> LineFormat:
    """Return a format by its name; one that only a newer `ingest` knows is taken for `opaque`."""
    return _FORMATS.get(name, opaque.keep)
