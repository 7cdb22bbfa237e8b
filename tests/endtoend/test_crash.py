"""`kill -9` at any instant: the log is what was sent, and so is what `tail -F` printed."""

from pathlib import Path

from tests.endtoend.crash import crash


def test_a_log_survives_being_killed(tmp_path: Path) -> None:
    outcome = crash(tmp_path, kills=30, seed=20261122)
    assert outcome.rotated > 5
    assert outcome.completed > 0, "no kill hit a write: the test has lost its aim"
