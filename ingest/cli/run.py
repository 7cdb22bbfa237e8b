"""`ingest run`: the listener itself, where no `twistd` is on the path."""

# ruff: noqa: E402 - signals may come while the rest is imported, and must be safe from now on
from ingest.service.hangup import HANGUP

HANGUP.install()


import sys
from collections.abc import Sequence

import click
from click.core import ParameterSource
from twisted.scripts import twistd

from ingest.layout import Layout
from ingest.service.tap import Options


@click.command(
    short_help="Run a listener, as `twistd -n ingest` does.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
@click.pass_context
def run(ctx: click.Context, options: tuple[str, ...]) -> None:
    """Run a listener until Ctrl-C or SIGTERM, as `twistd -n ingest` does.

    It takes the options of `twistd ingest`: ingest run --help shows them.
    """
    if {"-h", "--help"} & set(options):
        help_ = Options()
        help_.synopsis = f"Usage: {ctx.command_path} [options]"
        click.echo(str(help_).rstrip())
        return
    arguments = [*_data_folder(ctx), *options]
    _check(arguments, ctx.command_path)
    sys.argv = ["twistd", "-n", "--pidfile=", "ingest", *arguments]
    twistd.run()


def _data_folder(ctx: click.Context) -> list[str]:
    """Pass on what was said before the command, or by INGEST_DATA; else the file may say it."""
    assert ctx.parent is not None
    if ctx.parent.get_parameter_source("data") in (None, ParameterSource.DEFAULT):
        return []
    layout: Layout = ctx.obj
    return ["--data", str(layout.data)]


def _check(arguments: Sequence[str], command: str) -> None:
    """Refuse what makes no sense in the words of this command.

    Raises:
        SystemExit: with one line.
    """
    try:
        Options().parseOptions(list(arguments))
    except SystemExit as error:
        if isinstance(error.code, str):
            raise SystemExit(error.code.replace("twistd ingest", command)) from None
        raise
