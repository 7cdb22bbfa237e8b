"""The `ingest` command: what an operator and a device author type."""

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ingest.cli.output import guarded_output
from ingest.layout import DEFAULT_DATA, Layout
from ingest.names import nearest

# Each command's module is imported when it is asked for: `ingest tail` need not load a reactor.
_COMMANDS = {
    "backup": "ingest.cli.backup",
    "bench": "ingest.cli.bench",
    "demo": "ingest.cli.demo",
    "device": "ingest.cli.device",
    "export": "ingest.cli.export",
    "hold": "ingest.cli.control",
    "page-password": "ingest.cli.page_password",
    "poll": "ingest.cli.poll",
    "query": "ingest.cli.query",
    "release": "ingest.cli.control",
    "restore": "ingest.cli.backup",
    "rotate": "ingest.cli.control",
    "rules": "ingest.cli.rules",
    "run": "ingest.cli.run",
    "send": "ingest.cli.send",
    "status": "ingest.cli.control",
    "tail": "ingest.cli.tail",
    "verify": "ingest.cli.verify",
}


class Commands(click.Group):
    """A group that names the command which was perhaps meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; see `click.Group`."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            close = nearest(name, known)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}."
            ctx.fail(f"No such command {name!r}: {hint}")
        return super().resolve_command(ctx, args)


class _Main(Commands):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with guarded_output():
            return super().main(*args, **kwargs)


_HELP = f"""
Look after the devices and the log of an ingest listener.

The listener itself starts with `ingest run`, which is the same as `twistd -n ingest`.

What the help calls by a name such as PROTOCOL.md lies beside the code:

\b
  {Path(__file__).parents[1]}
"""


@click.command(cls=_Main, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA,
    envvar="INGEST_DATA",
    show_default=True,
    show_envvar=True,
    help="The listener's data folder.",
)
@click.version_option(package_name="ingest", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, data: Path) -> None:
    """Look after the devices and the log of an ingest listener."""
    ctx.obj = Layout(data)
