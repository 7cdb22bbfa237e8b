"""The parts of a listener, one set for each test."""

from collections.abc import Iterator

import pytest

from tests.listener.parts import Listener


@pytest.fixture
def parts() -> Iterator[Listener]:
    """A hub with the default settings."""
    parts = Listener()
    yield parts
    parts.close()
