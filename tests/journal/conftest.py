"""The journals, each driven by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journals import JOURNALS, Driven


@pytest.fixture(params=JOURNALS, ids=lambda kind: kind.__name__)
def driven(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driven]:
    """Each journal in turn."""
    driven = JOURNALS[request.param](tmp_path)
    yield driven
    driven.close()
