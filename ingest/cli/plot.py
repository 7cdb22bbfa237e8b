"""A query's rows as curves in a picture."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow
from matplotlib.figure import Figure
from pyarrow import types

MAX_CURVES = 50
_MAX_LABEL = 60  # characters


class PlotError(Exception):
    """The rows make no picture; the text says what is missing."""


def draw(schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch], path: Path) -> None:
    """Draw the rows.

    To the right goes the first column of times, or else of numbers. Each further column of
    numbers is a curve, or as many as the columns of text have values.

    Raises:
        PlotError: there is no such column, no row, or there are too many curves.
        OSError: the file can't be written.
        ValueError: the file's name does not end in a known kind of picture.
    """
    kinds = [field.type for field in schema]
    times = [place for place, kind in enumerate(kinds) if _is_moment(kind)]
    numbers = [place for place, kind in enumerate(kinds) if _is_number(kind)]
    names = [place for place, kind in enumerate(kinds) if types.is_string(kind)]
    right = next(iter([*times, *numbers]), None)
    curves = [place for place in numbers if place != right]
    if right is None or not curves:
        raise PlotError("a picture needs a column of times or numbers, and another of numbers")
    found: dict[str, tuple[list[object], list[object]]] = {}
    for row in _rows(batches):
        named = " ".join(str(row[place]) for place in names)
        for place in curves:
            label = " ".join(filter(None, (named, schema.names[place] if len(curves) > 1 else "")))
            across, up = found.setdefault(label or schema.names[place], ([], []))
            across.append(row[right])
            up.append(row[place])
        if len(found) > MAX_CURVES:
            raise PlotError(f"these are more than {MAX_CURVES} curves; ask for fewer")
    if not found:
        raise PlotError("there are no rows to draw")
    _save(found, schema.names[right], [schema.names[place] for place in curves], path)


def _save(
    curves: dict[str, tuple[list[object], list[object]]],
    right: str,
    up: Sequence[str],
    path: Path,
) -> None:
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.add_subplot()
    mark = "o" if all(len(across) == 1 for across, _ in curves.values()) else ""
    lines = [axes.plot(*_sorted(*curve), marker=mark)[0] for curve in curves.values()]  # type: ignore[arg-type]
    legend = figure.legend(
        lines, [label[:_MAX_LABEL] for label in curves], loc="outside right upper"
    )
    axes.set_xlabel(right)
    axes.set_ylabel(", ".join(up))
    axes.grid(visible=True, alpha=0.3)
    # What a device has sent is text, and no formula.
    for text in (*legend.get_texts(), axes.xaxis.label, axes.yaxis.label):
        text.set_parse_math(False)
    figure.savefig(path)


def _sorted(across: list[object], up: list[object]) -> tuple[list[object], list[object]]:
    """Order a curve from left to right; a point without a place is none."""
    points = [(x, y) for x, y in zip(across, up, strict=True) if x is not None]
    points.sort(key=lambda point: point[0])  # type: ignore[arg-type,return-value]
    return [x for x, _ in points], [float("nan") if y is None else y for _, y in points]


def _rows(batches: Iterable[pyarrow.RecordBatch]) -> Iterator[tuple[object, ...]]:
    for batch in batches:
        try:
            columns = [column.to_pylist() for column in batch.columns]
        except (ValueError, OverflowError) as error:
            raise PlotError(
                "a moment is infinite, or finer than a microsecond: leave it out, or write"
                " time::TIMESTAMP"
            ) from error
        yield from zip(*columns, strict=True)


def _is_moment(kind: pyarrow.DataType) -> bool:
    return bool(types.is_timestamp(kind) or types.is_date(kind))


def _is_number(kind: pyarrow.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))
