"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

from ingest.layout import Layout

# A busy machine makes an example slow; that is no failure.
settings.register_profile("ingest", deadline=None)
settings.load_profile("ingest")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data folder that is there."""
    layout = Layout(tmp_path / "data")
    layout.create()
    return layout
