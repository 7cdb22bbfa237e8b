"""The comparison: ingest and its rivals in turn, on the same frames, on this machine.

    tests/bench/compare [--rounds 3] [--only ROW] [--quick] [--soak MINUTES] [--growth]

It prints Markdown. Everything runs on 127.0.0.1 and in temporary folders, and is stopped by its
process number.
"""

import os
import sys
from collections.abc import Callable

import click

from ingest.bench.crew import LoadError
from ingest.bench.local import StartError
from tests.bench import fleet, soak, storage, throughput
from tests.bench.growth import PICTURE, measure_growth
from tests.bench.setting import Scale
from tests.bench.table import Result, render

_ROWS: dict[str, Callable[[Scale], Result]] = {
    "a": throughput.text_stream,
    "b": throughput.packed_stream,
    "c": throughput.text_single,
    "d": throughput.packed_single,
    "e": fleet.paced,
    "f": fleet.storm,
    "g": fleet.idle,
    "h": throughput.tls_stream,
    "i": storage.on_disk,
}
_HELP = "Rows:\n\n\b\n" + "\n".join(f"{key}  {row.__doc__}" for key, row in _ROWS.items())


@click.command(epilog=_HELP)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often each listener has its turn; the medians count.",
)
@click.option(
    "--only",
    "rows",
    type=click.Choice(list(_ROWS)),
    multiple=True,
    metavar="ROW",
    help="Only this row; may be given several times.",
)
@click.option(
    "--quick", is_flag=True, help="Few frames and connections: shows that it works, not how fast."
)
@click.option(
    "--soak",
    "minutes",
    type=click.FloatRange(0.1, 1440),
    metavar="MINUTES",
    help="Instead of the rows: so long a time of mixed load.",
)
@click.option(
    "--growth", is_flag=True, help=f"Instead of the rows: measure growth, and draw {PICTURE.name}."
)
def main(
    rounds: int, rows: tuple[str, ...], quick: bool, minutes: float | None, growth: bool
) -> None:
    """Compare ingest with its rivals, and with what is required of it."""
    click.echo(f"`{_command()}` on {os.cpu_count()} cores\n")
    try:
        _compare(Scale(rounds, quick), rows, minutes, growth)
    except (StartError, LoadError) as error:
        raise click.ClickException(str(error)) from error


def _compare(scale: Scale, rows: tuple[str, ...], minutes: float | None, growth: bool) -> None:
    if minutes:
        click.echo("\n".join(render([soak.soak(minutes)])))
    if growth:
        click.echo("\n".join(measure_growth(scale)))
    if minutes or growth:
        return
    results = []
    for key in rows or _ROWS:
        click.echo(f"row {key}", err=True)
        results.append(_ROWS[key](scale))
    click.echo("\n".join(render(results)))


def _command() -> str:
    return " ".join(("tests/bench/compare", *sys.argv[1:]))


if __name__ == "__main__":
    main()
