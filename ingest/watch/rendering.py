"""Curves as a file: CSV, Parquet, or a picture.

    python -m ingest.watch.rendering png < curves.json > curves.png

It runs as a process of its own: the libraries take a second to load and a hundred megabytes, and
the page should neither wait for them nor keep them.
"""

import io
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson

TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "png": "image/png",
}
"""The formats, and their media types."""

_TIMEOUT: Final = 60.0  # seconds
_SIZE: Final = (12, 6)  # inches
_PALETTE: Final = ("#2563a8", "#b5561c", "#1f7a4d", "#8a3f8f", "#6b6b00", "#a02c4a")
_STYLES: Final = ("-", "--", "-.", ":")
_FEW: Final = 60  # points of a curve that are marked each: one alone makes no line
_HUGE: Final = 1e300
"""From here on values are drawn as multiples of this: the span of an axis must be a number."""
_COLUMNS: Final = ("device", "field", "start", "width", "low", "high", "mean", "count")


class RenderingError(Exception):
    """No file was made."""


def render(form: str, curves: list[dict[str, Any]]) -> bytes:
    """Make a file of curves, in a process of its own; blocks.

    Args:
        form: one of `TYPES`.
        curves: each as `/api/series` gives it.

    Raises:
        RenderingError: it failed, or takes too long.
    """
    try:
        return subprocess.run(
            [sys.executable, "-m", "ingest.watch.rendering", form],
            input=orjson.dumps(curves), capture_output=True, timeout=_TIMEOUT, check=True,
        ).stdout  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RenderingError("it took too long") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise RenderingError(said[-1] if said else "it ended without a word") from None


def _table(curves: list[dict[str, Any]]) -> Any:
    import pyarrow  # noqa: PLC0415 - only this format needs it

    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for curve in curves:
        count = len(curve["start"])
        columns["device"] += [curve["device"]] * count
        columns["field"] += [curve["field"]] * count
        columns["width"] += [float(curve["width"])] * count
        columns["start"] += [datetime.fromtimestamp(each, UTC) for each in curve["start"]]
        for name in ("low", "high", "mean", "count"):
            columns[name] += curve[name]
    kinds = (
        *(pyarrow.string(), pyarrow.string(), pyarrow.timestamp("us", "UTC"), pyarrow.float64()),
        *(pyarrow.float64(), pyarrow.float64(), pyarrow.float64(), pyarrow.int64()),
    )
    schema = pyarrow.schema(list(zip(_COLUMNS, kinds, strict=True)))
    return pyarrow.table(columns, schema=schema)


def _csv(curves: list[dict[str, Any]]) -> bytes:
    from pyarrow import csv  # noqa: PLC0415

    out = io.BytesIO()
    csv.write_csv(_table(curves), out)
    return out.getvalue()


def _parquet(curves: list[dict[str, Any]]) -> bytes:
    from pyarrow import parquet  # noqa: PLC0415

    out = io.BytesIO()
    parquet.write_table(_table(curves), out, compression="zstd")
    return out.getvalue()


def _png(curves: list[dict[str, Any]]) -> bytes:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    unit = _unit(curves)
    for number, curve in enumerate(curves):
        times = date2num([datetime.fromtimestamp(each, UTC) for each in curve["start"]])
        color = _PALETTE[number % len(_PALETTE)]
        style = _STYLES[number % len(_STYLES)]
        # A `$` would begin mathematics: what a device names itself is text.
        label = f"{curve['device']} {curve['field']}".replace("$", r"\$")
        low, high, mean = (
            [each / unit for each in curve[name]] for name in ("low", "high", "mean")
        )
        marker = "." if len(times) < _FEW else ""
        axes.fill_between(times, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(times, mean, marker + style, color=color, label=label, linewidth=1.2)
    axes.xaxis_date(UTC)
    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("UTC")
    if unit != 1:
        axes.set_ylabel(f"{unit:g}")
    axes.grid(alpha=0.3)
    if curves:
        figure.legend(loc="outside upper left")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def _unit(curves: list[dict[str, Any]]) -> float:
    ends = (each for curve in curves for name in ("low", "high") for each in curve[name])
    return _HUGE if max(map(abs, ends), default=0.0) >= _HUGE else 1.0


_RENDERERS: Final = {"csv": _csv, "parquet": _parquet, "png": _png}

if __name__ == "__main__":
    sys.stdout.buffer.write(_RENDERERS[sys.argv[1]](orjson.loads(sys.stdin.buffer.read())))
