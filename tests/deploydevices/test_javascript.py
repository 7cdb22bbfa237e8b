"""The client for Node, whose queue lives as long as the program."""

from pathlib import Path

import pytest

from tests.deploydevices.chaos import chaos
from tests.deploydevices.programs import Program, run


def test_cuts_and_killed_listeners(javascript_program: Program, tmp_path: Path) -> None:
    outcome = chaos(javascript_program, tmp_path, events=20, seed=20261122)
    assert outcome.events.keys() == {"listener", "cut"}
    assert outcome.frames > 200


@pytest.mark.parametrize("option", ["INGEST_QUEUE_FRAMES", "INGEST_PAUSE_MS"])
@pytest.mark.parametrize("value", ["0", "x"])
def test_numbers_that_make_no_sense(
    javascript_program: Program, option: str, value: str, tmp_path: Path
) -> None:
    command = javascript_program.command(("127.0.0.1", 1), "a", tmp_path / "queue")
    done = run(command, b"frame\n", **{option: value})
    assert done.returncode == 1
    assert b"must be a number, and 1 at least" in done.stderr
