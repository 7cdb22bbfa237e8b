"""The client for Node, whose queue lives as long as the program."""

from pathlib import Path

from tests.deploydevices.chaos import chaos
from tests.deploydevices.programs import Program


def test_cuts_and_killed_listeners(javascript_program: Program, tmp_path: Path) -> None:
    outcome = chaos(javascript_program, tmp_path, events=20, seed=20261122)
    assert outcome.events.keys() == {"listener", "cut"}
    assert outcome.frames > 200
