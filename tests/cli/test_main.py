"""What all of `ingest` has in common."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import cast

import click
import pytest
from click.testing import CliRunner, Result

from ingest.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ingest")


def test_the_version_is_ours() -> None:
    assert run("--version").stdout == f"ingest {version('ingest')}\n"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("statis",), "status"),
        (("devices",), "device"),
        (("device", "frobnicate"), None),
        (("device", "remvoe", "a"), "remove"),
        (("device", "newtoken", "a"), "new-token"),
    ],
)
def test_did_you_mean(arguments: tuple[str, ...], meant: str | None) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    if meant is None:
        assert "there are add, disable, " in last
    else:
        assert last.endswith(f"did you mean {meant}?")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Go through the commands of a group, and of the groups in it, by their names."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


def found(path: tuple[str, ...]) -> click.Command:
    """Return the command of these names."""
    command: click.Command | None = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    return command


@pytest.mark.parametrize("path", [*commands(cast(click.Group, main))], ids=" ".join)
def test_help_is_written_for_people(path: tuple[str, ...]) -> None:
    """Each option says something, and nothing of how the help is made shows in it."""
    text = run(*path, "--help").stdout
    assert r"\b" not in text
    assert "...\n" not in text.partition("Commands:\n")[2]  # said in full, in a line
    for option in found(path).params:
        if isinstance(option, click.Option):
            assert option.help, option
            # Without one the name of a function of ours stands there.
            assert option.metavar or not isinstance(option.type, click.types.FuncParamType), option


def test_every_command_is_explained() -> None:
    lines = run("--help").stdout.split("Commands:\n")[1].splitlines()
    assert isinstance(main, click.Group)
    assert [line.split()[0] for line in lines] == main.list_commands(click.Context(main))
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert not [line for line in lines if line.endswith("...")]
