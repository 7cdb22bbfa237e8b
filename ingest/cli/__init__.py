"""The `ingest` command: what an operator and a device author type."""

from importlib import import_module
from pathlib import Path

import click

from ingest.layout import DEFAULT_DATA, Layout

# Each command's module is imported when it is asked for: `ingest tail` need not load a reactor.
_COMMANDS = {
    "bench": "ingest.cli.bench",
    "demo": "ingest.cli.demo",
    "device": "ingest.cli.device",
    "hold": "ingest.cli.control",
    "release": "ingest.cli.control",
    "rotate": "ingest.cli.control",
    "send": "ingest.cli.send",
    "status": "ingest.cli.control",
    "tail": "ingest.cli.tail",
    "verify": "ingest.cli.verify",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA,
    envvar="INGEST_DATA",
    show_default=True,
    show_envvar=True,
    help="The listener's data folder.",
)
@click.version_option(package_name="ingest")
@click.pass_context
def main(ctx: click.Context, data: Path) -> None:
    """Look after the devices and the log of an ingest listener.

    The listener itself starts with `twistd -n ingest`.
    """
    ctx.obj = Layout(data)
