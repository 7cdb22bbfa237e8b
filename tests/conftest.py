"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

from ingest.layout import Layout

_LONGEST = (
    "simulation/test_simulation.py",
    "endtoend/test_dial.py",
    "watch/test_query.py",
    "watch/test_browser.py",
    "watch/test_page.py",
    "watch/test_hostile.py",
    "endtoend/test_crash.py",
    "watch/test_screenshots.py",
    "watch/rules/test_service.py",
    "endtoend/test_commands.py",
    "endtoend/test_options.py",
    "client/test_kill.py",
    "watch/test_asking.py",
    "watch/test_unaffected.py",
    "watch/test_ask_browser.py",
    "watch/test_numbers.py",
    "watch/test_full_disk.py",
    "endtoend/test_backpressure.py",
    "endtoend/test_forward_clients.py",
    "test_deploy.py",
)
"""The files that take more than some ten seconds, longest first."""

# A busy machine makes an example slow; that is no failure.
settings.register_profile("ingest", deadline=None)
settings.load_profile("ingest")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: else one worker would be busy with one while others rest."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data folder that is there."""
    layout = Layout(tmp_path / "data")
    layout.create()
    return layout
