"""Whatever is killed and whichever disk is full: what devices sent is what is logged, once."""

from pathlib import Path

from tests.client.kill import kill


def test_devices_the_listener_and_connections_are_killed_at_random(tmp_path: Path) -> None:
    outcome = kill(tmp_path, blows=30, seed=20261125)
    assert len(outcome.blows) == 8, "each kind of blow must have been dealt"
    assert outcome.frames > 1000
