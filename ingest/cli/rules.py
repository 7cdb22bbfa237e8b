"""`ingest rules`: check a file of rules, run it over the old log, and run its tests."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest.cli.common import TIMES, moment, needs_watch
from ingest.cli.output import printable
from ingest.layout import Layout
from ingest.log.decompressing import DAMAGED

if TYPE_CHECKING:
    from ingest.watch.rules.model import Rules
    from ingest.watch.rules.replay import Firing

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(short_help="Check, replay and test rules of ingest-watch.")
def rules() -> None:
    """Try the rules of ingest-watch: check them, run them over the old log, test them.

    A file of rules is TOML:

    \b
      [[rule]]
      name = "hot"
      devices = "cold-*"             # all, if it is left out
      when = "temp > 30"             # CEL over the record's fields
      for = "10m"                    # it must hold that long
      clear = "temp < 25"            # else it clears when `when` is false
      then = ["webhook:http://127.0.0.1:8080/alerts", "mail:ops@example.org"]
      message = "{device} has {temp:.1f} degrees since {since}"

    Instead of `when`: silent = "10m" or "learned", perhaps with field = "temp";
    missing_numbers = true; refused = 5 with within = "10m"; disk_full_within = "1d".
    """


@rules.command(short_help="Say what is wrong in a file of rules, and where.")
@click.argument("file", type=_FILE)
@needs_watch
def check(file: Path) -> None:
    """Check a file of rules: say what is wrong, in which rule, on which line, and what to do.

    Ends with 0 if all is well, else with 1.
    """
    found = _read(file)
    click.echo(f"{file}: {len(found.rules)} rules, and nothing is wrong with them")


@rules.command(short_help="Say what would have fired over the old log.")
@click.option(
    "--rules", "file", type=_FILE, required=True, envvar="INGEST_RULES", show_envvar=True,
    help="The file of rules.",
)  # fmt: skip
@click.option(
    "--since",
    metavar="TIME",
    callback=moment,
    help=f"Begin there: {TIMES}.  [default: the log's beginning]",
)
@click.option("--until", metavar="TIME", callback=moment, help="End there.  [default: now]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for a person, or an object of JSON for each alert.",
)
@click.option("--plot", type=_FILE, help="Draw a timeline to this file: .svg or .png.")
@click.pass_obj
@needs_watch
def replay(
    layout: Layout,
    file: Path,
    since: datetime | None,
    until: datetime | None,
    form: str,
    plot: Path | None,
) -> None:
    """Run rules over the old log: what would have fired, when, and for how long.

    Nobody is told. Rules about refusals and the disk are left out: the log does not hold them.

    \b
    Example:
      ingest rules replay --rules rules.toml --since 30d --plot 30.svg
    """
    from ingest.watch.rules import replay as over  # noqa: PLC0415

    taken, others = over.from_the_log(_read(file).rules)
    for rule in others:
        click.echo(f"left out, as the log does not hold it: {printable(rule.name)}", err=True)
    end = until or datetime.now(UTC)
    try:
        events = over.replay(
            layout.log_folder, taken, since, end, lambda error: click.echo(f"{error}", err=True)
        )
    except DAMAGED as error:
        raise click.ClickException(f"the log is damaged ({error}): ingest verify") from error
    except OSError as error:
        raise click.ClickException(
            f"can't read the log in {layout.log_folder}: {error.strerror}; is --data right?"
        ) from error
    fired = over.firings(events)
    _show(fired, end, form)
    if plot is not None:
        _draw(fired, since, end, plot)


@rules.command()
@click.argument("file", type=_FILE)
@needs_watch
def test(file: Path) -> None:
    """Run given records against expected alerts.

    \b
      rules = "rules.toml"
      [[test]]
      name = "hot for ten minutes"
      until = "1h"
      records = [{at = "0s", device = "cold-1", text = "temp=31"}]
      expect = [{rule = "hot", device = "cold-1", fires = "10m"}]

    Ends with 0 if all that fires is expected, and the other way round; else with 1.
    """
    from ingest.watch.rules.cases import CasesError, read_cases  # noqa: PLC0415
    from ingest.watch.rules.rulesfile import RulesError  # noqa: PLC0415

    try:
        found, cases = read_cases(file)
    except (CasesError, RulesError) as error:
        raise click.ClickException(printable_lines(str(error))) from error
    failed = 0
    for case in cases:
        problems = case.run(found)
        failed += bool(problems)
        where = f" ({file}:{case.line})" if problems else ""
        click.echo(f"{'FAILED' if problems else 'ok':6} {printable(case.name)}{where}")
        for problem in problems:
            click.echo(f"       {printable(problem)}")
    click.echo(f"{len(cases)} tests, {failed} failed")
    click.get_current_context().exit(1 if failed else 0)


def _read(file: Path) -> "Rules":
    from ingest.watch.rules.rulesfile import RulesError, read_rules  # noqa: PLC0415

    try:
        return read_rules(file)
    except RulesError as error:
        raise click.ClickException(printable_lines(str(error))) from error


def printable_lines(text: str) -> str:
    """Escape what a terminal would act on, but for the ends of lines."""
    return "\n".join(map(printable, text.splitlines()))


def _show(fired: "Sequence[Firing]", end: datetime, form: str) -> None:
    from ingest.watch.rules.nodes import SECOND  # noqa: PLC0415
    from ingest.watch.rules.phases import in_utc  # noqa: PLC0415

    until = round(end.timestamp() * SECOND)
    if form == "json":
        for each in fired:
            cleared = None if each.cleared is None else in_utc(each.cleared)
            click.echo(json.dumps({**each.event.described(), "cleared": cleared,
                                   "seconds": each.lasted(until)}))  # fmt: skip
        return
    table = Table("rule", "device", "fired", "cleared", "lasted", "message")
    for each in fired:
        table.add_row(
            *map(
                Text,
                (
                    printable(each.event.rule),
                    printable(each.event.device),
                    in_utc(each.event.fired)[:19] + "Z",
                    "still fires" if each.cleared is None else in_utc(each.cleared)[:19] + "Z",
                    _duration(each.lasted(until)),
                    printable(each.event.message),
                ),
            )
        )
    Console().print(table)
    click.echo(f"fired {len(fired)} times")


def _duration(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return (f"{days}d " if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"


def _draw(fired: "Sequence[Firing]", since: datetime | None, end: datetime, path: Path) -> None:
    from ingest.watch.rules.nodes import SECOND  # noqa: PLC0415
    from ingest.watch.rules.timeline import draw  # noqa: PLC0415 - it takes half a second

    until = round(end.timestamp() * SECOND)
    first = min((each.event.fired for each in fired), default=until - SECOND)
    begin = first if since is None else round(since.timestamp() * SECOND)
    try:
        draw(fired, begin, until, path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"can't draw {path}: {error}") from error
