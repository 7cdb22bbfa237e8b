"""What all of `ingest` has in common."""

from importlib.metadata import version

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


def test_every_command_is_explained() -> None:
    lines = run("--help").stdout.split("Commands:\n")[1].splitlines()
    assert isinstance(main, click.Group)
    assert [line.split()[0] for line in lines] == main.list_commands(click.Context(main))
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
