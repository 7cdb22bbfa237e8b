"""`ingest page-password`: a line for the file of those who may look at the page."""

from typing import cast

import click

from ingest.watch.auth import ROLES, Role, password_line


@click.command(short_help="Print a line for the page's --password-file.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    default="view",
    show_default=True,
    help="What the user may do: look, or also rotate the log.",
)
def page_password(name: str, role: str) -> None:
    """Ask for a password, and print a line for the --password-file of `twistd ingest-watch`.

    \b
    touch passwords && chmod 600 passwords
    ingest page-password anna --role operate >> passwords
    """
    # Not on standard output, which goes into the file.
    password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    try:
        click.echo(password_line(name, cast(Role, role), password))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from error
