"""The parts of a listener, one set for each test."""

from collections.abc import Iterator

import pytest

from tests.listener.parts import Parts


@pytest.fixture
def parts() -> Iterator[Parts]:
    """A hub with the default settings."""
    parts = Parts()
    yield parts
    parts.close()
